use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;

use super::Script;

/// Scripts in the form in which they are sent on one connection: with a first line that defines
/// `server`, the identity of the server's history. A server with another history has not cached a
/// script of this form, whatever was sent to it before, and replies with NOSCRIPT.
#[derive(Debug)]
pub(super) struct PreparedScripts {
    first_line: String,
    /// By the digest of the script without the first line.
    prepared: RwLock<HashMap<String, PreparedScript>>,
}

/// Script with its first line, and the digest of both.
#[derive(Clone, Debug)]
pub(super) struct PreparedScript {
    pub(super) source: Bytes,
    pub(super) sha1: Bytes,
}

impl PreparedScripts {
    /// Creates the scripts for a server's identity, which must consist of letters, digits and
    /// colons.
    pub(super) fn new(identity: &str) -> Self {
        Self {
            first_line: format!("local server = \"{identity}\"\n"),
            prepared: RwLock::default(),
        }
    }

    /// Returns a script with its first line.
    pub(super) fn get(&self, script: &Script) -> PreparedScript {
        let prepared = self.prepared.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = prepared.get(script.sha1()) {
            return found.clone();
        }
        drop(prepared);
        let source = [&self.first_line, script.source()].concat();
        let with_line = Script::new(script.name(), source.clone());
        let entry = PreparedScript {
            sha1: Bytes::from(with_line.sha1().to_owned()),
            source: Bytes::from(source),
        };
        self.prepared
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(script.sha1().to_owned(), entry.clone());
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_have_different_digests() {
        let script = Script::new("one", "return server");
        let (one, other) = (PreparedScripts::new("1:a"), PreparedScripts::new("2:a"));
        let prepared = one.get(&script);
        assert_eq!(prepared.source, "local server = \"1:a\"\nreturn server");
        assert_ne!(prepared.sha1, other.get(&script).sha1);
        assert_eq!(prepared.sha1, one.get(&script).sha1);
        assert_eq!(prepared.sha1.len(), 40);
    }
}
