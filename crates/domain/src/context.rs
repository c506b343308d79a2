use std::fmt;

use super::{Content, FieldError, InField as _, InvalidValue, Limits, Metadata, text::reject_nul};

/// Document that retrieval supplied to the model for one message.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrievedContext {
    /// Id of the document in its own system; empty if it has none.
    pub doc_id: String,
    /// Part of the document that the model was given.
    pub content: Content,
    /// Relevance, a finite number; `None` if unknown.
    pub score: Option<f64>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
}

/// Fields of a retrieved context as a caller supplied them, before validation.
#[derive(Default)]
pub struct RawContext {
    /// See [`RetrievedContext::doc_id`].
    pub doc_id: String,
    /// See [`RetrievedContext::content`].
    pub content: String,
    /// See [`RetrievedContext::score`].
    pub score: Option<f64>,
    /// See [`RetrievedContext::metadata`].
    pub metadata: Option<Metadata>,
}

impl RetrievedContext {
    /// Upper bound on the length of a `doc_id`, in characters.
    pub const MAX_DOC_ID_CHARS: usize = 512;

    /// Validates a retrieved context.
    ///
    /// # Errors
    ///
    /// Fails with a [`FieldError`] that names the first invalid field.
    pub fn new(raw: RawContext, limits: &Limits) -> Result<Self, FieldError> {
        let RawContext {
            doc_id,
            content,
            score,
            metadata,
        } = raw;
        Ok(Self {
            doc_id: parse_doc_id(doc_id).in_field("doc_id")?,
            content: Content::parse(content, limits).in_field("content")?,
            score: score.map(parse_score).transpose().in_field("score")?,
            metadata,
        })
    }

    /// Approximate size in a response, in bytes.
    pub(super) fn size(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, Metadata::size);
        self.doc_id.len() + self.content.as_str().len() + metadata
    }

    /// Bytes that a response accounts for the context, as [`Metadata::footprint`].
    pub fn footprint(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, Metadata::footprint);
        self.doc_id.len() + self.content.as_str().len() + metadata
    }
}

fn parse_doc_id(doc_id: String) -> Result<String, InvalidValue> {
    let max = RetrievedContext::MAX_DOC_ID_CHARS;
    if doc_id.len() > max && doc_id.chars().count() > max {
        return Err(InvalidValue::new(format!(
            "must have at most {max} characters"
        )));
    }
    reject_nul(&doc_id)?;
    Ok(doc_id)
}

fn parse_score(score: f64) -> Result<f64, InvalidValue> {
    if !score.is_finite() {
        return Err(InvalidValue::new("must be finite"));
    }
    Ok(score)
}

impl fmt::Debug for RawContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawContext").finish_non_exhaustive()
    }
}
