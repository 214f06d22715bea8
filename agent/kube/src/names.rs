//! Which texts are names of Kubernetes: what an API server says is checked before it shapes anybody's principal.
//!
//! Source: Kubernetes, "Object Names and IDs"; RFC 1123.

/// RFC 1123 label: 1 to 63 lower-case letters, digits and `-`, not at an end. Namespaces and containers.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= 63
        && !text.is_empty()
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123 subdomain: labels joined by dots, 253 characters at most. Pods and service accounts.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A UID as the API server makes them: a UUID in its usual form.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if dash(at) { byte == b'-' } else { matches!(byte, b'0'..=b'9' | b'a'..=b'f') })
}

/// The UID that a kubelet gives a pod that it read from a file: a digest, 32 hexadecimal digits.
#[must_use]
pub fn is_config_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// E-mail of a Google service account, e.g. `app@project.iam.gserviceaccount.com`.
#[must_use]
pub fn is_account_email(text: &str) -> bool {
    let name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    text.len() <= 320 && text.split_once('@').is_some_and(|(user, domain)| name(user) && name(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_takes_for_names() {
        assert!(is_label("kube-system") && is_label("a") && is_label("0"));
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a_b", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_subdomain("web-0.shop") && !is_subdomain("a..b") && !is_subdomain("a/sa/b"));
    }

    #[test]
    fn no_uid_of_the_api_server_is_a_digest_of_a_file() {
        let uuid = "0f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        assert!(is_uuid(uuid) && !is_config_hash(uuid));
        assert!(is_config_hash(hash) && !is_uuid(hash));
        for bad in ["0F6E7C1A-2b3c-4d5e-8f90-a1b2c3d4e5f6", "0f6e7c1a02b3c-4d5e-8f90-a1b2c3d4e5f6", ""] {
            assert!(!is_uuid(bad), "{bad}");
        }
    }

    #[test]
    fn an_account_is_an_e_mail_and_nothing_that_could_forge_another_field() {
        assert!(is_account_email("app@my-project.iam.gserviceaccount.com"));
        for bad in ["", "app", "a@b@c", "a b@c", "a@", "@b", "a@b\n"] {
            assert!(!is_account_email(bad), "{bad}");
        }
    }
}
