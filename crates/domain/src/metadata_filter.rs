use std::fmt;

use serde_json::Value;

use super::{
    InvalidValue, Metadata,
    text::{bounded, reject_nul},
};

/// Condition on the metadata of a message: it contains a key, with a certain value if one is given.
#[derive(Clone, PartialEq)]
pub struct MetadataFilter {
    key: String,
    value: Option<String>,
}

impl MetadataFilter {
    /// Upper bound on the length of the key in characters.
    pub const MAX_KEY_CHARS: usize = 255;

    /// Upper bound on the length of the value in characters.
    pub const MAX_VALUE_CHARS: usize = 512;

    /// Condition that metadata contains `key`.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the key is empty, has more than [`Self::MAX_KEY_CHARS`]
    /// characters, or contains U+0000.
    pub fn with_key(key: impl Into<String>) -> Result<Self, InvalidValue> {
        let key = bounded(key.into(), Self::MAX_KEY_CHARS)?;
        Ok(Self { key, value: None })
    }

    /// Requires the key to have this value: a text, or a number, `true`, `false` or `null` as they
    /// are written in JSON.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the value has more than [`Self::MAX_VALUE_CHARS`] characters,
    /// or contains U+0000.
    pub fn and_value(self, value: impl Into<String>) -> Result<Self, InvalidValue> {
        let value = value.into();
        reject_nul(&value)?;
        let max = Self::MAX_VALUE_CHARS;
        if value.chars().count() > max {
            let reason = format!("must have at most {max} characters");
            return Err(InvalidValue::new(reason));
        }
        Ok(Self {
            value: Some(value),
            ..self
        })
    }

    /// Key that the metadata contains.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Values of the key, one of which is required: the text itself, and what it represents in
    /// JSON. `None` if the value does not matter.
    pub fn values(&self) -> Option<Vec<Value>> {
        let text = self.value.as_ref()?;
        let mut values = vec![Value::String(text.clone())];
        match serde_json::from_str(text) {
            Ok(Value::Number(number)) => {
                let number = number.as_f64().and_then(|it| Metadata::number(it).ok());
                values.extend(number.map(Value::Number));
            }
            Ok(value @ (Value::Bool(_) | Value::Null)) => values.push(value),
            _ => {}
        }
        Some(values)
    }

    /// Returns whether metadata meets the condition.
    pub fn matches(&self, metadata: &Metadata) -> bool {
        let Some(stored) = metadata.as_map().get(&self.key) else {
            return false;
        };
        self.values()
            .is_none_or(|values| values.iter().any(|value| is_equal(value, stored)))
    }
}

/// Compares two values. The negative zero equals the other one.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        #[expect(clippy::float_cmp, reason = "numbers are equal or not")]
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// Metadata is not shown.
impl fmt::Debug for MetadataFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataFilter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_or_literals_of_json() {
        let metadata =
            r#"{"a": "3", "b": 3.0, "c": true, "d": null, "e": -0.0, "f": [3], "g": ""}"#;
        let metadata = Metadata::from_json(metadata, 1_000).unwrap();
        let matches = |key: &str, value: Option<&str>| {
            let filter = MetadataFilter::with_key(key).unwrap();
            let filter = match value {
                Some(value) => filter.and_value(value).unwrap(),
                None => filter,
            };
            filter.matches(&metadata)
        };
        for (key, value) in [
            ("a", "3"),
            ("b", "3"),
            ("b", "3.0"),
            ("b", "0.3e1"),
            ("c", "true"),
            ("d", "null"),
            ("e", "0"),
            ("g", ""),
        ] {
            assert!(matches(key, Some(value)), "{key} {value}");
        }
        for (key, value) in [
            ("a", "3.0"),
            ("c", "1"),
            ("f", "3"),
            ("f", "[3]"),
            ("x", "3"),
        ] {
            assert!(!matches(key, Some(value)), "{key} {value}");
        }
        assert!(matches("f", None) && matches("d", None) && !matches("x", None));
    }

    #[test]
    fn keys_and_values_are_bounded() {
        let key = |key: &str| MetadataFilter::with_key(key);
        assert!(key("").is_err() && key("\0").is_err() && key(&"x".repeat(256)).is_err());
        let value = |value: &str| key(&"é".repeat(255)).unwrap().and_value(value);
        assert!(value("\0").is_err() && value(&"x".repeat(513)).is_err());
        assert!(value(&"é".repeat(512)).is_ok());
    }
}
