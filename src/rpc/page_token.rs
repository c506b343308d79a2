//! Page tokens: opaque, and good for one request only.
//!
//! A token carries where the page before ended, never how many rows came before
//! it, and a digest over the request's other fields and itself. The digest is
//! no secret: a token gives nobody a right, since whose the rows are is checked
//! again with each page.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::domain::Invalid;

/// Raised when what a token says changes its meaning: a token of another
/// version is refused, not misread.
const VERSION: u8 = 1;
const DIGEST_BYTES: usize = 16;
const TOKEN_BYTES: usize = 1 + 8 + DIGEST_BYTES;

/// A token that goes on after `key`, for a request with these fields.
pub(crate) fn encode(key: i64, request: &[&str]) -> String {
    let mut token = [0; TOKEN_BYTES];
    token[0] = VERSION;
    token[1..9].copy_from_slice(&key.to_be_bytes());
    token[9..].copy_from_slice(&digest(key, request));
    URL_SAFE_NO_PAD.encode(token)
}

/// Where to go on. None for an empty token: the first page.
pub(crate) fn decode(token: &str, request: &[&str]) -> Result<Option<i64>, Invalid> {
    if token.is_empty() {
        return Ok(None);
    }
    let foreign = || Invalid::new("is not the next_page_token of an answer to this request");
    let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(foreign)?;
    let [version, rest @ ..] = bytes;
    let (key, given) = rest.split_at(8);
    let key = key
        .try_into()
        .map(i64::from_be_bytes)
        .map_err(|_| foreign())?;
    if version != VERSION || given != digest(key, request) {
        return Err(foreign());
    }
    Ok(Some(key))
}

fn digest(key: i64, request: &[&str]) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    hash.update([VERSION]);
    hash.update(key.to_be_bytes());
    for field in request {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hash.finalize()[..DIGEST_BYTES]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_request_only() {
        let token = encode(42, &["messages", "a", "bc"]);
        assert_eq!(decode(&token, &["messages", "a", "bc"]), Ok(Some(42)));
        assert_eq!(decode("", &["messages"]), Ok(None));
        for other in [&["messages", "ab", "c"][..], &["messages", "a"], &[]] {
            assert!(decode(&token, other).is_err());
        }
    }

    #[test]
    fn a_changed_token_is_refused() {
        let request = ["conversations", "u1"];
        let token = encode(7, &request);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(decode(&changed, &request).is_err(), "{changed}");
        }
        for bad in ["x", "\u{e9}", &token[1..], &format!("{token}A")] {
            assert!(decode(bad, &request).is_err(), "{bad}");
        }
    }
}
