use std::{pin::Pin, vec};

use bytes::Bytes;
use futures_util::{
    TryStreamExt as _,
    stream::{self, Stream},
};
use tonic::{Response, Status};

use super::{status, use_case::failed};
use crate::{
    archive::{ArchiveWriter, Format},
    call::{self, Span},
    domain::Message,
    memory::{ConversationExport, Error},
    proto::{ExportConversationResponse, HttpBody},
};

/// Maximum number of bytes of the file in one message. Clients accept messages of 4 MiB unless they are
/// configured otherwise; smaller pieces are sent sooner.
const PIECE_BYTES: usize = 256 << 10;

/// Metadata key of the file's name. The transcoder copies the metadata to the HTTP header of
/// the same name.
const CONTENT_DISPOSITION: &str = "content-disposition";

pub(super) type Pieces =
    Pin<Box<dyn Stream<Item = Result<ExportConversationResponse, Status>> + Send>>;

/// A file that is read from the store as fast as its caller receives it.
struct ExportFile {
    export: ConversationExport,
    /// `None` after everything has been written.
    writer: Option<ArchiveWriter>,
    /// Messages that were read and not written yet.
    unwritten: vec::IntoIter<Message>,
    written: Vec<u8>,
    sent: usize,
    span: Span,
}

/// Content type of a file in a format.
pub(super) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::JsonLines => "application/jsonl",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Markdown => "text/markdown; charset=utf-8",
    }
}

/// Responds with a conversation's file, in pieces. The first piece has the content type, and
/// the initial metadata has the file's name.
pub(super) fn respond(
    export: ConversationExport,
    format: Format,
) -> Result<Response<Pieces>, Status> {
    let extension = match format {
        Format::Json => "json",
        Format::JsonLines => "jsonl",
        Format::Csv => "csv",
        Format::Markdown => "md",
    };
    // An id and an extension need no quoting.
    let id = &export.conversation.id;
    let disposition = format!("attachment; filename=\"{id}.{extension}\"");
    let disposition = disposition.parse().map_err(|_| status::internal())?;
    let mut response = Response::new(pieces(export, format));
    let metadata = response.metadata_mut();
    metadata.insert(CONTENT_DISPOSITION, disposition);
    Ok(response)
}

fn pieces(export: ConversationExport, format: Format) -> Pieces {
    let (writer, written) = ArchiveWriter::begin(format, &export.conversation);
    let file = ExportFile {
        export,
        writer: Some(writer),
        unwritten: Vec::new().into_iter(),
        written,
        sent: 0,
        span: Span::of_use_case("export_messages"),
    };
    let pieces = stream::try_unfold(file, async |mut file| {
        let data = file.next().await?;
        Ok::<_, Status>(data.map(|data| (data, file)))
    });
    let mut content_type = content_type(format);
    Box::pin(pieces.map_ok(move |data| ExportConversationResponse {
        file: Some(HttpBody {
            content_type: std::mem::take(&mut content_type).to_owned(),
            data,
            extensions: Vec::new(),
        }),
    }))
}

impl ExportFile {
    /// Returns the next message with the data of its blobs, which is read for one message at a
    /// time; `None` at the end of the conversation.
    async fn next_message(&mut self) -> Result<Option<Message>, Error> {
        if self.unwritten.as_slice().is_empty() {
            self.unwritten = self.export.next().await?.into_iter();
        }
        let Some(mut message) = self.unwritten.next() else {
            return Ok(None);
        };
        self.export.read_blobs(&mut message).await?;
        Ok(Some(message))
    }

    /// Returns the next piece; `None` at the end of the file.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while self.written.len() - self.sent < PIECE_BYTES
            && let Some(mut writer) = self.writer.take()
        {
            self.written.drain(..self.sent);
            self.sent = 0;
            let scope = self.span.scope();
            let read = call::run_in(scope, self.next_message()).await;
            match read.map_err(|error| failed(&mut self.span, error))? {
                None => self.written.extend_from_slice(writer.end()),
                Some(message) => {
                    self.written.append(&mut writer.add(&[message]));
                    self.writer = Some(writer);
                }
            }
        }
        let end = self.written.len().min(self.sent + PIECE_BYTES);
        let piece = Bytes::copy_from_slice(&self.written[self.sent..end]);
        self.sent = end;
        Ok((!piece.is_empty()).then_some(piece))
    }
}
