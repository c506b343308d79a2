use bytes::Bytes;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, Span, debug_span};

use super::{
    convert::{self, Parser},
    field::{FieldError, InField as _},
    use_case::failed,
};
use crate::{
    archive::{BadLine, Header, Item, Reader},
    domain::{DeptId, InvalidValue, Numbered, UserId},
    memory::{Import, ImportConversation, Memory},
    proto::{
        ImportConversationRequest, ImportConversationResponse,
        import_conversation_request::{Options, Part},
    },
};

/// About how many bytes of messages are stored at a time.
const BATCH_BYTES: usize = 1 << 20;
/// How many messages are stored at a time at most.
const BATCH: usize = 512;
/// And how many values their metadata may have.
const BATCH_VALUES: usize = 50_000;

/// Imports the file that a caller sends.
pub(super) async fn import(
    parser: &Parser,
    mut requests: Streaming<ImportConversationRequest>,
) -> Result<ImportConversationResponse, Status> {
    let first = requests.message().await?.and_then(|request| request.part);
    let Some(Part::Options(options)) = first else {
        let reason = InvalidValue::new("is required in the first message");
        return Err(FieldError::new("options", reason).into());
    };
    let span = debug_span!("use_case", otel.name = "import_conversation");
    let mut file = File::begin(parser, &options, span.clone())?;
    let work = async {
        while let Some(request) = requests.message().await? {
            let Some(Part::Data(data)) = request.part else {
                let reason = InvalidValue::new("must be what all messages but the first have");
                return Err(FieldError::new("data", reason).into());
            };
            file.take(data.into()).await?;
        }
        file.end().await
    };
    work.instrument(span).await
}

/// A file that is stored as it comes.
struct File {
    memory: Memory,
    reader: Reader,
    user_id: Option<UserId>,
    dept_id: Option<DeptId>,
    /// None before the file has said what conversation it is.
    import: Option<Import>,
    batch: Vec<Numbered>,
    batch_bytes: usize,
    batch_values: usize,
    span: Span,
}

impl File {
    fn begin(parser: &Parser, options: &Options, span: Span) -> Result<Self, FieldError> {
        let below = |error: FieldError| error.below("options");
        let format = convert::import_format(options.format).map_err(below)?;
        let memory = parser.memory.clone();
        let ids = memory.clone();
        let new_id = Box::new(move || ids.new_id());
        let reader = Reader::new(format, parser.limits, parser.max_request_bytes, new_id);
        Ok(Self {
            memory,
            reader: reader.in_field("format").map_err(below)?,
            user_id: parser.owner_scope.user(&options.user_id).map_err(below)?,
            dept_id: convert::optional(&options.dept_id, "dept_id", DeptId::parse)
                .map_err(below)?,
            import: None,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_values: 0,
            span,
        })
    }

    async fn take(&mut self, data: Bytes) -> Result<(), Status> {
        self.reader.push(data);
        while let Some(item) = self.reader.read_next()? {
            self.add(item).await?;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<ImportConversationResponse, Status> {
        if let Some(item) = self.reader.end()? {
            self.add(item).await?;
        }
        self.store().await?;
        let Some(import) = self.import else {
            // The reader asks for a conversation.
            return Err(super::status::internal());
        };
        let finished = import.finish(self.reader.last_seq()).await;
        let (conversation, messages) = finished.map_err(|error| failed(&self.span, error))?;
        Ok(ImportConversationResponse {
            conversation: Some(convert::render_conversation(conversation)),
            imported_messages: messages,
        })
    }

    async fn add(&mut self, item: Item) -> Result<(), Status> {
        match item {
            Item::Conversation(header) => self.conversation(*header).await,
            Item::Message(message) => {
                self.batch_bytes += message.message.size();
                self.batch_values += message.message.weight();
                self.batch.push(*message);
                let is_full = self.batch.len() == BATCH
                    || self.batch_bytes >= BATCH_BYTES
                    || self.batch_values >= BATCH_VALUES;
                if is_full {
                    self.store().await?;
                }
                Ok(())
            }
        }
    }

    async fn conversation(&mut self, header: Header) -> Result<(), Status> {
        let Some(user_id) = self.user_id.take().or(header.user_id) else {
            let reason = InvalidValue::new("is required where the file does not say whose it is");
            return Err(FieldError::new("options.user_id", reason).into());
        };
        let begun = self.memory.import_conversation(ImportConversation {
            user_id,
            dept_id: self.dept_id.take().or(header.dept_id),
            title: header.title,
            created_at: header.created_at,
            updated_at: header.updated_at,
            metadata: header.metadata,
        });
        self.import = Some(begun.await.map_err(|error| failed(&self.span, error))?);
        Ok(())
    }

    async fn store(&mut self) -> Result<(), Status> {
        let batch = std::mem::take(&mut self.batch);
        (self.batch_bytes, self.batch_values) = (0, 0);
        if let Some(import) = &mut self.import
            && !batch.is_empty()
        {
            let stored = import.add(&batch).await;
            stored.map_err(|error| failed(&self.span, error))?;
        }
        Ok(())
    }
}

impl From<BadLine> for Status {
    fn from(error: BadLine) -> Self {
        let BadLine {
            line,
            field,
            reason,
        } = error;
        let colon = if field.is_empty() { "" } else { ": " };
        FieldError::new(format!("line {line}{colon}{field}"), reason).into()
    }
}
