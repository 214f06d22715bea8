//! Segments in an object store that offers put-if-absent: one object for each commit group and part.
//!
//! An object's name is its first position and is put with "only if absent", so that two collectors that
//! contend for one log notice instead of overwriting one another. Objects cannot be appended to: each
//! group is a sealed segment.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, path::Path};
use tokio_stream::StreamExt as _;

use super::{Committed, Group, SegmentInfo, Store, StoreError, name, parse_name};
use crate::log::frame::{Part, SEGMENT_HEADER, segment_header};

const SUFFIX: &str = ".seg";

/// See the module.
#[derive(Debug)]
pub struct BucketStore {
    objects: Arc<dyn ObjectStore>,
    runtime: Blocking,
}

impl BucketStore {
    /// Uses the root of an object store, e.g. `object_store::memory::InMemory`.
    pub fn open(objects: Arc<dyn ObjectStore>) -> Result<Self, StoreError> {
        Ok(Self { objects, runtime: Blocking::new()? })
    }

    fn put(&self, part: Part, segment: u64, frames: &[u8], mode: PutMode) -> Result<u64, StoreError> {
        let path = path(part, segment);
        let mut bytes = Vec::with_capacity(frames.len() + SEGMENT_HEADER as usize);
        bytes.extend_from_slice(&segment_header(part, segment));
        bytes.extend_from_slice(frames);
        let length = bytes.len() as u64;
        let options = PutOptions { mode, ..PutOptions::default() };
        self.runtime
            .wait(self.objects.put_opts(&path, bytes.into(), options))
            .map_err(|e| StoreError::Broken { place: path.to_string(), detail: e.to_string() })?;
        Ok(length)
    }
}

fn path(part: Part, segment: u64) -> Path {
    Path::from(format!("{}{SUFFIX}", name(part, segment)))
}

impl Store for BucketStore {
    fn commit(&self, group: &Group) -> Result<Committed, StoreError> {
        let segment = group.first_position;
        let content_bytes = if group.contents.is_empty() {
            0
        } else {
            // A group that died between its two puts leaves contents without envelopes behind: these are
            // not acknowledged and nobody's, so they are overwritten.
            self.put(Part::Contents, segment, &group.contents, PutMode::Overwrite)?
        };
        let envelope_bytes = self.put(Part::Envelopes, segment, &group.envelopes, PutMode::Create)?;
        Ok(Committed { segment, envelope_bytes, content_bytes })
    }

    fn seal(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn segments(&self) -> Result<Vec<SegmentInfo>, StoreError> {
        let list = |part: Part| {
            self.runtime.wait(async {
                let prefix = Path::from(part.folder());
                let mut objects = self.objects.list(Some(&prefix));
                let mut found = std::collections::BTreeMap::new();
                while let Some(object) = objects.next().await {
                    let object = object.map_err(|e| StoreError::failed("list", part.folder(), e))?;
                    let first = object.location.filename().and_then(|f| parse_name(f, SUFFIX));
                    if let Some(first) = first {
                        found.insert(first, object.size);
                    }
                }
                Ok::<_, StoreError>(found)
            })
        };
        let contents = list(Part::Contents)?;
        Ok(list(Part::Envelopes)?
            .into_iter()
            .map(|(first_position, envelope_bytes)| SegmentInfo {
                first_position,
                envelope_bytes,
                content_bytes: contents.get(&first_position).copied().unwrap_or(0),
                sealed: true,
            })
            .collect())
    }

    fn read(&self, part: Part, segment: u64, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = path(part, segment);
        self.runtime.wait(async {
            let size = match self.objects.head(&path).await {
                Ok(meta) => meta.size,
                Err(object_store::Error::NotFound { .. }) => return Err(StoreError::Gone { part, segment }),
                Err(e) => return Err(StoreError::failed("read", &path, e)),
            };
            let range = range.start.min(size)..range.end.min(size);
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            self.objects.get_range(&path, range).await.map_err(|e| StoreError::failed("read", &path, e))
        })
    }

    fn replace_contents(&self, segment: u64, bytes: Bytes) -> Result<(), StoreError> {
        let path = path(Part::Contents, segment);
        self.runtime
            .wait(self.objects.put(&path, bytes.into()))
            .map(drop)
            .map_err(|e| StoreError::failed("replace", &path, e))
    }

    fn remove(&self, part: Part, segment: u64) -> Result<(), StoreError> {
        let path = path(part, segment);
        match self.runtime.wait(self.objects.delete(&path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(StoreError::failed("remove", &path, e)),
        }
    }
}

/// Waits for futures of an object store from a plain thread, on a runtime of its own.
#[derive(Debug)]
pub(super) struct Blocking(Option<tokio::runtime::Runtime>);

impl Blocking {
    pub(super) fn new() -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| StoreError::failed("make", "a runtime for the object store", e))?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("taken only on drop"),
        }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // A plain drop of a runtime panics inside another one's task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
