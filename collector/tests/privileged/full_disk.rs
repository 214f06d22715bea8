//! A full disk: batches are refused, and taken when there is room again.

use std::{path::Path, process::Command};

use verbatim_api::v1;

use crate::support::{Place, append, node::Node, search};

/// A small file system of its own, for root only.
pub(crate) struct Mount(tempfile::TempDir);

impl Mount {
    pub(crate) fn tmpfs(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("folder");
        let size = format!("size={bytes}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mount {
            Ok(out) if out.status.success() => Ok(Self(folder)),
            Ok(out) => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a socket may still be open for a moment.
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

fn used_up(folder: &Path) -> std::fs::File {
    use std::io::Write as _;
    let mut filler = std::fs::File::create(folder.join("filler")).expect("filler");
    while filler.write(&[7; 4096]).is_ok_and(|n| n > 0) {}
    filler
}

pub(crate) async fn full_disk_refuses_batches_and_takes_them_again_when_there_is_room() {
    let mount = Mount::tmpfs(8 << 20).expect("mounts, as it did when the tests were listed");
    let place = Place::new();
    let mut config = place.config();
    config.data = mount.0.path().join("data");
    let collector = verbatim_collector::start(&config).await.expect("starts");
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    node.command(b"", "SELECT 'before'");
    append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    let filler = used_up(mount.0.path());
    let mut waiting = Vec::new();
    let refused = loop {
        node.command(b"", &format!("SELECT '{}'", "x".repeat(9000)));
        waiting.push(node.batch());
        if let Err(status) = append(&mut client, vec![waiting[waiting.len() - 1].clone()]).await {
            break status;
        }
        assert!(waiting.len() < 1000, "the disk is not full");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("no room left"), "{}", refused.message());
    drop(filler);
    std::fs::remove_file(mount.0.path().join("filler")).expect("room again");
    let count = waiting.len();
    let answers = append(&mut client, waiting).await.expect("taken when there is room");
    assert!(answers.iter().all(|a| a.findings.is_empty()), "{answers:?}");
    let mut audit = place.audit_client().await;
    assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), count + 1);
    collector.shut_down().await.expect("ends");
}
