//! Items of the long-term memory: JSON objects under a namespace and a key.

use std::{fmt, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{
    InvalidValue, ItemKey, SizeLimit, UserId,
    metadata::{check, parse_json},
    text::bounded,
};

/// Owner of items: a user, or the application itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemOwner(Option<UserId>);

impl ItemOwner {
    /// The user, or the application if there is none.
    pub fn new(user: Option<UserId>) -> Self {
        Self(user)
    }

    /// Id of the user; empty for the application.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", UserId::as_str)
    }
}

/// Path of labels. Those of items have at least one label, and the prefix of a search can have none.
#[derive(Clone, PartialEq, Eq)]
pub struct Namespace(Vec<String>);

impl Namespace {
    /// Upper bound on the number of labels.
    pub const MAX_LABELS: usize = 32;
    /// Upper bound on the length of a label in characters.
    pub const MAX_LABEL_CHARS: usize = 255;
    /// Upper bound on the bytes of all labels, with one more for each label. An entry of
    /// PostgreSQL's index of items has room for them and for the owner.
    pub const MAX_BYTES: usize = 1_024;

    /// Validates the namespace of an item.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] as [`Self::parse_prefix`] does, and if there is no label.
    pub fn parse(labels: Vec<String>) -> Result<Self, InvalidValue> {
        if labels.is_empty() {
            return Err(InvalidValue::new("is required"));
        }
        Self::parse_prefix(labels)
    }

    /// Validates the prefix of namespaces.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if a label is empty, too long or contains U+0000, or if there are
    /// too many labels or bytes.
    pub fn parse_prefix(labels: Vec<String>) -> Result<Self, InvalidValue> {
        if labels.len() > Self::MAX_LABELS {
            let max = Self::MAX_LABELS;
            return Err(InvalidValue::new(format!("must have at most {max} labels")));
        }
        let labels = labels
            .into_iter()
            .map(|label| bounded(label, Self::MAX_LABEL_CHARS).map_err(|reason| of_label(&reason)));
        let labels: Vec<String> = labels.collect::<Result<_, _>>()?;
        if labels.iter().map(|label| label.len() + 1).sum::<usize>() > Self::MAX_BYTES {
            let max = Self::MAX_BYTES;
            return Err(InvalidValue::new(format!(
                "must have at most {max} bytes, with one more for each label"
            )));
        }
        Ok(Self(labels))
    }

    /// Prefix without labels, below which all namespaces are.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// The first labels, at most `depth`.
    #[must_use]
    pub fn shortened(mut self, depth: usize) -> Self {
        self.0.truncate(depth);
        self
    }

    /// The labels.
    pub fn labels(&self) -> &[String] {
        &self.0
    }

    /// Converts into the labels.
    pub fn into_labels(self) -> Vec<String> {
        self.0
    }

    /// Encodes the labels, so that the order of the bytes is that of the labels, and the encoding of
    /// a prefix is a prefix of the encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in &self.0 {
            bytes.extend_from_slice(label.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// Decodes what [`Self::to_bytes`] has encoded; `None` for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let labels = std::str::from_utf8(bytes).ok()?;
        Some(Self(
            labels.split_terminator('\0').map(str::to_owned).collect(),
        ))
    }

    /// First bytes of all namespaces that begin with these labels, and the first bytes after them.
    pub fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let first = self.to_bytes();
        // No text contains this byte.
        let end = [first.as_slice(), &[0xff]].concat();
        (first, end)
    }
}

fn of_label(reason: &InvalidValue) -> InvalidValue {
    InvalidValue::new(format!("has a label that {reason}"))
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespace").finish_non_exhaustive()
    }
}

/// Condition on a namespace. Labels that are "*" match any label.
#[derive(Clone, Debug)]
pub struct NamespaceCondition {
    /// The labels.
    pub labels: Namespace,
    /// Whether the labels must be the last ones instead of the first ones.
    pub is_suffix: bool,
}

impl NamespaceCondition {
    const WILDCARD: &str = "*";

    /// Whether a namespace fulfils the condition.
    pub fn matches(&self, namespace: &Namespace) -> bool {
        let (wanted, labels) = (self.labels.labels(), namespace.labels());
        let Some(skipped) = labels.len().checked_sub(wanted.len()) else {
            return false;
        };
        let labels = labels.iter().skip(if self.is_suffix { skipped } else { 0 });
        wanted
            .iter()
            .zip(labels)
            .all(|(wanted, label)| wanted == Self::WILDCARD || wanted == label)
    }

    /// First labels of every namespace that fulfils the condition, as far as they are known.
    pub fn first_labels(&self) -> Namespace {
        let labels = self.labels.labels().iter();
        let known = labels.take_while(|label| !self.is_suffix && *label != Self::WILDCARD);
        Namespace(known.cloned().collect())
    }
}

/// Identity of an item: a digest of its owner, namespace and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId([u8; 32]);

impl ItemId {
    /// Computes the identity of an item.
    pub fn new(owner: &ItemOwner, namespace: &Namespace, key: &ItemKey) -> Self {
        let mut hash = Sha256::new();
        for part in [owner.as_str().as_bytes(), &namespace.to_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(key.as_str().as_bytes());
        Self(hash.finalize().into())
    }

    /// Reads the bytes of an identity; `None` if there are not 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Bytes of the identity, as they are stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// JSON object as text, exactly as its caller wrote it: numbers keep all digits.
#[derive(Clone, PartialEq, Eq)]
pub struct ItemValue(String);

impl ItemValue {
    /// Validates the text of an object.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the text has more than `max_bytes`, is not a JSON object of finite
    /// numbers, has more than [`super::Metadata::MAX_DEPTH`] levels, or contains U+0000.
    pub fn parse(json: String, max_bytes: usize) -> Result<Self, InvalidValue> {
        if json.is_empty() {
            return Err(InvalidValue::new("is required"));
        }
        if json.len() > max_bytes {
            let reason = format_args!("must have at most {max_bytes} bytes");
            return Err(InvalidValue::exceeds(SizeLimit::Content, reason));
        }
        let value = parse_json(&json)?;
        if !value.is_object() {
            return Err(InvalidValue::new("must be an object"));
        }
        check(&value, 1)?;
        Ok(Self(json))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ItemValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ItemValue").finish_non_exhaustive()
    }
}

/// Time to live of an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ItemTtl(f64);

impl ItemTtl {
    /// Upper bound in minutes: a hundred years.
    pub const MAX_MINUTES: f64 = 52_560_000.0;

    /// Validates a number of minutes.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] unless the number is above 0 and at most [`Self::MAX_MINUTES`].
    pub fn from_minutes(minutes: f64) -> Result<Self, InvalidValue> {
        if minutes > 0.0 && minutes <= Self::MAX_MINUTES {
            return Ok(Self(minutes));
        }
        Err(InvalidValue::new(
            "must be above 0 and at most 52560000 minutes",
        ))
    }

    /// The time in microseconds, at least one.
    pub fn as_micros(self) -> i64 {
        let micros = Duration::from_secs_f64(self.0 * 60.0).as_micros();
        i64::try_from(micros).unwrap_or(i64::MAX).max(1)
    }
}

/// Vector of an embedding model.
#[derive(Clone, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Upper bound on the number of components.
    pub const MAX_DIMENSIONS: usize = 8_192;
    /// Upper bound on the vectors of an item.
    pub const MAX_PER_ITEM: usize = 100;

    /// Validates the components.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if there are none or too many, or if one is not finite.
    pub fn parse(values: Vec<f32>) -> Result<Self, InvalidValue> {
        if values.is_empty() || values.len() > Self::MAX_DIMENSIONS {
            let max = Self::MAX_DIMENSIONS;
            return Err(InvalidValue::new(format!("must have 1 to {max} numbers")));
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(InvalidValue::new("must have finite numbers only"));
        }
        Ok(Self(values))
    }

    /// Encodes vectors as the number of components and the components of each.
    pub fn encode(vectors: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Self(values) in vectors {
            let dimensions = u32::try_from(values.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&dimensions.to_le_bytes());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    /// Cosine of the angle to the nearest of the encoded vectors; `None` if none has as many
    /// components. It is 0 for a vector whose components are all 0.
    pub fn similarity(&self, mut encoded: &[u8]) -> Option<f64> {
        const SIZE: usize = size_of::<f32>();
        let mut nearest: Option<f64> = None;
        while let Some((dimensions, rest)) = encoded.split_first_chunk() {
            let dimensions = u32::from_le_bytes(*dimensions) as usize;
            let (values, rest) = rest.split_at_checked(dimensions.checked_mul(SIZE)?)?;
            encoded = rest;
            if dimensions == self.0.len() {
                let values = values.as_chunks::<SIZE>().0.iter();
                let cosine = self.cosine(values.map(|value| f32::from_le_bytes(*value).into()));
                nearest = Some(nearest.map_or(cosine, |nearest| nearest.max(cosine)));
            }
        }
        nearest
    }

    fn cosine(&self, other: impl Iterator<Item = f64>) -> f64 {
        let (mut product, mut own_square, mut square) = (0.0, 0.0, 0.0);
        for (own, other) in self.0.iter().copied().map(f64::from).zip(other) {
            product += own * other;
            own_square += own * own;
            square += other * other;
        }
        let norms = square.sqrt() * own_square.sqrt();
        if norms > 0.0 { product / norms } else { 0.0 }
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Embedding").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(labels: &[&str]) -> Namespace {
        Namespace::parse(labels.iter().map(|label| (*label).to_owned()).collect()).unwrap()
    }

    #[test]
    fn encoded_namespaces_have_the_order_of_their_labels() {
        let ordered = [
            &["a"][..],
            &["a", "\u{1}"],
            &["a", "b"],
            &["a", "b", "c"],
            &["a\u{1}"],
            &["a."],
            &["ab"],
            &["é"],
            &["\u{ffff}"],
            &["😀"],
        ];
        let encoded = ordered.map(|labels| namespace(labels).to_bytes());
        assert!(encoded.is_sorted());
        for labels in ordered {
            let namespace = namespace(labels);
            assert_eq!(
                Namespace::from_bytes(&namespace.to_bytes()),
                Some(namespace)
            );
        }
        let (first, end) = namespace(&["a"]).range();
        let is_below = encoded.map(|bytes| first <= bytes && bytes < end);
        assert_eq!(is_below[..5], [true, true, true, true, false]);
    }

    #[test]
    fn labels_are_limited() {
        let parse = |labels: &[&str]| {
            Namespace::parse(labels.iter().map(|label| (*label).to_owned()).collect())
        };
        let long = "é".repeat(255);
        assert!(parse(&[&long, &long]).is_ok());
        assert!(parse(&["x"; 32]).is_ok());
        for bad in [
            &[][..],
            &[""],
            &["a\0"],
            &["x"; 33],
            &[&long, &long, &long],
            &[&"x".repeat(256)],
        ] {
            assert!(parse(bad).is_err(), "{}", bad.len());
        }
    }

    #[test]
    fn conditions_match_with_wildcards() {
        let condition = |labels: &[&str], is_suffix| NamespaceCondition {
            labels: namespace(labels),
            is_suffix,
        };
        let users = namespace(&["users", "ana", "facts"]);
        for (labels, is_suffix, expected) in [
            (&["users"][..], false, true),
            (&["users", "*", "facts"], false, true),
            (&["ana"], false, false),
            (&["*", "*", "*", "*"], false, false),
            (&["facts"], true, true),
            (&["*", "facts"], true, true),
            (&["users", "facts"], true, false),
        ] {
            let condition = condition(labels, is_suffix);
            assert_eq!(condition.matches(&users), expected, "{labels:?}");
        }
        let first = condition(&["users", "*", "facts"], false).first_labels();
        assert_eq!(first.labels(), ["users"]);
        assert_eq!(condition(&["users"], true).first_labels().labels().len(), 0);
    }

    #[test]
    fn values_are_kept_as_they_were_written() {
        let json = r#"{"b": 1.0, "a": 123456789012345678901234567890, "c": "\ud83d\ude00"}"#;
        let value = ItemValue::parse(json.to_owned(), 100).unwrap();
        assert_eq!(value.as_str(), json);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
        for bad in [
            "",
            "[]",
            "{",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            r#"{"a":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            r#"{"a":"\ud800"}"#,
            &deep,
            &format!("{{\"a\":\"{}\"}}", "x".repeat(93)),
        ] {
            assert!(ItemValue::parse(bad.to_owned(), 100).is_err(), "{bad}");
        }
    }

    #[test]
    fn similarity_is_that_of_the_nearest_vector_of_the_same_dimension() {
        let vector = |values: &[f32]| Embedding::parse(values.to_vec()).unwrap();
        let query = vector(&[3.0, 4.0]);
        let encoded =
            Embedding::encode(&[vector(&[-3.0, -4.0]), vector(&[1.0]), vector(&[4.0, 3.0])]);
        assert_eq!(query.similarity(&encoded), Some(24.0 / 25.0));
        assert_eq!(
            query.similarity(&Embedding::encode(&[vector(&[1.0, 2.0, 3.0])])),
            None
        );
        assert_eq!(query.similarity(&[]), None);
        assert_eq!(query.similarity(&[9, 0, 0, 0, 1]), None);
        let zero = Embedding::encode(&[vector(&[0.0, 0.0])]);
        assert_eq!(query.similarity(&zero), Some(0.0));
        let large = vector(&[f32::MAX, f32::MAX]);
        let same = Embedding::encode(std::slice::from_ref(&large));
        assert!((large.similarity(&same).unwrap() - 1.0).abs() < 1e-9);
        assert!(Embedding::parse(vec![f32::NAN]).is_err());
        assert!(Embedding::parse(vec![0.0; 8_193]).is_err());
    }
}
