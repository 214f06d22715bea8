//! Query parameters: their types and values in the form in which GoogleSQL writes them.
//!
//! Every function that goes down a value is bounded by the depth that the JSON reader follows.

use crate::{
    capture::capture,
    message::json::Value,
    seam::{Captured, Parameter, ParameterFormat},
};

/// Bytes of a type's name.
const MAX_TYPE: usize = 4096;

/// `queryParameters`; values share `limit` bytes.
pub(super) fn parameters(list: &Value, limit: usize) -> Vec<Parameter> {
    let mut room = limit;
    let mut parameters = Vec::new();
    for item in list.items() {
        let value = value(item.get("parameterValue"), room);
        room = room.saturating_sub(value.as_ref().map_or(0, |value| value.bytes.len()));
        let mut type_name = String::new();
        type_of(item.get("parameterType"), &mut type_name);
        parameters.push(Parameter {
            format: ParameterFormat::Text,
            value,
            name: item.get("name").text().unwrap_or_default(),
            type_name,
            ..Parameter::default()
        });
    }
    parameters
}

/// As sent where it is one value; else as JSON. `None` is NULL.
fn value(value: &Value, limit: usize) -> Option<Captured> {
    let scalar = value.get("value");
    if let Value::Text(text) = scalar {
        let mut captured = text.captured.clone();
        captured.bytes.truncate(limit);
        return Some(captured);
    }
    if let Some(bytes) = scalar.bytes() {
        return Some(capture(&bytes, limit));
    }
    let mut text = Vec::new();
    let list = value.get("arrayValues");
    let fields = value.get("structValues");
    let range = value.get("rangeValue");
    if list.is_absent() && fields.is_absent() && range.is_absent() {
        return None;
    }
    written(value, &mut text);
    Some(capture(&text, limit))
}

fn written(value: &Value, out: &mut Vec<u8>) {
    let list = value.get("arrayValues");
    let fields = value.get("structValues");
    let range = value.get("rangeValue");
    if list.count().is_some() {
        out.push(b'[');
        for (at, item) in list.items().iter().enumerate() {
            if at > 0 {
                out.extend_from_slice(b", ");
            }
            written(item, out);
        }
        out.push(b']');
    } else if !fields.is_absent() {
        out.push(b'{');
        for (at, (name, field)) in fields.entries().enumerate() {
            if at > 0 {
                out.extend_from_slice(b", ");
            }
            quoted(name, out);
            out.extend_from_slice(b": ");
            written(field, out);
        }
        out.push(b'}');
    } else if !range.is_absent() {
        out.push(b'[');
        written(range.get("start"), out);
        out.extend_from_slice(b", ");
        written(range.get("end"), out);
        out.push(b')');
    } else {
        match value.get("value") {
            Value::Text(text) => quoted(&text.captured.bytes, out),
            other => out.extend_from_slice(&other.bytes().unwrap_or_else(|| b"null".to_vec())),
        }
    }
}

/// As a JSON string.
pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

/// `INT64`, `ARRAY<STRUCT<a INT64>>`, `RANGE<DATE>`.
fn type_of(kind: &Value, out: &mut String) {
    if out.len() > MAX_TYPE {
        return;
    }
    let name = kind.get("type").text().unwrap_or_default().to_ascii_uppercase();
    out.push_str(&name);
    let inner = match name.as_str() {
        "ARRAY" => kind.get("arrayType"),
        "RANGE" => kind.get("rangeElementType"),
        "STRUCT" | "RECORD" => {
            out.push('<');
            for (at, field) in kind.get("structTypes").items().iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                if let Some(name) = field.get("name").text() {
                    out.push_str(&name);
                    out.push(' ');
                }
                type_of(field.get("type"), out);
            }
            out.push('>');
            return;
        }
        _ => return,
    };
    out.push('<');
    type_of(inner, out);
    out.push('>');
}
