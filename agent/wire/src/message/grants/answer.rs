//! The answer that issues a token. What is read of it leaves as a [`Secret`] only.

use http::HeaderMap;

use super::route::Route;
use crate::{
    Secret,
    message::{
        coding::Coding,
        json::{Kept, TreeBuilder},
    },
    seam::Issued,
};

/// Longest answer that is read, bytes.
const MOST_BYTES: usize = 64 * 1024;
/// Longest token, bytes.
const MOST_TOKEN: usize = 16 * 1024;
/// Fields that hold a token: of STS and OAuth 2.0, of IAM Credentials.
const FIELDS: [&str; 5] = ["access_token", "id_token", "accessToken", "token", "signedJwt"];

/// Reads an answer.
pub(super) struct AnswerReader {
    text_is_token: bool,
    coding: Coding,
    text: zeroize::Zeroizing<Vec<u8>>,
    too_long: bool,
}

impl AnswerReader {
    pub(super) fn new(headers: &HeaderMap, text_is_token: bool) -> Self {
        Self { text_is_token, coding: Coding::of(headers), text: Default::default(), too_long: false }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let Self { coding, text, too_long, .. } = self;
        coding.push(bytes, &mut |decoded| keep(text, decoded, too_long));
    }

    /// The tokens in it; or, in one line, why there are none.
    pub(super) fn finish(
        mut self,
        route: &Route,
        asked_seconds: Option<u64>,
    ) -> Result<Vec<Issued>, &'static str> {
        let Self { coding, text, too_long, .. } = &mut self;
        coding.finish(&mut |decoded| keep(text, decoded, too_long));
        if self.coding.failure().is_some() {
            return Err("a content-coding that is not decoded");
        }
        if self.too_long {
            return Err("longer than is read");
        }
        let Some(issuer) = route.issuer else { return Ok(Vec::new()) };
        let issued = |secret: Vec<u8>, lifetime_seconds| Issued {
            issuer,
            secret: Secret::new(secret),
            account: route.account.clone(),
            lifetime_seconds,
            bound: route.bound,
        };
        if self.text_is_token {
            let token = self.text.trim_ascii();
            let plausible = (1..=MOST_TOKEN).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
            return if plausible { Ok(vec![issued(token.to_vec(), None)]) } else { Err("no token in it") };
        }
        let mut tree = TreeBuilder::new(|_| Kept::All, MOST_BYTES);
        tree.push(&self.text);
        let tree = tree.finish();
        if tree.fault.is_some() {
            return Err("no JSON");
        }
        let lifetime = tree.root().get("expires_in").number().or(asked_seconds);
        let tokens = FIELDS.iter().filter_map(|field| tree.root().get(field).bytes());
        let tokens = tokens.filter(|token| (1..=MOST_TOKEN).contains(&token.len()));
        let mut all: Vec<Issued> = Vec::new();
        for token in tokens {
            // `accessToken` and `access_token` are one name to the reader.
            if all.iter().all(|known| known.secret.bytes() != token) {
                all.push(issued(token, lifetime));
            }
        }
        if all.is_empty() { Err("no token in it") } else { Ok(all) }
    }
}

fn keep(text: &mut Vec<u8>, decoded: &[u8], too_long: &mut bool) {
    let room = MOST_BYTES.saturating_sub(text.len());
    *too_long |= decoded.len() > room;
    text.extend(decoded.iter().take(room));
}
