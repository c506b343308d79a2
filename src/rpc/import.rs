use bytes::Bytes;
use tonic::{Status, Streaming};

use super::{
    convert::{self, Parser},
    field::{FieldViolation, InField as _},
    use_case::failed,
};
use crate::{
    archive::{ArchiveReader, ConversationHeader, Record},
    call::{self, Span},
    domain::{DeptId, InvalidValue, UserId},
    memory::{ConversationImport, ImportConversation, Memory},
    proto::{
        ImportConversationRequest, ImportConversationResponse,
        import_conversation_request::{Options, Part},
    },
};

/// Imports a file that arrives as a stream of requests.
///
/// # Errors
/// Fails if the requests or the file are invalid, or if the store fails. Nothing is stored then.
pub(super) async fn import(
    parser: &Parser,
    mut requests: Streaming<ImportConversationRequest>,
) -> Result<ImportConversationResponse, Status> {
    let first = requests.message().await?.and_then(|request| request.part);
    let Some(Part::Options(options)) = first else {
        let reason = InvalidValue::new("is required in the first message");
        return Err(FieldViolation::new("options", reason).into());
    };
    let span = Span::of_use_case("import_conversation");
    let scope = span.scope();
    let mut file = ImportFile::begin(parser, &options, span)?;
    let work = async {
        while let Some(request) = requests.message().await? {
            let Some(Part::File(piece)) = request.part else {
                let reason = InvalidValue::new("is required in every message but the first");
                return Err(FieldViolation::new("file", reason).into());
            };
            file.take(piece.data).await?;
        }
        // Hyper reports the end of the body also for a call that its caller has cancelled, and
        // drops such a call once it is pending. Without this, a part of a file would be stored.
        tokio::task::yield_now().await;
        file.end().await
    };
    call::run_in(scope, work).await
}

/// A file that is stored while it arrives.
struct ImportFile {
    memory: Memory,
    reader: ArchiveReader,
    user_id: Option<UserId>,
    dept_id: Option<DeptId>,
    keep_ids: bool,
    /// `None` until the conversation has been read from the file.
    import: Option<ConversationImport>,
    span: Span,
}

impl ImportFile {
    fn begin(parser: &Parser, options: &Options, span: Span) -> Result<Self, FieldViolation> {
        let below = |error: FieldViolation| error.below("options");
        let format = convert::import_format(options.format).map_err(below)?;
        let memory = parser.memory.clone();
        let ids = memory.clone();
        let new_id = Box::new(move || ids.new_id());
        let reader = ArchiveReader::new(format, parser.limits, parser.max_request_bytes, new_id);
        Ok(Self {
            memory,
            reader: reader
                .in_field("format")
                .map_err(below)?
                .keep_ids(options.keep_ids && !options.new_message_ids),
            user_id: parser.owner_scope.user(&options.user_id).map_err(below)?,
            dept_id: convert::optional(&options.dept_id, "dept_id", DeptId::parse)
                .map_err(below)?,
            keep_ids: options.keep_ids,
            import: None,
            span,
        })
    }

    async fn take(&mut self, data: Bytes) -> Result<(), Status> {
        self.reader.push(data);
        while let Some(record) = self.reader.read_next().map_err(FieldViolation::from)? {
            self.add(record).await?;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<ImportConversationResponse, Status> {
        if let Some(record) = self.reader.end().map_err(FieldViolation::from)? {
            self.add(record).await?;
        }
        let Some(import) = self.import else {
            // The reader rejects a file without a conversation.
            return Err(super::status::internal());
        };
        let finished = import.finish(self.reader.last_seq()).await;
        let (conversation, messages) = finished.map_err(|error| failed(&mut self.span, error))?;
        Ok(ImportConversationResponse {
            conversation: Some(convert::render_conversation(conversation)),
            imported_messages: messages,
        })
    }

    async fn add(&mut self, record: Record) -> Result<(), Status> {
        let message = match record {
            Record::Conversation(header) => return self.conversation(*header).await,
            Record::Message(message) => *message,
        };
        let Some(import) = &mut self.import else {
            // The reader returns the conversation first.
            return Err(super::status::internal());
        };
        let added = import.add(message).await;
        added.map_err(|error| failed(&mut self.span, error))
    }

    async fn conversation(&mut self, header: ConversationHeader) -> Result<(), Status> {
        let Some(user_id) = self.user_id.take().or(header.user_id) else {
            let reason = InvalidValue::new("is required if the file does not contain the owner");
            return Err(FieldViolation::new("options.user_id", reason).into());
        };
        if self.keep_ids && header.id.is_none() {
            let reason = InvalidValue::new("requires the id of the conversation in the file");
            return Err(FieldViolation::new("options.keep_ids", reason).into());
        }
        let begun = self.memory.import_conversation(ImportConversation {
            id: header.id.filter(|_| self.keep_ids),
            user_id,
            dept_id: self.dept_id.take().or(header.dept_id),
            title: header.title,
            created_at: header.created_at,
            updated_at: header.updated_at,
            metadata: header.metadata,
        });
        self.import = Some(begun.await.map_err(|error| failed(&mut self.span, error))?);
        Ok(())
    }
}
