//! Search documents, which are written by the statements that save their messages.

use sqlx::{
    Postgres,
    decode::Decode,
    encode::{Encode, IsNull},
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, types::Oid},
};

use crate::{
    domain::NewMessage,
    text_analysis::{Document, Languages},
};

/// Terms of a message, as a `tsvector`.
pub(super) struct Terms(pub(super) Document);

impl sqlx::Type<Postgres> for Terms {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(3614))
    }
}

impl Decode<'_, Postgres> for Terms {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(Document::from_bytes(value.as_bytes()?.to_vec())))
    }
}

impl PgHasArrayType for Terms {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(3643))
    }
}

impl Encode<'_, Postgres> for Terms {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

/// Values of search documents, one array for each column, for `unnest`.
pub(super) struct DocumentColumns {
    /// Identity of the analysis, for all documents.
    pub(super) analyzer: String,
    /// Numbers of the documents' messages, as the statement counts them.
    pub(super) message_numbers: Vec<i64>,
    pub(super) roles: Vec<&'static str>,
    pub(super) terms: Vec<Terms>,
}

/// Binds [`DocumentColumns`] to a query.
macro_rules! bind_documents {
    ($query:expr, $columns:ident) => {
        $query
            .bind($columns.analyzer)
            .bind($columns.message_numbers)
            .bind($columns.roles)
            .bind($columns.terms)
    };
}
pub(super) use bind_documents;

impl DocumentColumns {
    /// Analyzes numbered messages. Those without terms have no documents.
    pub(super) fn new<'a>(
        messages: impl Iterator<Item = (i64, &'a NewMessage)>,
        languages: Languages,
    ) -> Self {
        let mut columns = Self {
            analyzer: languages.analyzer(),
            message_numbers: Vec::new(),
            roles: Vec::new(),
            terms: Vec::new(),
        };
        for (number, message) in messages {
            if let Some(document) = Document::of(message.content.as_str(), languages) {
                columns.message_numbers.push(number);
                columns.roles.push(message.role.as_str());
                columns.terms.push(Terms(document));
            }
        }
        columns
    }
}
