use std::{fmt, sync::Arc};

/// What a caller is called, in logs and spans: 1 to 255 letters, digits and `._~:/@+-`,
/// which need no escaping anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Arc<str>);

impl Name {
    const MAX: usize = 255;

    /// A name that has been chosen for a caller; none that a user has.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(is_plain)
            && !text.starts_with(OF_USER);
        fits.then(|| Self(text.into()))
    }

    /// The name that a certificate has, with `_` for what names do not have, and cut to
    /// their length. None for an empty one.
    pub fn resembling(text: &str) -> Option<Self> {
        let plain = |c: char| match u8::try_from(c) {
            Ok(byte) if is_plain(byte) => c,
            _ => '_',
        };
        let name: String = text.chars().take(Self::MAX).map(plain).collect();
        Self::parse(&name)
    }

    /// The user that a process runs as.
    pub fn of_user(uid: u32) -> Self {
        Self(format!("{OF_USER}{uid}").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What users' names begin with.
const OF_USER: &str = "uid:";

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~:/@+-".contains(&byte)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
