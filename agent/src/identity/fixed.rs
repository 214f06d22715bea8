//! The one identity of `run`: every steered connection is the command's.

use std::sync::Arc;

use verbatim_api::v1;
use verbatim_proxy::seam::{Flow, Identities, Identity};
use verbatim_sys::{privilege::Person, process::host_name};

use super::names::{Pool, ServiceAccount, principal};

/// The same identity for everything.
#[derive(Clone, Debug)]
pub struct Fixed(Arc<Identity>);

impl Fixed {
    /// This one.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(identity))
    }

    /// It.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0
    }
}

impl Identities for Fixed {
    fn identify(&self, _: &Flow) -> Arc<Identity> {
        Arc::clone(&self.0)
    }
}

/// A person on this machine: `local:HOST/USER`. The name goes into contents only; nothing of it looks
/// federated.
#[must_use]
pub fn local(person: &Person, node: &str, cgroup: &str) -> Identity {
    let workload = v1::Workload {
        principal_kind: v1::PrincipalKind::Local.into(),
        node: node.to_owned(),
        resolution: v1::Resolution::Given.into(),
        ..v1::Workload::default()
    };
    Identity {
        workload,
        local_user: Some(format!("local:{}/{}", host_name(), person.name)),
        cgroup: Some(cgroup.to_owned()),
        pod: None,
    }
}

/// A Kubernetes service account that the person says the command stands for.
#[must_use]
pub fn federated(
    account: &ServiceAccount,
    project_number: u64,
    pool: &Pool,
    node: &str,
    cgroup: &str,
) -> Identity {
    let workload = v1::Workload {
        principal_kind: v1::PrincipalKind::Federated.into(),
        principal: principal(project_number, pool, &account.namespace, &account.name),
        namespace: account.namespace.clone(),
        service_account: account.name.clone(),
        node: node.to_owned(),
        resolution: v1::Resolution::Given.into(),
        ..v1::Workload::default()
    };
    Identity { workload, cgroup: Some(cgroup.to_owned()), ..Identity::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_person_has_no_principal_and_a_federated_name_no_local_user() {
        let person = Person::lookup(0, None).expect("root");
        let identity = local(&person, "n", "verbatim-x/workload");
        assert_eq!(identity.workload.principal, "");
        assert_eq!(identity.local_user.as_deref(), Some(format!("local:{}/root", host_name()).as_str()));
        let account = "shop/checkout".parse().expect("account");
        let pool = "p.svc.id.goog".parse().expect("pool");
        let identity = federated(&account, 7, &pool, "n", "c");
        assert_eq!(identity.local_user, None);
        assert!(identity.workload.principal.ends_with("/subject/ns/shop/sa/checkout"));
    }
}
