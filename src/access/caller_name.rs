use std::{fmt, sync::Arc};

/// Name of a caller in logs and spans: 1 to 255 letters, digits and `._~:/@+-`, which need
/// no escaping anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerName(Arc<str>);

/// Prefix of the names of users of the operating system. No other name has it.
const USER_PREFIX: &str = "uid:";

impl CallerName {
    const MAX_LENGTH: usize = 255;

    /// Parses a configured name. `None` if it is not valid, or is the name of a user of the
    /// operating system.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(is_allowed)
            && !text.starts_with(USER_PREFIX);
        is_valid.then(|| Self(text.into()))
    }

    /// Derives a name from one in a certificate: characters that a name must not contain are
    /// replaced by `_`, and those beyond the maximum length are removed. `None` if `text` is
    /// empty.
    pub fn from_certificate_name(text: &str) -> Option<Self> {
        let allowed = |c: char| match u8::try_from(c) {
            Ok(byte) if is_allowed(byte) => c,
            _ => '_',
        };
        let name: String = text.chars().take(Self::MAX_LENGTH).map(allowed).collect();
        Self::parse(&name)
    }

    /// Returns the name of a user of the operating system.
    pub fn from_uid(uid: u32) -> Self {
        Self(format!("{USER_PREFIX}{uid}").into())
    }

    /// Parses the name of a caller of any kind. `None` if no caller can have it.
    pub fn parse_any(text: &str) -> Option<Self> {
        let Some(uid) = text.strip_prefix(USER_PREFIX) else {
            return Self::parse(text);
        };
        let name = uid.parse().ok().map(Self::from_uid)?;
        (name.as_str() == text).then_some(name)
    }

    /// The text, which clones of the name share.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~:/@+-".contains(&byte)
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_that_a_caller_can_have() {
        for name in ["admin", "spiffe://x/b", "uid:0", "uid:4294967295"] {
            let parsed = CallerName::parse_any(name);
            assert_eq!(parsed.as_ref().map(CallerName::as_str), Some(name));
        }
        for name in [
            "",
            "a b",
            "uid:",
            "uid:-1",
            "uid:01",
            "uid:+1",
            "uid:4294967296",
            "uid:ann",
        ] {
            assert_eq!(CallerName::parse_any(name), None, "{name}");
        }
    }
}
