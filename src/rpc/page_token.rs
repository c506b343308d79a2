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
    store::{CheckpointPosition, SearchKey},
};

/// Version of the format. A token of another version is rejected, not misread.
const VERSION: u8 = 1;
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
    let digest = digest(&key, request);
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

fn read<K: Key>(token: &str, request: &[&str]) -> Option<K> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (key, given) = rest.split_last_chunk::<DIGEST_BYTES>()?;
    (*version == VERSION && *given == digest(key, request))
        .then(|| K::from_bytes(key))
        .flatten()
}

fn digest(key: &[u8], request: &[&str]) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    hash.update([VERSION]);
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
