//! What the programs need of the kernel, by name. The kernel is asked for each before anything is loaded: what
//! a verifier says of a whole program tells a person little.

use std::{fmt, io};

use verbatim_sys::{
    bpf::{self, Helper, Hook},
    netns, sock_diag,
};

use crate::SteerError;

pub(crate) const STEP: &str = "looking at the kernel's features";

/// Something that a kernel has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// As the kernel's own documentation calls it.
    pub name: &'static str,
    /// The first version that has it, where it was not taken back into older ones.
    pub since: &'static str,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Linux {})", self.name, self.since)
    }
}

/// Something that the programs can do without, and what follows where they must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// What the kernel has not.
    pub feature: Feature,
    /// What is not done, in a sentence for a person.
    pub consequence: &'static str,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel lacks {}: {}", self.feature, self.consequence)
    }
}

/// Ends what was connected before, at both ends.
pub(crate) const ENDING_SOCKETS: &str = "ending sockets by sock_diag (CONFIG_INET_DIAG_DESTROY)";

/// As [`NEEDED`], and what follows without it. Nothing may stand here without which a connection could go past unseen:
/// see docs/threat-model.md.
const OPTIONAL: [(&str, &str, Probe, &str); 1] = [(
    ENDING_SOCKETS,
    "4.5",
    Probe::EndingSockets,
    "connections from before are never ended: their packets are dropped where their workload fails closed",
)];

enum Probe {
    Hook(Hook),
    Helper(Hook, Helper),
    RingBuffers,
    LinkUpdates,
    NetnsCookieOption,
    EndingSockets,
}

/// Name, first version, how to find out. Hooks first: a helper cannot be asked for on a hook that is not there.
const NEEDED: [(&str, &str, Probe); 21] = [
    ("cgroup programs on connect4", "4.17", Probe::Hook(Hook::CONNECT4)),
    ("cgroup programs on connect6", "4.17", Probe::Hook(Hook::CONNECT6)),
    ("cgroup programs on bind4", "4.17", Probe::Hook(Hook::BIND4)),
    ("cgroup programs on bind6", "4.17", Probe::Hook(Hook::BIND6)),
    ("cgroup programs on getpeername4", "5.8", Probe::Hook(Hook::GETPEERNAME4)),
    ("cgroup programs on getpeername6", "5.8", Probe::Hook(Hook::GETPEERNAME6)),
    ("cgroup programs on getsockname4", "5.8", Probe::Hook(Hook::GETSOCKNAME4)),
    ("cgroup programs on getsockname6", "5.8", Probe::Hook(Hook::GETSOCKNAME6)),
    ("sock_ops programs", "4.13", Probe::Hook(Hook::SOCK_OPS)),
    ("bpf ring buffers", "5.8", Probe::RingBuffers),
    ("updates of bpf links", "5.7", Probe::LinkUpdates),
    ("the socket option SO_NETNS_COOKIE", "5.14", Probe::NetnsCookieOption),
    ("bpf_get_netns_cookie in connect programs", "5.7", Probe::Helper(Hook::CONNECT4, Helper::NETNS_COOKIE)),
    (
        "bpf_get_netns_cookie in sock_ops programs",
        "5.15",
        Probe::Helper(Hook::SOCK_OPS, Helper::NETNS_COOKIE),
    ),
    ("bpf_sk_storage_get in connect programs", "5.8", Probe::Helper(Hook::CONNECT4, Helper::SK_STORAGE_GET)),
    ("bpf_sk_storage_get in sock_ops programs", "5.3", Probe::Helper(Hook::SOCK_OPS, Helper::SK_STORAGE_GET)),
    (
        "bpf_get_current_cgroup_id in connect programs",
        "5.7",
        Probe::Helper(Hook::CONNECT4, Helper::CURRENT_CGROUP_ID),
    ),
    (
        "bpf_get_current_ancestor_cgroup_id in connect programs",
        "5.7",
        Probe::Helper(Hook::CONNECT4, Helper::CURRENT_ANCESTOR_CGROUP_ID),
    ),
    (
        "bpf_get_current_pid_tgid in connect programs",
        "5.10",
        Probe::Helper(Hook::CONNECT4, Helper::CURRENT_PID_TGID),
    ),
    ("bpf_get_current_comm in connect programs", "5.10", Probe::Helper(Hook::CONNECT4, Helper::CURRENT_COMM)),
    (
        "bpf_ringbuf_reserve in sock_ops programs",
        "5.8",
        Probe::Helper(Hook::SOCK_OPS, Helper::RINGBUF_RESERVE),
    ),
];

/// Refuses, by all their names at once, where features are lacking that are needed; gives those that are not needed
/// and lacking. What `absent` names counts as lacking, whatever the kernel says.
pub(crate) fn check(absent: &[String]) -> Result<Vec<Lacking>, SteerError> {
    let has = |name: &str, probe: &Probe| {
        let treated = absent.iter().any(|one| one == name);
        if treated { Ok(false) } else { is_there(probe).map_err(|error| SteerError::io(STEP, error)) }
    };
    let mut lacking: Vec<Feature> = Vec::new();
    let mut hooks: Vec<Hook> = Vec::new();
    for (name, since, probe) in &NEEDED {
        if matches!(probe, Probe::Helper(hook, _) if hooks.contains(hook)) {
            continue;
        }
        if has(name, probe)? {
            continue;
        }
        lacking.push(Feature { name, since });
        if let Probe::Hook(hook) = probe {
            hooks.push(*hook);
        }
    }
    if lacking.is_empty() {
        let mut without = Vec::new();
        for (name, since, probe, consequence) in &OPTIONAL {
            if !has(name, probe)? {
                without.push(Lacking { feature: Feature { name, since }, consequence });
            }
        }
        return Ok(without);
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Err(SteerError::Lacks { features: lacking, release })
}

fn is_there(probe: &Probe) -> io::Result<bool> {
    match probe {
        Probe::Hook(hook) => bpf::knows_hook(*hook),
        Probe::Helper(hook, helper) => bpf::knows_helper(*hook, *helper),
        Probe::RingBuffers => bpf::knows_ring_buffers(),
        Probe::EndingSockets => sock_diag::knows_destroy(),
        Probe::LinkUpdates => Ok(bpf::knows_link_updates()),
        Probe::NetnsCookieOption => match netns::cookie_here() {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(ENOPROTOOPT) => Ok(false),
            Err(error) => Err(error),
        },
    }
}

const ENOPROTOOPT: i32 = 92;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_named_with_the_version_that_has_it() {
        let features = vec![
            Feature { name: "bpf_get_netns_cookie in sock_ops programs", since: "5.15" },
            Feature { name: "the socket option SO_NETNS_COOKIE", since: "5.14" },
        ];
        let error = SteerError::Lacks { features, release: "5.10.0-46-cloud-amd64".to_owned() };
        assert_eq!(error.step(), STEP);
        let said = "Linux 5.10.0-46-cloud-amd64 lacks bpf_get_netns_cookie in sock_ops programs (Linux 5.15), the \
                    socket option SO_NETNS_COOKIE (Linux 5.14): ";
        assert!(error.cause().starts_with(said), "{error}");
    }

    #[test]
    fn helpers_are_asked_for_on_hooks_that_were_asked_for_before() {
        let mut hooks = Vec::new();
        for (name, _, probe) in &NEEDED {
            match probe {
                Probe::Hook(hook) => hooks.push(*hook),
                Probe::Helper(hook, _) => assert!(hooks.contains(hook), "{name}"),
                _ => {}
            }
        }
    }
}
