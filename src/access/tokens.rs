use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::CallerName;

/// Tokens of the callers, as SHA-256 hashes.
#[derive(Debug)]
pub struct Tokens(Vec<Token>);

#[derive(Debug)]
struct Token {
    owner: CallerName,
    hash: [u8; 32],
}

impl Tokens {
    /// Parses a file of lines `name:hash` with the SHA-256 hash of a token in hexadecimal
    /// digits. Blank lines and lines that begin with `#` are ignored. A name may have several
    /// tokens.
    ///
    /// # Errors
    /// Fails if a line is not valid. The text names the line and does not quote it, because it
    /// could contain a token.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(file).map_err(|_| "is not UTF-8 text".to_owned())?;
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token =
                Token::parse(line).map_err(|reason| format!("line {} {reason}", index + 1))?;
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// Whether there are no tokens, so that every caller is rejected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the caller with this token. The duration of the search does not depend on the
    /// hashes.
    pub(super) fn owner(&self, token: &[u8]) -> Option<&CallerName> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = u32::MAX;
        for (index, token) in (0..).zip(&self.0) {
            found.conditional_assign(&index, token.hash.ct_eq(&hash));
        }
        self.0.get(found as usize).map(|token| &token.owner)
    }
}

impl Token {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let (name, hash) = line.rsplit_once(':').ok_or("must be name:hash")?;
        let owner = CallerName::parse(name.trim())
            .ok_or("must begin with a name of 1 to 255 letters, digits and ._~:/@+-")?;
        let hash = HEXLOWER_PERMISSIVE
            .decode(hash.trim().as_bytes())
            .ok()
            .and_then(|hash| <[u8; 32]>::try_from(hash).ok())
            .ok_or("must end with a SHA-256 hash, which has 64 hexadecimal digits")?;
        if hash == <[u8; 32]>::from(Sha256::digest(b"")) {
            return Err("has the hash of the empty token");
        }
        Ok(Self { owner, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of "first" and "second".
    const FIRST: &str = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
    const SECOND: &str = "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4";

    fn error_of(file: &str) -> String {
        Tokens::parse(file.as_bytes()).expect_err("the file is not valid")
    }

    #[test]
    fn finds_the_owner_of_a_token() {
        let upper = SECOND.to_uppercase();
        let file = format!("# agents\n\n a:{FIRST} \r\nspiffe://x/b:{upper}\na:{upper}\n");
        let tokens = Tokens::parse(file.as_bytes()).unwrap();
        assert_eq!(tokens.owner(b"first").unwrap().as_str(), "a");
        assert!(tokens.owner(b"second").is_some());
        for wrong in ["", "First", "first ", "third", FIRST] {
            assert_eq!(tokens.owner(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn names_an_invalid_line_without_quoting_it() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for line in [
            "hunter2",
            "hunter2:abc",
            &format!(":{FIRST}"),
            &format!("hunter 2:{FIRST}"),
            &format!("hunter2:{FIRST}0"),
            &format!("hunter2:{}g", &FIRST[1..]),
            &format!("hunter2:{empty}"),
        ] {
            let error = error_of(&format!("a:{FIRST}\n{line}\n"));
            assert!(error.starts_with("line 2 "), "{error}");
            assert!(!error.contains("hunter") && !error.contains(FIRST));
        }
    }

    #[test]
    fn a_file_without_tokens_is_empty() {
        for file in ["", "\n# comment\n"] {
            assert!(Tokens::parse(file.as_bytes()).unwrap().is_empty());
        }
        assert!(Tokens::parse(b"a:\xff").is_err());
    }
}
