//! Segments in a local directory.
//!
//! The open segment is written with plain files and `fdatasync`: `object_store` can only put whole objects,
//! and a group commit appends. Everything after the seal (rename, replace, list, delete) goes through
//! `object_store`'s `LocalFileSystem` with `with_fsync`, which syncs the file and every folder whose entries
//! changed; plain deletes it does not sync, so that is done here.
//!
//! A segment's part is `FOLDER/POSITION.open` while it is appended to and `FOLDER/POSITION.seg` afterwards.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, FileExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use object_store::{ObjectStore as _, ObjectStoreExt as _, RenameOptions, local::LocalFileSystem};

use super::{
    Committed, Damage, Group, SegmentInfo, Store, StoreError,
    appended::{Appended, sync_folder},
    bucket::Blocking,
    name, parse_name,
};
use crate::log::frame::{self, FrameError, Part, SEGMENT_HEADER, segment_header};

const OPEN: &str = ".open";
const SEALED: &str = ".seg";
/// Files kept open for reading.
const HANDLES: usize = 256;
const PARTS: [Part; 2] = [Part::Envelopes, Part::Contents];

/// See the module.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    objects: LocalFileSystem,
    runtime: Blocking,
    active: Mutex<Option<Active>>,
    broken: Mutex<Option<String>>,
    handles: Mutex<HashMap<(Part, u64), Arc<File>>>,
}

/// The segment that is appended to.
#[derive(Debug)]
struct Active {
    segment: u64,
    envelopes: Appended,
    contents: Option<Appended>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalStore {
    /// Opens a directory for writing and recovers what a predecessor left open: a torn tail is cut off and
    /// the segment sealed.
    pub fn open(root: &Path) -> Result<(Self, Vec<Damage>), StoreError> {
        for part in PARTS {
            let folder = root.join(part.folder());
            // For our user alone: what `object_store` puts there has the default mode.
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|e| StoreError::failed("make", folder.display(), e))?;
        }
        for folder in [root.parent().unwrap_or(root), root] {
            sync_folder(folder)?;
        }
        let store = Self::handle(root)?;
        let damage = store.recover()?;
        Ok((store, damage))
    }

    /// Opens a directory for reading only; an open segment's torn tail is left as it is.
    pub fn open_read_only(root: &Path) -> Result<Self, StoreError> {
        Self::handle(root)
    }

    fn handle(root: &Path) -> Result<Self, StoreError> {
        let objects = LocalFileSystem::new_with_prefix(root)
            .map_err(|e| StoreError::failed("open", root.display(), e))?
            .with_fsync(true);
        Ok(Self {
            root: root.to_owned(),
            objects,
            runtime: Blocking::new()?,
            active: Mutex::new(None),
            broken: Mutex::new(None),
            handles: Mutex::new(HashMap::new()),
        })
    }

    fn path(&self, part: Part, segment: u64, suffix: &str) -> PathBuf {
        self.root.join(format!("{}{suffix}", name(part, segment)))
    }

    fn list(&self, part: Part, suffix: &str) -> Result<BTreeMap<u64, u64>, StoreError> {
        let folder = self.root.join(part.folder());
        let failed = |e: io::Error| StoreError::failed("list", folder.display(), e);
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(first) = entry.file_name().to_str().and_then(|n| parse_name(n, suffix)) {
                found.insert(first, entry.metadata().map_err(failed)?.len());
            }
        }
        Ok(found)
    }

    /// Cuts torn tails, then seals what is open. Envelopes first: contents behind the last envelope frame
    /// belong to a group that was never acknowledged.
    fn recover(&self) -> Result<Vec<Damage>, StoreError> {
        let mut damage = Vec::new();
        let envelopes = self.list(Part::Envelopes, OPEN)?;
        let mut open: Vec<u64> = envelopes.keys().copied().collect();
        open.extend(self.list(Part::Contents, OPEN)?.into_keys().filter(|s| !envelopes.contains_key(s)));
        for segment in open {
            let path = self.path(Part::Envelopes, segment, OPEN);
            let end = if envelopes.contains_key(&segment) {
                self.cut(Part::Envelopes, segment, u64::MAX, &mut damage)?
            } else {
                // Sealing was interrupted between its two renames, or the group never got its envelopes.
                let sealed = self.path(Part::Envelopes, segment, SEALED);
                if sealed.exists() { Some(u64::MAX) } else { None }
            };
            if self.path(Part::Contents, segment, OPEN).exists() {
                let kept = match end {
                    Some(end) => self.cut(Part::Contents, segment, end, &mut damage)?,
                    None => None,
                };
                match kept {
                    Some(_) => self.publish(Part::Contents, segment)?,
                    None => self.discard(Part::Contents, segment)?,
                }
            }
            if path.exists() {
                match end {
                    Some(_) => self.publish(Part::Envelopes, segment)?,
                    None => self.discard(Part::Envelopes, segment)?,
                }
            }
        }
        Ok(damage)
    }

    /// Cuts an open part behind its last intact frame below `limit`. Returns the position after that frame,
    /// `None` where there is none.
    fn cut(
        &self,
        part: Part,
        segment: u64,
        limit: u64,
        damage: &mut Vec<Damage>,
    ) -> Result<Option<u64>, StoreError> {
        let path = self.path(part, segment, OPEN);
        let failed = |e: io::Error| StoreError::failed("recover", path.display(), e);
        let bytes = Bytes::from(fs::read(&path).map_err(failed)?);
        let mut at = SEGMENT_HEADER as usize;
        let mut end = None;
        let whole = bytes.starts_with(&segment_header(part, segment));
        let mut torn = !whole;
        while whole && at < bytes.len() {
            match frame::read(&bytes.slice(at..)) {
                Ok(frame) if frame.head.first_position < limit => {
                    end = Some(frame.head.next_position().max(end.unwrap_or(0)));
                    at += frame.head.length();
                }
                Ok(_) => break,
                Err(FrameError::Cut(_) | FrameError::Damaged(_)) => {
                    torn = true;
                    break;
                }
            }
        }
        if at < bytes.len() {
            let intact_behind = torn && frame::find(&bytes, at + 1).is_some();
            damage.push(Damage {
                segment,
                part,
                offset: at as u64,
                bytes: (bytes.len() - at) as u64,
                intact_behind,
            });
            if intact_behind && part == Part::Envelopes {
                // Envelopes hold nothing that could have to be deleted: they are kept aside as evidence.
                let aside = path.with_extension(format!("{at}.damaged"));
                fs::write(&aside, &bytes[at..]).map_err(failed)?;
            }
        }
        let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        file.set_len(at as u64).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(end)
    }

    fn discard(&self, part: Part, segment: u64) -> Result<(), StoreError> {
        let path = self.path(part, segment, OPEN);
        fs::remove_file(&path).map_err(|e| StoreError::failed("remove", path.display(), e))?;
        sync_folder(&self.root.join(part.folder()))
    }

    /// Gives a finished part its lasting name.
    fn publish(&self, part: Part, segment: u64) -> Result<(), StoreError> {
        let from = object_path(part, segment, OPEN);
        let to = object_path(part, segment, SEALED);
        self.runtime
            .wait(self.objects.rename_opts(&from, &to, RenameOptions::default()))
            .map_err(|e| StoreError::failed("seal", &from, e))
    }

    fn begin(&self, part: Part, segment: u64) -> Result<Appended, StoreError> {
        Appended::create(&self.path(part, segment, OPEN), &segment_header(part, segment))
    }

    fn append(&self, active: &mut Active, group: &Group) -> Result<(), StoreError> {
        if !group.contents.is_empty() {
            if active.contents.is_none() {
                active.contents = Some(self.begin(Part::Contents, active.segment)?);
            }
            if let Some(contents) = &mut active.contents {
                let before = contents.length;
                contents.write(&group.contents)?;
                contents.sync()?;
                if let Err(e) = active.envelopes.write(&group.envelopes) {
                    contents.back_to(before)?;
                    return Err(e);
                }
                return active.envelopes.sync();
            }
        }
        active.envelopes.write(&group.envelopes)?;
        active.envelopes.sync()
    }

    fn file(&self, part: Part, segment: u64) -> Result<Arc<File>, StoreError> {
        if let Some(file) = locked(&self.handles).get(&(part, segment)) {
            return Ok(Arc::clone(file));
        }
        for suffix in [SEALED, OPEN, SEALED] {
            // Sealed once more at the end: it may have been sealed between the two looks.
            let path = self.path(part, segment, suffix);
            match File::open(&path) {
                Ok(file) => {
                    let file = Arc::new(file);
                    let mut handles = locked(&self.handles);
                    if handles.len() >= HANDLES {
                        handles.clear();
                    }
                    handles.insert((part, segment), Arc::clone(&file));
                    return Ok(file);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::failed("open", path.display(), e)),
            }
        }
        Err(StoreError::Gone { part, segment })
    }
}

impl Store for LocalStore {
    fn commit(&self, group: &Group) -> Result<Committed, StoreError> {
        let broken = locked(&self.broken).clone();
        if let Some(detail) = broken {
            return Err(StoreError::Broken { place: self.root.display().to_string(), detail });
        }
        let mut active = locked(&self.active);
        let mut open = match active.take() {
            Some(open) => open,
            None => Active {
                segment: group.first_position,
                envelopes: self.begin(Part::Envelopes, group.first_position)?,
                contents: None,
            },
        };
        let appended = self.append(&mut open, group);
        let committed = Committed {
            segment: open.segment,
            envelope_bytes: open.envelopes.length,
            content_bytes: open.contents.as_ref().map_or(0, |c| c.length),
        };
        *active = Some(open);
        drop(active);
        if let Err(StoreError::Broken { detail, .. }) = &appended {
            *locked(&self.broken) = Some(detail.clone());
        }
        appended.map(|()| committed)
    }

    fn seal(&self) -> Result<(), StoreError> {
        let Some(open) = locked(&self.active).take() else { return Ok(()) };
        if open.contents.is_some() {
            self.publish(Part::Contents, open.segment)?;
        }
        self.publish(Part::Envelopes, open.segment)
    }

    fn segments(&self) -> Result<Vec<SegmentInfo>, StoreError> {
        let mut contents = self.list(Part::Contents, OPEN)?;
        contents.extend(self.list(Part::Contents, SEALED)?);
        let info = |(first_position, envelope_bytes), sealed| SegmentInfo {
            first_position,
            envelope_bytes,
            content_bytes: contents.get(&first_position).copied().unwrap_or(0),
            sealed,
        };
        let open = self.list(Part::Envelopes, OPEN)?;
        let mut all: Vec<_> =
            self.list(Part::Envelopes, SEALED)?.into_iter().map(|e| info(e, true)).collect();
        all.extend(open.into_iter().map(|e| info(e, false)));
        all.sort_by_key(|s| s.first_position);
        Ok(all)
    }

    fn read(&self, part: Part, segment: u64, range: Range<u64>) -> Result<Bytes, StoreError> {
        let file = self.file(part, segment)?;
        let failed = |e: io::Error| StoreError::failed("read", name(part, segment), e);
        let length = file.metadata().map_err(failed)?.len();
        let range = range.start.min(length)..range.end.min(length);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
        Ok(Bytes::from(bytes))
    }

    fn replace_contents(&self, segment: u64, bytes: Bytes) -> Result<(), StoreError> {
        let path = object_path(Part::Contents, segment, SEALED);
        let replaced = self.runtime.wait(self.objects.put(&path, bytes.into()));
        locked(&self.handles).remove(&(Part::Contents, segment));
        replaced.map(drop).map_err(|e| StoreError::failed("replace", &path, e))
    }

    fn remove(&self, part: Part, segment: u64) -> Result<(), StoreError> {
        let path = object_path(part, segment, SEALED);
        locked(&self.handles).remove(&(part, segment));
        match self.runtime.wait(self.objects.delete(&path)) {
            Ok(()) => sync_folder(&self.root.join(part.folder())),
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(StoreError::failed("remove", &path, e)),
        }
    }
}

fn object_path(part: Part, segment: u64, suffix: &str) -> object_store::path::Path {
    object_store::path::Path::from(format!("{}{suffix}", name(part, segment)))
}
