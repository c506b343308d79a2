use std::{convert::Infallible, fmt, fs, path::Path, str::FromStr};

use super::BadSetting;

/// A text that Debug does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text, given up.
    pub fn into_inner(self) -> String {
        self.0
    }

    /// The secret that was given as a value or, failing that, as a file, whose
    /// last line break is no part of it.
    pub(super) fn given(
        value: Option<&Self>,
        file: Option<&Path>,
        name: &str,
    ) -> Result<Option<Self>, BadSetting> {
        if let Some(value) = value
            && !value.0.is_empty()
        {
            return Ok(Some(value.clone()));
        }
        let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let text = fs::read_to_string(path).map_err(|error| {
            let why = format!("cannot be read from {}: {error}", path.display());
            BadSetting::new(&format!("{name}_FILE"), why)
        })?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            // Taken for unset, it would start another store than was meant.
            return Err(BadSetting::new(
                &format!("{name}_FILE"),
                "names an empty file",
            ));
        }
        Ok(Some(Self(text.to_owned())))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    /// Takes any text: a parser that refused one would show it.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
