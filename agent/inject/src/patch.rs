//! A JSON Patch (RFC 6902) in the making: paths are JSON pointers (RFC 6901), made of tokens so that nothing in a name
//! must be escaped by hand.

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use serde_json::Value;

/// Operations in their order.
#[derive(Debug, Default)]
pub(crate) struct Operations(Vec<PatchOperation>);

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

impl Operations {
    pub(crate) fn add(&mut self, path: &[&str], value: Value) {
        self.0.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }

    /// Appends to a list, which is made where there is none.
    pub(crate) fn append(&mut self, list: &[&str], exists: bool, values: Vec<Value>) {
        if values.is_empty() {
            return;
        }
        if exists {
            let end: Vec<&str> = list.iter().copied().chain(["-"]).collect();
            for value in values {
                self.add(&end, value);
            }
        } else {
            self.add(list, Value::Array(values));
        }
    }

    pub(crate) fn remove(&mut self, path: &[&str]) {
        self.0.push(PatchOperation::Remove(RemoveOperation { path: pointer(path) }));
    }

    pub(crate) fn into_patch(self) -> Patch {
        Patch(self.0)
    }
}
