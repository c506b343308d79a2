use std::{convert::Infallible, fmt, path::Path, str::FromStr};

use super::InvalidSetting;
use crate::{os_error, small_file};

/// Text whose Debug output does not contain it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Converts the secret into its text.
    pub fn into_inner(self) -> String {
        self.0
    }

    /// Returns the value if it is set, otherwise the content of the file without its final
    /// line break. An empty value or path counts as unset; an empty file is an error, because
    /// the setting was meant to have a value: without `DATABASE_URL`, another store would be
    /// used.
    pub(super) fn from_value_or_file(
        value: Option<&Self>,
        file: Option<&Path>,
        name: &str,
    ) -> Result<Option<Self>, InvalidSetting> {
        if let Some(value) = value
            && !value.0.is_empty()
        {
            return Ok(Some(value.clone()));
        }
        let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let invalid = |problem| InvalidSetting::new(&format!("{name}_FILE"), problem);
        let contents = small_file::read_within_limit(path).map_err(|error| {
            let cause = os_error::describe(&error);
            invalid(format!("cannot read {}: {cause}", path.display()))
        })?;
        let text = String::from_utf8(contents)
            .map_err(|_| invalid(format!("{} is not UTF-8 text", path.display())))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(invalid(format!("{} is empty", path.display())));
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

    /// Accepts any text, because clap's error for an invalid one would show it.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
