//! A loss of power: an ext4 file system on a loop device that is shut down without its journal being
//! flushed, then mounted again. Needs root, loop devices and mkfs.ext4.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use object_store::{ObjectStoreExt as _, local::LocalFileSystem};
use verbatim_api::v1;

use crate::support::{Place, append, findings, node::Node, search};

/// `EXT4_IOC_SHUTDOWN` is `FS_IOC_SHUTDOWN`: _IOR('X', 125, u32); 2 is NOLOGFLUSH.
const SHUTDOWN: &str = "
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
";

/// A disk whose power can be cut.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
    mounted: bool,
}

pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|e| format!("{e} at {name}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{} at {name}", String::from_utf8_lossy(&out.stderr).trim()))
}

impl Disk {
    pub(crate) fn new() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = folder.path().join("image");
        std::fs::File::create(&image).and_then(|f| f.set_len(96 << 20)).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-E", "lazy_itable_init=0"]).arg(&image))?;
        std::fs::create_dir(folder.path().join("mount")).map_err(|e| e.to_string())?;
        let mut disk = Self { folder, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn mount(&mut self) -> Result<(), String> {
        // A commit of the journal by itself, every five seconds, would save what nobody synced.
        let options = ["-o", "loop,commit=3600"];
        run(Command::new("mount").args(options).arg(self.folder.path().join("image")).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    /// Everything that is not on the disk is lost.
    pub(crate) fn cut_power(&mut self) -> Result<(), String> {
        run(Command::new("python3").args(["-c", SHUTDOWN]).arg(self.path()))?;
        run(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        self.mount()?;
        // Were it still mounted elsewhere, this would be the old file system, which takes nothing any more.
        std::fs::write(self.path().join("alive"), "").map_err(|e| format!("{e} after the power came back"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            Command::new("umount").arg("-l").arg(self.path()).status().ok();
        }
    }
}

fn disk() -> Disk {
    Disk::new().expect("a disk, as there was one when the tests were listed")
}

async fn put(root: &Path, fsync: bool) {
    let store = LocalFileSystem::new_with_prefix(root).expect("store").with_fsync(fsync);
    let path = object_store::path::Path::from("envelopes/object");
    store.put(&path, bytes::Bytes::from_static(b"kept?").into()).await.expect("put");
}

pub(crate) async fn cut_loses_what_was_not_synced_and_keeps_what_was() {
    let mut disk = disk();
    // Without this the other tests here would prove nothing.
    put(&disk.path().join("."), false).await;
    disk.cut_power().expect("cut");
    assert!(!disk.path().join("envelopes/object").exists(), "the cut loses what nobody synced");
    put(&disk.path().join("."), true).await;
    disk.cut_power().expect("cut");
    assert_eq!(std::fs::read(disk.path().join("envelopes/object")).expect("kept"), b"kept?");
}

pub(crate) async fn no_acknowledged_record_is_lost_with_the_power() {
    let mut disk = disk();
    let place = Place::new();
    let mut config = place.config();
    config.data = disk.path().join("data");
    // Small segments, so that seals are among what the power is cut after.
    config.log.segment_size = "64KiB".parse().expect("size");
    let mut node = Node::new();
    let mut sent = 0;
    for round in 0..4 {
        let data = config.data.to_string_lossy().into_owned();
        let file = place.path().join("collector.yaml");
        let text = format!(
            "apiVersion: verbatim.v1\nkind: Collector\ndata: {data}\nlog: {{segmentSize: 64KiB}}\n\
             ingest: {{listen: 'unix:{}'}}\naudit: {{listen: 'unix:{}'}}\n",
            place.ingest().display(),
            place.audit().display()
        );
        std::fs::write(&file, text).expect("configuration");
        let mut process = place.spawn_configured(&file);
        let mut audit = place.audit_client().await;
        assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), sent, "round {round}");
        assert_eq!(findings(&mut audit).await, [], "round {round}");
        let mut client = place.ingest_client().await;
        for n in 0..40 * (round + 1) {
            node.command(b"", &format!("SELECT {round}, {n}, '{}'", "x".repeat(500)));
            let answers = append(&mut client, vec![node.batch()]).await.expect("acknowledged");
            assert_eq!(answers[0].findings, [0_i32; 0], "round {round}");
            sent += 1;
        }
        process.kill();
        disk.cut_power().expect("cut");
    }
    let collector = verbatim_collector::start(&config).await.expect("starts");
    assert_eq!(search(&mut place.audit_client().await, v1::Filter::default()).await.len(), sent);
    collector.shut_down().await.expect("ends");
}
