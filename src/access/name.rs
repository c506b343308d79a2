use std::{fmt, sync::Arc};

/// What a caller is called, in logs and spans: 1 to 255 letters, digits and `._~:/@+-`,
/// which need no escaping anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Arc<str>);

impl Name {
    const MAX: usize = 255;

    /// The user that a process runs as.
    pub fn of_user(uid: u32) -> Self {
        Self(format!("uid:{uid}").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
