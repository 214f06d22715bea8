//! JSON as a stream, cut anywhere, with bounded memory.
//!
//! Owns syntax (`lexer`) and a tree of what is wanted (`tree`). Knows no API. Takes what Google's own parser
//! takes beyond RFC 8259 (single quotes, names without quotes, commas before an end), for what the server
//! understands must be understood here.

mod lexer;
mod tree;

pub(super) use lexer::Fault;
pub(super) use tree::{Keep, Kept, Tree, TreeBuilder, Value};
