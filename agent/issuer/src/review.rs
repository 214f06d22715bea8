//! Who a node agent is: its token is shown to the API server, and its node is where its pod was put.
//!
//! A token says which pod it is bound to; which node that pod runs on is read from the pod, for claims about nodes came
//! with later versions of Kubernetes.

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    core::v1::Pod,
};
use kube::{Api, Client, api::PostParams};

/// The longest token that is looked at, bytes.
const LONGEST: usize = 16 * 1024;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Its node.
    pub(crate) node: String,
    /// Its pod.
    pub(crate) pod: String,
    /// That pod's UID.
    pub(crate) pod_uid: String,
}

/// It is not a node agent, or that cannot be known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewError {
    /// No token, or one that cannot be.
    #[error("expected `Authorization: Bearer TOKEN` with the projected token of the node agent's pod")]
    NoToken,
    /// The API server does not know it, or not for us.
    #[error("the token is not valid for audience `{audience}`: {why}")]
    Invalid {
        /// Ours.
        audience: String,
        /// In the API server's words.
        why: String,
    },
    /// Another's.
    #[error("the token is {found}'s, and only {wanted} may ask")]
    Stranger {
        /// Whose.
        found: String,
        /// Who may.
        wanted: String,
    },
    /// It is bound to no pod.
    #[error("the token is bound to no pod: it must come from a projected volume of the node agent's pod")]
    Unbound,
    /// The pod is gone, or another has its name.
    #[error("the pod {name} that the token is bound to is not there any more")]
    Gone {
        /// Its name.
        name: String,
    },
    /// The pod is not on a node.
    #[error("the pod {name} that the token is bound to has no node")]
    NoNode {
        /// Its name.
        name: String,
    },
    /// The API server does not answer.
    #[error("the API server did not say: {0}")]
    Kube(#[from] Box<kube::Error>),
}

/// Asks the API server.
#[derive(Clone)]
pub(crate) struct Reviewer {
    reviews: Api<TokenReview>,
    pods: Api<Pod>,
    audience: String,
    user: String,
    account: String,
}

impl Reviewer {
    /// For one service account of one namespace.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str, account: &str, audience: &str) -> Self {
        Self {
            reviews: Api::all(client.clone()),
            pods: Api::namespaced(client, namespace),
            audience: audience.to_owned(),
            user: format!("system:serviceaccount:{namespace}:{account}"),
            account: account.to_owned(),
        }
    }

    /// Who has this token.
    ///
    /// # Errors
    /// See [`ReviewError`]. No error holds the token.
    pub(crate) async fn review(&self, token: &str) -> Result<Agent, ReviewError> {
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
        if token.is_empty() || token.len() > LONGEST || !token.bytes().all(plausible) {
            return Err(ReviewError::NoToken);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviewed = self.reviews.create(&PostParams::default(), &review).await.map_err(Box::new)?;
        let status = reviewed.status.unwrap_or_default();
        let invalid = |why: String| ReviewError::Invalid { audience: self.audience.clone(), why };
        if status.authenticated != Some(true) {
            return Err(invalid(status.error.unwrap_or_else(|| "not authenticated".to_owned())));
        }
        // An API server that knows nothing of audiences authenticates its own and names none.
        if !status.audiences.iter().flatten().any(|audience| *audience == self.audience) {
            return Err(invalid("it is for another audience".to_owned()));
        }
        let user = status.user.unwrap_or_default();
        if user.username.as_deref() != Some(&self.user) {
            let found = user.username.unwrap_or_default();
            return Err(ReviewError::Stranger { found, wanted: self.user.clone() });
        }
        let (Some(name), Some(uid)) = (extra(&user, POD_NAME), extra(&user, POD_UID)) else {
            return Err(ReviewError::Unbound);
        };
        let pod = self.pods.get_opt(&name).await.map_err(Box::new)?;
        let pod = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(&uid));
        let spec = pod.and_then(|pod| pod.spec).ok_or_else(|| ReviewError::Gone { name: name.clone() })?;
        if spec.service_account_name.as_deref() != Some(&self.account) {
            return Err(ReviewError::Gone { name });
        }
        match spec.node_name.filter(|node| !node.is_empty()) {
            Some(node) => Ok(Agent { node, pod: name, pod_uid: uid }),
            None => Err(ReviewError::NoNode { name }),
        }
    }
}

fn extra(user: &UserInfo, key: &str) -> Option<String> {
    match user.extra.as_ref()?.get(key)?.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    }
}
