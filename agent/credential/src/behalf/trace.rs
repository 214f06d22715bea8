//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>, sections 3.2 and 3.3): what is taken for one.

/// Longest `tracestate`; the standard asks for 512 bytes at least.
const MOST_STATE: usize = 512;

/// Whether a text is a `traceparent`: lower-case digits, ids that are not all zero, and no version `ff`. A version
/// that is not known may have more behind it.
pub(super) fn is_parent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = text.splitn(5, '-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let more = parts.next().is_some();
    hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2)
        && text.len() <= MOST_STATE
        && !(version == "00" && more)
}

/// Whether a text is a `tracestate`: at most 32 members of key and value, printable.
pub(super) fn is_state(text: &str) -> bool {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    text.len() <= MOST_STATE
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t')
        && members.clone().count() <= 32
        && members.clone().all(|member| member.split_once('=').is_some_and(|(key, _)| !key.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_what_the_standard_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_parent(good) && is_parent(&format!("{}-later", good.replacen("00", "cc", 1))));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert!(!is_parent(bad), "{bad}");
        }
        assert!(is_state("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7") && is_state(""));
        assert!(!is_state("novalue") && !is_state(&"a=b,".repeat(33)) && !is_state("a=\u{7f}"));
    }
}
