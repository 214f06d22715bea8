//! The parts of a federated principal, and how they are joined.

use std::{fmt, str::FromStr};

use verbatim_kube::names::{is_label, is_subdomain};

/// A Kubernetes service account with its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// RFC 1123 label.
    pub namespace: String,
    /// RFC 1123 subdomain.
    pub name: String,
}

/// Why a name is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// See [`ServiceAccount`].
    #[error(
        "`{0}` is not of the form NAMESPACE/SERVICE_ACCOUNT with names of Kubernetes (lower-case letters, \
         digits, `-`; in the second also `.`), e.g. `shop/checkout`"
    )]
    ServiceAccount(String),
    /// See [`Pool`].
    #[error("`{0}` is no workload identity pool: give its id, e.g. `my-project.svc.id.goog`")]
    Pool(String),
}

impl FromStr for ServiceAccount {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let names =
            text.split_once('/').filter(|(namespace, name)| is_label(namespace) && is_subdomain(name));
        let (namespace, name) = names.ok_or_else(|| NameError::ServiceAccount(text.to_owned()))?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Id of a workload identity pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool(String);

impl FromStr for Pool {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // `PROJECT_ID.svc.id.goog`, where a domain-scoped project id holds a colon: example.com:my-project.
        let valid = text.split(':').count() <= 2 && text.split(':').all(is_subdomain);
        if valid { Ok(Self(text.to_owned())) } else { Err(NameError::Pool(text.to_owned())) }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The principal of a service account as IAM writes it.
#[must_use]
pub fn principal(project_number: u64, pool: &Pool, namespace: &str, service_account: &str) -> String {
    format!(
        "principal://iam.googleapis.com/projects/{project_number}/locations/global/workloadIdentityPools/\
         {pool}/subject/ns/{namespace}/sa/{service_account}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_written_as_iam_does() {
        let pool = "my-project.svc.id.goog".parse().expect("pool");
        assert_eq!(
            principal(123, &pool, "shop", "checkout"),
            "principal://iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/\
             my-project.svc.id.goog/subject/ns/shop/sa/checkout"
        );
    }

    #[test]
    fn a_name_that_could_forge_another_principal_is_refused() {
        for bad in ["", "a/b", "pool/subject/ns/x", "a b", "A", "a:b:c", "a..b"] {
            assert!(bad.parse::<Pool>().is_err(), "{bad}");
        }
        assert!("example.com:my-project.svc.id.goog".parse::<Pool>().is_ok());
        assert!("a/b/sa/c".parse::<ServiceAccount>().is_err());
    }
}
