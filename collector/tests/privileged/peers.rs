//! Peers of a Unix socket that only root can play: another user, a process of a refused cgroup.

use std::{path::Path, process::Command};

use crate::support::Place;

pub(crate) async fn other_user_is_refused_even_where_the_file_lets_it_in() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let collector = place.start().await;
    for path in [place.path().to_owned(), place.audit()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("permissions");
    }
    // Connects and reads until the other side closes: exit 0 is "closed without a byte".
    let ask = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nsys.exit(1 if s.recv(1) else 0)";
    let ask_as = |user: Option<&str>| {
        let mut command = match user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--clear-groups", "timeout", "20", "/usr/bin/python3"]);
                command
            }
            None => {
                let mut command = Command::new("timeout");
                command.args(["20", "python3"]);
                command
            }
        };
        command.args(["-c", ask]).arg(place.audit()).output().map(|o| o.status.code())
    };
    assert_eq!(ask_as(Some("65534")).expect("runs"), Some(0), "closed without a byte");
    // Ourselves it greets with its HTTP/2 settings.
    assert_eq!(ask_as(None).expect("runs"), Some(1));
    collector.shut_down().await.expect("ends");
}

/// Where the unified hierarchy is mounted.
pub(crate) fn unified() -> std::path::PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mount = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find(|m| m[2] == "cgroup2");
    mount.map_or_else(|| Path::new("/sys/fs/cgroup").to_owned(), |m| m[1].into())
}

/// A cgroup that goes away with the test.
struct Cgroup(std::path::PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).ok();
    }
}

pub(crate) async fn process_of_a_refused_cgroup_is_refused_whoever_it_is() {
    let name = format!("verbatim-collector-test-{}", std::process::id());
    let cgroup = Cgroup(unified().join(name));
    std::fs::create_dir(&cgroup.0).expect("makes a cgroup, as it did when the tests were listed");
    let place = Place::new();
    let refused = cgroup.0.display().to_string();
    let _process = place.spawn_with(&["--refuse-cgroup", &refused]);
    let ask = "import os,socket,sys\nif len(sys.argv)>2: open(sys.argv[2]+'/cgroup.procs','w').write(str(os.getpid()))\n\
               s=socket.socket(socket.AF_UNIX)\ns.settimeout(20)\ns.connect(sys.argv[1])\nsys.exit(1 if s.recv(1) else 0)";
    for socket in [place.ingest(), place.audit()] {
        let from = |cgroup: Option<&str>| {
            let mut command = Command::new("python3");
            command.args(["-c", ask]).arg(&socket).args(cgroup);
            command.status().expect("runs").code()
        };
        assert_eq!(from(Some(&refused)), Some(0), "closed without a byte");
        assert_eq!(from(None), Some(1), "served");
    }
}
