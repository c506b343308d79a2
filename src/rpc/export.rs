use std::pin::Pin;

use futures_util::{
    TryStreamExt as _,
    stream::{self, Stream},
};
use tonic::Status;
use tracing::{Instrument as _, Span, debug_span};

use super::use_case::failed;
use crate::{
    archive::{Format, Writer},
    memory::ConversationExport,
    proto::ExportConversationResponse,
};

/// How many bytes an answer's message has at most: clients take 4 MiB unless told
/// otherwise, and a smaller piece is sooner on its way.
const PIECE: usize = 256 << 10;

pub(super) type Pieces =
    Pin<Box<dyn Stream<Item = Result<ExportConversationResponse, Status>> + Send>>;

/// A file that is read from the store as its caller takes it.
struct File {
    export: ConversationExport,
    /// None when all is written.
    writer: Option<Writer>,
    written: Vec<u8>,
    sent: usize,
    span: Span,
}

/// The conversation's file, in pieces.
pub(super) fn file(export: ConversationExport, format: Format) -> Pieces {
    let (writer, written) = Writer::begin(format, &export.conversation);
    let (ending, content_type) = match format {
        Format::Json => ("json", "application/json"),
        Format::JsonLines => ("jsonl", "application/jsonl"),
        Format::Csv => ("csv", "text/csv; charset=utf-8"),
    };
    let mut first = ExportConversationResponse {
        data: Vec::new(),
        file_name: format!("{}.{ending}", export.conversation.id),
        content_type: content_type.to_owned(),
    };
    let file = File {
        export,
        writer: Some(writer),
        written,
        sent: 0,
        span: debug_span!("use_case", otel.name = "export_messages"),
    };
    let pieces = stream::try_unfold(file, async |mut file| {
        let data = file.next().await?;
        Ok::<_, Status>(data.map(|data| (data, file)))
    });
    Box::pin(pieces.map_ok(move |data| ExportConversationResponse {
        data,
        // What the file is, once.
        ..std::mem::take(&mut first)
    }))
}

impl File {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Status> {
        while self.written.len() - self.sent < PIECE
            && let Some(mut writer) = self.writer.take()
        {
            self.written.drain(..self.sent);
            self.sent = 0;
            let read = self.export.next().instrument(self.span.clone()).await;
            let messages = read.map_err(|error| failed(&self.span, error))?;
            if messages.is_empty() {
                self.written.extend_from_slice(writer.end());
            } else {
                self.written.append(&mut writer.add(&messages));
                self.writer = Some(writer);
            }
        }
        let end = self.written.len().min(self.sent + PIECE);
        let piece = self.written[self.sent..end].to_vec();
        self.sent = end;
        Ok((!piece.is_empty()).then_some(piece))
    }
}
