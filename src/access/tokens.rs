use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::Name;

/// The tokens that are taken, as their hashes.
#[derive(Debug)]
pub struct Tokens(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    name: Name,
    hash: [u8; 32],
}

impl Tokens {
    /// Reads a file of lines `name:hash`, the SHA-256 of a token in hexadecimal digits.
    /// Blank lines, and those that begin with `#`, say nothing. A name may have several
    /// tokens. Errors name the line and quote nothing of it.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(file).map_err(|_| "it is no UTF-8 text".to_owned())?;
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = Entry::parse(line).map_err(|why| format!("line {} {why}", at + 1))?;
            entries.push(entry);
        }
        Ok(Self(entries))
    }

    /// Whether nobody may call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token this is. How long that takes tells nothing of the hashes.
    pub(super) fn holder(&self, token: &[u8]) -> Option<&Name> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = u32::MAX;
        for (at, entry) in (0..).zip(&self.0) {
            found.conditional_assign(&at, entry.hash.ct_eq(&hash));
        }
        self.0.get(found as usize).map(|entry| &entry.name)
    }
}

impl Entry {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let (name, hash) = line.rsplit_once(':').ok_or("must be name:hash")?;
        let name = Name::parse(name.trim())
            .ok_or("must begin with a name of 1 to 255 letters, digits and ._~:/@+-")?;
        let hash = unhex(hash.trim())
            .ok_or("must end with a SHA-256 hash, which has 64 hexadecimal digits")?;
        if hash == <[u8; 32]>::from(Sha256::digest(b"")) {
            return Err("has the hash of nothing");
        }
        Ok(Self { name, hash })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| {
        let digit = char::from(byte).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let mut bytes = [0; 32];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "first" and "second".
    const FIRST: &str = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
    const SECOND: &str = "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4";

    fn refusal(file: &str) -> String {
        Tokens::parse(file.as_bytes()).expect_err("was taken")
    }

    #[test]
    fn tokens_belong_to_names() {
        let upper = SECOND.to_uppercase();
        let file = format!("# agents\n\n a:{FIRST} \r\nspiffe://x/b:{upper}\na:{upper}\n");
        let tokens = Tokens::parse(file.as_bytes()).unwrap();
        assert_eq!(tokens.holder(b"first").unwrap().as_str(), "a");
        assert!(tokens.holder(b"second").is_some());
        for wrong in ["", "First", "first ", "third", FIRST] {
            assert_eq!(tokens.holder(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_line_that_is_wrong_is_named_and_not_shown() {
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
            let refusal = refusal(&format!("a:{FIRST}\n{line}\n"));
            assert!(refusal.starts_with("line 2 "), "{refusal}");
            assert!(!refusal.contains("hunter") && !refusal.contains(FIRST));
        }
    }

    #[test]
    fn a_file_without_tokens_is_of_nobody() {
        for file in ["", "\n# nobody\n"] {
            assert!(Tokens::parse(file.as_bytes()).unwrap().is_empty());
        }
        assert!(Tokens::parse(b"a:\xff").is_err());
    }
}
