//! What is said over the control socket: one line of JSON there, one line back.

use serde::{Deserialize, Serialize};

use crate::doctor::Report;

/// The longest line.
pub(crate) const LONGEST: usize = 4096;
/// The socket's name in the run directory.
pub(crate) const SOCKET: &str = "control.sock";

/// What a person wants.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "order", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Order {
    /// Stop steering for so long.
    Bypass {
        /// For how long.
        millis: u64,
        /// Why.
        reason: String,
    },
    /// Steer again.
    End,
    /// Only say.
    Status,
    /// Say of each container what is captured of it.
    Doctor,
}

/// How it stands now.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub(crate) enum Answer {
    /// Steering is bypassed.
    #[serde(rename_all = "camelCase")]
    Bypassed {
        /// For how much longer.
        left_millis: u64,
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
        /// Connections that have passed since.
        passed: u64,
    },
    /// Connections are steered.
    Steering,
    /// What is captured.
    Examined {
        /// Of what.
        report: Report,
    },
    /// Not done.
    Refused {
        /// Why not.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for order in [
            Order::Bypass { millis: 5, reason: "\"quoted\"\n".into() },
            Order::End,
            Order::Status,
            Order::Doctor,
        ] {
            let line = serde_json::to_string(&order).expect("json");
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Order>(&line).expect("order"), order);
        }
        assert!(serde_json::from_str::<Order>(r#"{"order":"bypass","millis":5}"#).is_err());
        assert!(serde_json::from_str::<Order>(r#"{"order":"stop"}"#).is_err());
    }
}
