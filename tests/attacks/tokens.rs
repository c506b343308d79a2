//! Tokens of two callers.

use std::fs;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub(crate) const GREEDY: &str = "greedy-Horse-Battery-staple";
pub(crate) const MODEST: &str = "modest-Horse-Battery-staple";

/// A file with both tokens.
pub(crate) struct TokensFile {
    path: String,
    _folder: TempDir,
}

impl TokensFile {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let line = |name: &str, token: &str| {
            let hash = HEXLOWER.encode(&Sha256::digest(token));
            format!("{name}:{hash}\n")
        };
        fs::write(&path, line("greedy", GREEDY) + &line("modest", MODEST)).unwrap();
        Self {
            path: path.to_str().unwrap().to_owned(),
            _folder: folder,
        }
    }

    /// The setting that names the file.
    pub(crate) fn setting(&self) -> (&str, &str) {
        ("AUTH_TOKENS_FILE", &self.path)
    }
}
