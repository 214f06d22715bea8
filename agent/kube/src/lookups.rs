//! What is asked about pods beyond themselves: their service accounts' annotation, their controllers' controllers.
//!
//! Owns the questions to the API server, their bounds and how long an answer is used. Every question is a `get` of
//! one object's metadata by name, so that a node needs neither `list` nor `watch` on what is not its own; an answer
//! counts only where its UID is the one that was referred to. What may not be read is left out.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client,
    api::{DynamicObject, GetParams},
    core::{ApiResource, GroupVersionKind},
    discovery::Scope,
};
use tokio::task::JoinSet;

use crate::{
    names::is_account_email,
    pod::{Controller, Pod, controller_of},
    store::Known,
};

/// Where a service account says which Google service account it acts as (GKE, "Workload Identity Federation").
const ANNOTATION: &str = "iam.gke.io/gcp-service-account";
/// Controllers of a chain, from the pod's upwards.
const DEPTH: usize = 5;
/// Questions that are asked at once.
const AT_ONCE: usize = 8;
/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before what was refused is asked for again.
const REFUSED: Duration = Duration::from_secs(600);
/// Before what failed otherwise is.
const FAILED: Duration = Duration::from_secs(15);
/// Answers of each kind that are kept.
const ANSWERS: usize = 4096;

/// The Google service account that a pod's own is annotated to act as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Account {
    /// Not known yet.
    #[default]
    Asked,
    /// There is no such annotation, or no service account.
    None,
    /// Its e-mail.
    Acts(Arc<str>),
    /// It could not be read.
    Failed,
}

/// A pod's controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// Not known yet.
    #[default]
    Asked,
    /// From the pod's own upwards, as far as they may be read.
    Known(Arc<[Controller]>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Account { namespace: String, name: String },
    Parent { namespace: String, of: Controller },
}

enum Answer {
    Account(Account),
    Parent(Option<Controller>),
    /// It is not ours to read, or not there.
    Refused,
    Failed,
}

struct Kept<T> {
    answer: T,
    at: Instant,
    /// How long it is used.
    fresh: Duration,
}

/// Asks, and keeps what was answered.
pub(crate) struct Lookups {
    client: Client,
    /// How old an annotation may be: it can change at any time.
    fresh: Duration,
    accounts: HashMap<(String, String), Kept<Account>>,
    /// By UID of what is controlled.
    parents: HashMap<String, Kept<Option<Controller>>>,
    kinds: Kinds,
    waiting: VecDeque<Question>,
    /// Waiting or under way.
    open: HashSet<Question>,
    asking: JoinSet<(Question, Answer)>,
}

impl Lookups {
    pub(crate) fn new(client: Client, fresh: Duration) -> Self {
        Self {
            client,
            fresh,
            accounts: HashMap::new(),
            parents: HashMap::new(),
            kinds: Kinds::default(),
            waiting: VecDeque::new(),
            open: HashSet::new(),
            asking: JoinSet::new(),
        }
    }

    /// What is known for a pod; what is not, or is old, is asked for.
    pub(crate) fn of(&mut self, known: &Known, now: Instant) -> (Account, Owners) {
        (self.account(&known.pod, now), self.owners(&known.pod, now))
    }

    fn account(&mut self, pod: &Pod, now: Instant) -> Account {
        if pod.service_account.is_empty() {
            return Account::None;
        }
        let key = (pod.namespace.clone(), pod.service_account.clone());
        let kept = self.accounts.get(&key);
        let answer = kept.map(|kept| kept.answer.clone());
        if kept.is_none_or(|kept| now.saturating_duration_since(kept.at) >= kept.fresh) {
            let (namespace, name) = key;
            self.ask(Question::Account { namespace, name });
        }
        answer.unwrap_or_default()
    }

    fn owners(&mut self, pod: &Pod, now: Instant) -> Owners {
        let mut chain: Vec<Controller> = Vec::new();
        let mut next = pod.controller.clone();
        while let Some(controller) = next.take() {
            if chain.len() == DEPTH || chain.iter().any(|known| known.uid == controller.uid) {
                break;
            }
            chain.push(controller.clone());
            if chain.len() == DEPTH {
                break;
            }
            match self.parents.get(&controller.uid) {
                Some(kept) if now.saturating_duration_since(kept.at) < kept.fresh => {
                    next.clone_from(&kept.answer);
                }
                old => {
                    let answer = old.map(|kept| kept.answer.clone());
                    self.ask(Question::Parent { namespace: pod.namespace.clone(), of: controller });
                    match answer {
                        Some(answer) => next = answer,
                        None => return Owners::Asked,
                    }
                }
            }
        }
        Owners::Known(chain.into())
    }

    fn ask(&mut self, question: Question) {
        if self.open.insert(question.clone()) {
            self.waiting.push_back(question);
            self.go();
        }
    }

    fn go(&mut self) {
        while self.asking.len() < AT_ONCE
            && let Some(question) = self.waiting.pop_front()
        {
            let (client, kinds) = (self.client.clone(), self.kinds.clone());
            self.asking.spawn(async move {
                let asked = async {
                    match &question {
                        Question::Account { namespace, name } => account(client, namespace, name).await,
                        Question::Parent { namespace, of } => parent(client, &kinds, namespace, of).await,
                    }
                };
                let answer = tokio::time::timeout(PATIENCE, asked).await;
                let answer = answer.unwrap_or(Answer::Failed);
                (question, answer)
            });
        }
    }

    /// Takes the next answer; never returns while nothing is asked.
    pub(crate) async fn answered(&mut self) {
        let Some(answered) = self.asking.join_next().await else {
            return std::future::pending().await;
        };
        match answered {
            Ok((question, answer)) => {
                self.open.remove(&question);
                self.keep(question, answer);
            }
            // Its question stays open: it is never asked again, and what depends on it stays unknown.
            Err(error) => tracing::error!(%error, "a question to the API server panicked"),
        }
        self.go();
    }

    fn keep(&mut self, question: Question, answer: Answer) {
        let at = Instant::now();
        match question {
            Question::Account { namespace, name } => {
                let key = (namespace, name);
                let before = self.accounts.get(&key).map(|kept| kept.answer.clone());
                let (answer, fresh) = match answer {
                    Answer::Account(account) => (account, self.fresh),
                    Answer::Refused => (Account::Failed, REFUSED),
                    Answer::Failed | Answer::Parent(_) => (before.unwrap_or(Account::Failed), FAILED),
                };
                bound(&mut self.accounts);
                self.accounts.insert(key, Kept { answer, at, fresh });
            }
            Question::Parent { of, .. } => {
                let (answer, fresh) = match answer {
                    Answer::Parent(parent) => (parent, REFUSED),
                    Answer::Refused => (None, REFUSED),
                    Answer::Failed | Answer::Account(_) => (None, FAILED),
                };
                bound(&mut self.parents);
                self.parents.insert(of.uid, Kept { answer, at, fresh });
            }
        }
    }
}

/// What is forgotten is asked again.
fn bound<K, T>(answers: &mut HashMap<K, T>) {
    if answers.len() >= ANSWERS {
        answers.clear();
    }
}

fn failed(error: &kube::Error) -> Answer {
    match error {
        kube::Error::Api(status) if status.is_not_found() || status.is_forbidden() => Answer::Refused,
        kube::Error::Discovery(_) => Answer::Refused,
        _ => Answer::Failed,
    }
}

async fn account(client: Client, namespace: &str, name: &str) -> Answer {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    match accounts.get_metadata(name).await {
        Ok(found) => {
            let annotation = found.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
            Answer::Account(match annotation {
                Some(email) if is_account_email(email) => Account::Acts(email.as_str().into()),
                Some(_) => {
                    tracing::warn!(namespace, name, annotation = ANNOTATION, "names no account");
                    Account::None
                }
                None => Account::None,
            })
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Answer::Account(Account::None),
        Err(error) => {
            tracing::debug!(%error, namespace, name, "service account cannot be read");
            failed(&error)
        }
    }
}

async fn parent(client: Client, kinds: &Kinds, namespace: &str, of: &Controller) -> Answer {
    let (resource, scope) = match kinds.find(&client, of).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, kind = of.kind, "kind of a controller cannot be found");
            return failed(&error);
        }
    };
    let objects: Api<DynamicObject> = match scope {
        Scope::Cluster => Api::all_with(client, &resource),
        Scope::Namespaced => Api::namespaced_with(client, namespace, &resource),
    };
    match objects.get_metadata_with(&of.name, &GetParams::default()).await {
        // Another of the same name: what was referred to is gone.
        Ok(found) if found.metadata.uid.as_deref() != Some(of.uid.as_str()) => Answer::Refused,
        Ok(found) => Answer::Parent(controller_of(&found.metadata)),
        Err(error) => {
            tracing::debug!(%error, kind = of.kind, name = of.name, "controller cannot be read");
            failed(&error)
        }
    }
}

/// Which resource a kind is.
#[derive(Clone, Default)]
struct Kinds(Arc<std::sync::Mutex<HashMap<GroupVersionKind, (ApiResource, Scope)>>>);

impl Kinds {
    async fn find(&self, client: &Client, of: &Controller) -> kube::Result<(ApiResource, Scope)> {
        let (group, version) = of.api_version.split_once('/').unwrap_or(("", &of.api_version));
        let kind = GroupVersionKind::gvk(group, version, &of.kind);
        let built_in = match (group, of.kind.as_str()) {
            ("apps", "ReplicaSet") => Some("replicasets"),
            ("apps", "Deployment") => Some("deployments"),
            ("apps", "StatefulSet") => Some("statefulsets"),
            ("apps", "DaemonSet") => Some("daemonsets"),
            ("batch", "Job") => Some("jobs"),
            ("batch", "CronJob") => Some("cronjobs"),
            _ => None,
        };
        if let Some(plural) = built_in {
            return Ok((ApiResource::from_gvk_with_plural(&kind, plural), Scope::Namespaced));
        }
        let known = self.lock().get(&kind).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (resource, capabilities) = kube::discovery::pinned_kind(client, &kind).await?;
        let found = (resource, capabilities.scope);
        let mut kinds = self.lock();
        bound(&mut kinds);
        kinds.insert(kind, found.clone());
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<GroupVersionKind, (ApiResource, Scope)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
