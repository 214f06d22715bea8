//! Images made of what is on this machine: a program with its libraries, or a static busybox (OCI image layout, as
//! `ctr images import` reads it).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{binaries, shell};

/// What holds a pod's namespaces.
pub const PAUSE: &str = "localhost/pause:lab";
/// A shell and its tools; whatever else a client needs is mounted from the machine.
pub const TOOLS: &str = "localhost/tools:lab";

/// Programs of busybox that get a name of their own.
const APPLETS: [&str; 18] = [
    "sh", "sleep", "cat", "ls", "echo", "id", "nc", "httpd", "ps", "ip", "grep", "env", "true", "touch",
    "mkdir", "stat", "head", "cp",
];

/// An image that is not on the node yet.
#[derive(Clone, Debug)]
pub struct Image {
    reference: String,
    /// Which file of this machine lies where.
    files: Vec<(PathBuf, String)>,
    links: Vec<(String, String)>,
    command: Vec<String>,
    /// Without so much as a list of users.
    bare: bool,
}

impl Image {
    /// [`PAUSE`].
    pub fn pause() -> Result<Self> {
        Self::busybox(PAUSE, &["sleep", "2147483647"])
    }

    /// [`TOOLS`].
    pub fn tools() -> Result<Self> {
        Self::busybox(TOOLS, &["sleep", "2147483647"])
    }

    fn busybox(reference: &str, command: &[&str]) -> Result<Self> {
        let busybox = shell::which("busybox").context("busybox is not installed")?;
        let links = APPLETS.iter().map(|name| (format!("bin/{name}"), "busybox".to_owned())).collect();
        Ok(Self {
            reference: reference.to_owned(),
            files: vec![(busybox, "bin/busybox".to_owned())],
            links,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            bare: false,
        })
    }

    /// Binaries of this workspace, the first of which is what it runs, with the libraries that they load and nothing
    /// else: no shell, no tools.
    pub fn of(reference: &str, programs: &[&str]) -> Result<Self> {
        let programs: Vec<PathBuf> =
            programs.iter().map(|name| binaries::find(name)).collect::<Result<_>>()?;
        Self::with_libraries(reference, &programs)
    }

    /// A program of the machine's with what it loads and nothing else: no shell, no users, no roots.
    pub fn bare(reference: &str, program: &Path) -> Result<Self> {
        Ok(Self { bare: true, ..Self::with_libraries(reference, &[program.to_owned()])? })
    }

    fn with_libraries(reference: &str, programs: &[PathBuf]) -> Result<Self> {
        let mut files: Vec<(PathBuf, String)> = Vec::new();
        let mut names = Vec::new();
        for program in programs {
            for library in libraries(program)? {
                let to = library.trim_start_matches('/').to_owned();
                if files.iter().all(|(_, other)| *other != to) {
                    files.push((library.into(), to));
                }
            }
            let name = program.file_name().context("a program without a name")?.display().to_string();
            files.push((program.clone(), format!("usr/bin/{name}")));
            names.push(name);
        }
        let first = names.first().context("an image of no program")?;
        let command = vec![format!("/usr/bin/{first}")];
        Ok(Self { reference: reference.to_owned(), files, links: Vec::new(), command, bare: false })
    }

    /// With this machine's roots, as the package ca-certificates would bring them.
    #[must_use]
    pub fn with_roots(mut self) -> Self {
        let roots = "etc/ssl/certs/ca-certificates.crt";
        self.files.push((PathBuf::from("/").join(roots), roots.to_owned()));
        self
    }

    /// Writes it into a file of its own below `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf> {
        let name: String =
            self.reference.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let work = folder.join(format!("image-{name}"));
        let (tree, blobs) = (work.join("tree"), work.join("layout/blobs/sha256"));
        fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
        self.fill(&tree)?;
        let layer = work.join("layer.tar");
        tar(&tree, &layer)?;
        let layer = blob(&blobs, &layer)?;
        let configuration = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.command, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let configuration = document(&work, &blobs, &configuration)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described(&configuration, "application/vnd.oci.image.config.v1+json"),
            "layers": [described(&layer, "application/vnd.oci.image.layer.v1.tar")],
        });
        let manifest = document(&work, &blobs, &manifest)?;
        let mut entry = described(&manifest, "application/vnd.oci.image.manifest.v1+json");
        entry["annotations"] = json!({"io.containerd.image.name": self.reference});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(work.join("layout/index.json"), index.to_string())?;
        fs::write(work.join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let image = folder.join(format!("image-{name}.tar"));
        tar(&work.join("layout"), &image)?;
        fs::remove_dir_all(&work)?;
        Ok(image)
    }

    fn fill(&self, tree: &Path) -> Result<()> {
        for name in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin"] {
            fs::create_dir_all(tree.join(name))?;
        }
        if !self.bare {
            fs::write(
                tree.join("etc/passwd"),
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65532:65532::/:/bin/sh\n",
            )?;
            fs::write(tree.join("etc/group"), "root:x:0:\nnobody:x:65532:\n")?;
        }
        for (from, to) in &self.files {
            let to = tree.join(to);
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            copy(from, &to)?;
        }
        for (from, to) in &self.links {
            std::os::unix::fs::symlink(to, tree.join(from))?;
        }
        shell::run("chmod", &["1777", &tree.join("tmp").display().to_string()]).map(drop)
    }
}

/// Without what only debuggers read, which is half of it, where there is a tool for that.
fn copy(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let program = fs::metadata(from).is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
    if program && shell::which("strip").is_some() {
        let (from, to) = (from.display().to_string(), to.display().to_string());
        return shell::run("strip", &["--strip-debug", "-o", &to, &from]).map(drop);
    }
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// What a program loads, with whoever loads it.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let said = shell::run("ldd", &[&program.display().to_string()])?;
    Ok(said
        .lines()
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect())
}

fn tar(folder: &Path, file: &Path) -> Result<()> {
    let (folder, file) = (folder.display().to_string(), file.display().to_string());
    shell::run("tar", &["--numeric-owner", "--owner=0", "--group=0", "-C", &folder, "-cf", &file, "."])
        .map(drop)
}

/// Moves a file among the blobs; its digest and its size in bytes.
fn blob(blobs: &Path, file: &Path) -> Result<serde_json::Value> {
    let size = fs::metadata(file)?.len();
    let said = shell::run("sha256sum", &[&file.display().to_string()])?;
    let digest = said.split_whitespace().next().context("no digest")?;
    fs::rename(file, blobs.join(digest))?;
    Ok(json!({"digest": format!("sha256:{digest}"), "size": size}))
}

fn document(work: &Path, blobs: &Path, document: &serde_json::Value) -> Result<serde_json::Value> {
    let file = work.join("document.json");
    fs::write(&file, document.to_string())?;
    blob(blobs, &file)
}

fn described(blob: &serde_json::Value, kind: &str) -> serde_json::Value {
    json!({"mediaType": kind, "digest": blob["digest"], "size": blob["size"]})
}
