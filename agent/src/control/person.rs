//! Who gave an order, as far as the kernel knows.

use std::fs;

use verbatim_sys::privilege::Person as User;

/// The process behind an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// Its user id.
    pub(crate) uid: u32,
    /// The user id that somebody logged in under to start it, whatever it has become since.
    pub(crate) login: Option<u32>,
}

impl Person {
    /// Of a process of this user.
    pub(crate) fn of(uid: u32, pid: Option<i32>) -> Self {
        let login = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/loginuid")).ok());
        Self { uid, login: login.as_deref().and_then(login_of) }
    }

    /// Of this process.
    pub(crate) fn own() -> Self {
        let login = fs::read_to_string("/proc/self/loginuid").ok();
        Self { uid: verbatim_sys::privilege::effective_user(), login: login.as_deref().and_then(login_of) }
    }

    /// Name of its user; the number where it has none.
    pub(crate) fn user(self) -> String {
        name(self.uid)
    }

    /// Name of the login; empty where there is none.
    pub(crate) fn login_name(self) -> String {
        self.login.map(name).unwrap_or_default()
    }

    /// For people.
    pub(crate) fn display(self) -> String {
        match self.login {
            None => format!("{} (uid {})", self.user(), self.uid),
            Some(login) => {
                format!("{} (uid {}), logged in as {} (uid {login})", self.user(), self.uid, name(login))
            }
        }
    }
}

fn name(uid: u32) -> String {
    User::lookup(uid, None).map_or_else(|_error| uid.to_string(), |user| user.name)
}

/// The kernel writes the largest number where nobody has logged in.
fn login_of(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|login| *login != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_nobody_logged_in_for_has_no_login() {
        assert_eq!(login_of("4294967295"), None);
        assert_eq!(login_of("1000\n"), Some(1000));
        assert_eq!(login_of(""), None);
    }

    #[test]
    fn a_person_is_shown_with_names_and_numbers() {
        let root = Person { uid: 0, login: None };
        assert_eq!(root.display(), "root (uid 0)");
        assert_eq!(root.login_name(), "");
        let person = Person { uid: 0, login: Some(4_000_000_000) };
        assert_eq!(person.display(), "root (uid 0), logged in as 4000000000 (uid 4000000000)");
    }
}
