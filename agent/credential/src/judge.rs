//! Whether a credential belongs to the workload that presents it.
//!
//! A pure function over what is known; the table of its cases is its test. Knows no token.

use verbatim_api::v1::{CommandFinding, CredentialKind, CredentialMatch, CredentialSource, PrincipalKind};

use crate::{issuances::Owner, shown::Shown, text::is_person};

/// Who presents it, by the cluster's names; empty where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Workload<'a> {
    /// What kind of name the principal is.
    pub kind: PrincipalKind,
    /// `principal://…`.
    pub principal: &'a str,
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Kubernetes service account.
    pub service_account: &'a str,
    /// E-mail of the Google service account that it may act as.
    pub impersonated: &'a str,
}

impl Workload<'_> {
    /// Whether it has a name that a credential could agree with.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.kind == PrincipalKind::Federated && !self.service_account.is_empty()
    }

    /// Whether a name is its own: its principal, `NAMESPACE/SERVICE_ACCOUNT`, the same as Kubernetes and Google
    /// write it, or the Google service account that it acts as.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        if !self.is_named() || name.is_empty() {
            return false;
        }
        let account = |rest: &str, between: char| {
            rest.split_once(between).is_some_and(|(namespace, account)| self.is_account(namespace, account))
        };
        name == self.principal
            || (!self.impersonated.is_empty() && name.eq_ignore_ascii_case(self.impersonated))
            || account(name, '/')
            || name.strip_prefix("system:serviceaccount:").is_some_and(|rest| account(rest, ':'))
            // PROJECT.svc.id.goog[NAMESPACE/SERVICE_ACCOUNT]
            || name
                .split_once(".svc.id.goog[")
                .and_then(|(_, rest)| rest.strip_suffix(']'))
                .is_some_and(|rest| account(rest, '/'))
    }

    fn is_account(&self, namespace: &str, account: &str) -> bool {
        namespace == self.namespace && account == self.service_account
    }
}

/// What the token's issuer said when it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// E-mail of the account; empty where it said none.
    pub email: String,
    /// Its subject or client id.
    pub subject: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Does it belong to the workload?
    pub matches: CredentialMatch,
    /// In one line why, or why not. Holds names, never a credential.
    pub reason: String,
    /// For the command.
    pub finding: Option<CommandFinding>,
    /// How it was learned.
    pub source: CredentialSource,
}

fn judged(matches: CredentialMatch, reason: impl Into<String>, source: CredentialSource) -> Judged {
    Judged { matches, reason: reason.into(), finding: None, source }
}

impl Judged {
    fn finding(self, finding: CommandFinding) -> Self {
        Self { finding: Some(finding), ..self }
    }
}

/// Judges one credential. `issued`: the workload that it was issued to on this node, and whether that is the one
/// that presents it. `told`: what its issuer said, where it was asked. `accepted`: the server has taken it.
#[must_use]
pub fn judge(
    shown: &Shown,
    issued: Option<(&Owner, bool)>,
    told: Option<&Told>,
    accepted: bool,
    workload: &Workload<'_>,
) -> Judged {
    if let Some((owner, own)) = issued {
        return by_issuance(owner, own);
    }
    let read = if accepted { CredentialSource::ServerAccepted } else { CredentialSource::Read };
    let unread = CredentialSource::Unspecified;
    match shown.kind {
        CredentialKind::SelfSignedJwt => {
            let judged = by_jwt(shown, read, workload);
            // Whoever holds the file can sign: also where it is the workload's own account.
            judged.finding(CommandFinding::SharedKey)
        }
        CredentialKind::IdToken => by_jwt(shown, read, workload),
        CredentialKind::OpaqueToken | CredentialKind::BoundToken => match told {
            Some(told) if told.email.is_empty() => {
                by_subject(&told.subject, CredentialSource::Tokeninfo, workload)
            }
            Some(told) => by_name(&told.email, CredentialSource::Tokeninfo, workload),
            None if shown.jwt.is_some() => by_jwt(shown, read, workload),
            None if shown.kind == CredentialKind::BoundToken => {
                unknown("bound to a certificate, and not seen being issued on this node", unread)
            }
            None => {
                unknown("nothing can be read of it, and it was not seen being issued on this node", unread)
            }
        },
        CredentialKind::DatabaseIamUser => by_name(&shown.subject, read, workload),
        CredentialKind::DatabaseUser => unknown("a database's own user stands for no account", read),
        CredentialKind::ApiKey => unknown("an API key names a project, not a workload", unread),
        CredentialKind::SignedUrl if shown.subject.is_empty() => {
            unknown("it does not say who signed it", unread)
        }
        CredentialKind::SignedUrl => by_name(&shown.subject, read, workload),
        _ if shown.person => person(&shown.subject, read, workload),
        CredentialKind::Password => unknown("a name and a password stand for no account", read),
        CredentialKind::ClientCertificate => by_certificate(shown, read, workload),
        CredentialKind::Other | CredentialKind::Unspecified => unknown("nothing can be read of it", unread),
    }
}

fn unknown(reason: &str, source: CredentialSource) -> Judged {
    judged(CredentialMatch::Unknown, reason, source)
}

fn by_issuance(owner: &Owner, own: bool) -> Judged {
    let source = CredentialSource::Issuance;
    let issuance = &owner.issuance;
    if !own {
        let reason = match (issuance.pod_name.as_str(), issuance.service_account.as_str()) {
            ("", "") => "issued to another workload of this node".to_owned(),
            ("", account) => format!("issued to {}/{account}", issuance.namespace),
            (pod, account) => {
                format!("issued to pod {}/{pod} of service account {account}", issuance.namespace)
            }
        };
        return judged(CredentialMatch::No, reason, source).finding(CommandFinding::CredentialOfAnother);
    }
    let Some(finding) = owner.inherits else {
        return judged(CredentialMatch::Yes, "issued to this workload on this node", source);
    };
    let what = match finding {
        CommandFinding::CredentialOfAPerson => "a person's credential",
        CommandFinding::SharedKey => "a key of a service account",
        _ => "a credential of another",
    };
    let reason = format!("issued to this workload on this node, for {what}");
    judged(CredentialMatch::No, reason, source).finding(finding)
}

fn by_jwt(shown: &Shown, source: CredentialSource, workload: &Workload<'_>) -> Judged {
    let Some(jwt) = &shown.jwt else { return unknown("nothing can be read of it", source) };
    if !jwt.is_signed_by_a_key() {
        return unknown("nothing that says who signed it: its algorithm is none, or a shared secret", source);
    }
    if let Some((namespace, account)) = &jwt.service_account {
        return by_name(&format!("{namespace}/{account}"), source, workload);
    }
    if !jwt.email.is_empty() || jwt.is_self_signed() {
        return by_name(jwt.names(), source, workload);
    }
    by_subject(&jwt.subject, source, workload)
}

/// A subject without a name beside it: an issuer's own number, as a rule.
fn by_subject(subject: &str, source: CredentialSource, workload: &Workload<'_>) -> Judged {
    if workload.is(subject) {
        return judged(CredentialMatch::Yes, "names this workload", source);
    }
    if is_person(subject) {
        return person(subject, source, workload);
    }
    unknown("its subject is no name that can be compared", source)
}

fn by_name(name: &str, source: CredentialSource, workload: &Workload<'_>) -> Judged {
    if name.is_empty() {
        return unknown("it names nobody", source);
    }
    if is_person(name) {
        return person(name, source, workload);
    }
    if !workload.is_named() {
        return unknown("the workload has no name to compare with", source);
    }
    if workload.is(name) {
        return judged(CredentialMatch::Yes, "names this workload", source);
    }
    let reason = if workload.impersonated.is_empty() {
        format!("names {name}; this workload acts as no other account")
    } else {
        format!("names {name}; this workload acts as {}", workload.impersonated)
    };
    judged(CredentialMatch::No, reason, source).finding(CommandFinding::CredentialOfAnother)
}

/// A person's process on one machine may well use that person's credential.
fn person(name: &str, source: CredentialSource, workload: &Workload<'_>) -> Judged {
    if workload.kind == PrincipalKind::Local {
        return unknown("a person's, presented by a person's process", source);
    }
    let reason = if name.is_empty() { "a person's".to_owned() } else { format!("names {name}, a person") };
    judged(CredentialMatch::No, reason, source).finding(CommandFinding::CredentialOfAPerson)
}

fn by_certificate(shown: &Shown, source: CredentialSource, workload: &Workload<'_>) -> Judged {
    if workload.is(&shown.subject) {
        return judged(CredentialMatch::Yes, "names this workload", source);
    }
    unknown("its subject is no name that can be compared", source)
}

/// What all credentials of a command come to: one that is another's is enough, and one that is the workload's own
/// says more than one that says nothing.
#[must_use]
pub fn together(matches: impl Iterator<Item = CredentialMatch>) -> CredentialMatch {
    let rank = |matches: &CredentialMatch| match matches {
        CredentialMatch::Unspecified => 0,
        CredentialMatch::Unknown => 1,
        CredentialMatch::Yes => 2,
        CredentialMatch::No => 3,
    };
    matches.max_by_key(rank).unwrap_or_default()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
