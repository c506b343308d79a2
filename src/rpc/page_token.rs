//! Page tokens, which are opaque and valid for one request only.
//!
//! A token contains the key at which the previous page ended, and not a number of rows, and a
//! digest of that key and of the other fields of the request. The digest is not secret: a token
//! grants no access, since every page checks the owner of its rows again.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::{
    domain::{InvalidValue, SearchText, SessionId},
    sessions::SessionKey,
    store::{CheckpointPosition, MinState, SearchKey},
};

/// Version of the format. A token of another version is rejected, not misread.
const VERSION: u8 = 1;

/// Version of a token with the state of the store that the next page needs.
const VERSION_WITH_STATE: u8 = 2;
const DIGEST_BYTES: usize = 16;

/// Key by which the rows of a list are ordered.
pub(crate) trait Key: Sized {
    fn to_bytes(self) -> Vec<u8>;
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Key for i64 {
    fn to_bytes(self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self::from_be_bytes).ok()
    }
}

impl Key for SearchKey {
    fn to_bytes(self) -> Vec<u8> {
        [self.rank.to_be_bytes(), self.place.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (rank, place) = bytes.split_at_checked(8)?;
        Some(Self {
            rank: f64::from_be_bytes(rank.try_into().ok()?),
            place: i64::from_bytes(place)?,
        })
    }
}

/// Position in the hits of a search, whose query may have been corrected.
#[derive(Clone)]
pub(crate) struct SearchPosition {
    pub(crate) key: SearchKey,
    pub(crate) corrected_query: Option<SearchText>,
}

impl Key for SearchPosition {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.key.to_bytes();
        let corrected = self.corrected_query.iter();
        bytes.extend(corrected.flat_map(|text| text.as_str().bytes()));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, corrected) = bytes.split_at_checked(16)?;
        let corrected_query = if corrected.is_empty() {
            None
        } else {
            Some(SearchText::parse(str::from_utf8(corrected).ok()?).ok()?)
        };
        Some(Self {
            key: SearchKey::from_bytes(key)?,
            corrected_query,
        })
    }
}

impl Key for SessionKey {
    fn to_bytes(self) -> Vec<u8> {
        let id = self.id.as_uuid();
        [&self.last_use.to_be_bytes(), id.as_bytes().as_slice()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (last_use, id) = bytes.split_at_checked(8)?;
        Some(Self {
            last_use: i64::from_bytes(last_use)?,
            id: SessionId::from_uuid(uuid::Uuid::from_slice(id).ok()?),
        })
    }
}

impl Key for CheckpointPosition {
    fn to_bytes(self) -> Vec<u8> {
        [&self.namespace.to_be_bytes(), self.id.as_bytes().as_slice()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (namespace, id) = bytes.split_at_checked(8)?;
        Some(Self {
            namespace: i64::from_bytes(namespace)?,
            id: uuid::Uuid::from_slice(id).ok()?,
        })
    }
}

/// Encodes a token for the rows after `key`, for a request with these fields.
pub(crate) fn encode(key: impl Key, request: &[&str]) -> String {
    let key = key.to_bytes();
    let digest = digest(VERSION, &key, request);
    URL_SAFE_NO_PAD.encode([&[VERSION], key.as_slice(), &digest].concat())
}

/// Decodes the key after which the page starts. `None` for an empty token, which requests the
/// first page.
///
/// # Errors
/// Fails if the token was not issued for a request with these fields.
pub(crate) fn decode<K: Key>(token: &str, request: &[&str]) -> Result<Option<K>, InvalidValue> {
    if token.is_empty() {
        return Ok(None);
    }
    read(token, request)
        .map(Some)
        .ok_or_else(|| InvalidValue::new("is not a next_page_token of this request"))
}

/// Encodes a token like [`encode`], with the state that the next page needs.
pub(crate) fn encode_with_state(key: impl Key, state: MinState, request: &[&str]) -> String {
    let MinState::Position(position) = state else {
        return encode(key, request);
    };
    let key = [position.to_be_bytes().to_vec(), key.to_bytes()].concat();
    let digest = digest(VERSION_WITH_STATE, &key, request);
    URL_SAFE_NO_PAD.encode([&[VERSION_WITH_STATE], key.as_slice(), &digest].concat())
}

/// Decodes a token of [`encode_with_state`]: the key after which the page starts, which is `None` for
/// the first page, and the state that it needs.
///
/// # Errors
/// Fails as [`decode`] does.
pub(crate) fn decode_with_state<K: Key>(
    token: &str,
    request: &[&str],
) -> Result<(Option<K>, MinState), InvalidValue> {
    if token.is_empty() {
        return Ok((None, MinState::ANY));
    }
    if let Some((key, position)) = read_with_state(token, request) {
        return Ok((Some(key), MinState::Position(position)));
    }
    Ok((decode(token, request)?, MinState::Latest))
}

fn read<K: Key>(token: &str, request: &[&str]) -> Option<K> {
    K::from_bytes(&read_bytes(VERSION, token, request)?)
}

fn read_with_state<K: Key>(token: &str, request: &[&str]) -> Option<(K, u64)> {
    let bytes = read_bytes(VERSION_WITH_STATE, token, request)?;
    let (position, key) = bytes.split_first_chunk()?;
    Some((K::from_bytes(key)?, u64::from_be_bytes(*position)))
}

/// Returns what a token of a version contains, if it was issued for a request with these fields.
fn read_bytes(version: u8, token: &str, request: &[&str]) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (found, rest) = bytes.split_first()?;
    let (key, given) = rest.split_last_chunk::<DIGEST_BYTES>()?;
    (*found == version && *given == digest(version, key, request)).then(|| key.to_vec())
}

fn digest(version: u8, key: &[u8], request: &[&str]) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    hash.update([version]);
    hash.update(key);
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
    fn a_token_is_valid_for_its_request_only() {
        let token = encode(42_i64, &["messages", "a", "bc"]);
        assert_eq!(decode(&token, &["messages", "a", "bc"]), Ok(Some(42)));
        assert_eq!(decode::<i64>("", &["messages"]), Ok(None));
        let key = SearchKey {
            rank: 0.25,
            place: i64::MAX,
        };
        assert_eq!(decode(&encode(key, &["a"]), &["a"]), Ok(Some(key)));
        assert!(decode::<i64>(&encode(key, &["a"]), &["a"]).is_err());
        for other in [&["messages", "ab", "c"][..], &["messages", "a"], &[]] {
            assert!(decode::<i64>(&token, other).is_err());
        }
    }

    #[test]
    fn a_token_contains_the_state_that_the_next_page_needs() {
        let of = ["messages", "a"];
        for state in [MinState::Latest, MinState::Position(7), MinState::ANY] {
            let token = encode_with_state(42_i64, state, &of);
            assert_eq!(decode_with_state(&token, &of), Ok((Some(42), state)));
            assert!(decode_with_state::<i64>(&token, &["messages", "b"]).is_err());
        }
        let first = decode_with_state::<i64>("", &of);
        assert_eq!(first, Ok((None, MinState::ANY)));
        // Tokens of earlier versions remain valid.
        let earlier = encode(42_i64, &of);
        assert_eq!(
            decode_with_state(&earlier, &of),
            Ok((Some(42), MinState::Latest))
        );
    }

    #[test]
    fn rejects_changed_tokens() {
        let request = ["conversations", "u1"];
        let token = encode(7_i64, &request);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(decode::<i64>(&changed, &request).is_err(), "{changed}");
        }
        for bad in ["x", "\u{e9}", &token[1..], &format!("{token}A")] {
            assert!(decode::<i64>(bad, &request).is_err(), "{bad}");
        }
    }
}
