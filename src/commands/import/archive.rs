//! Requests that import one conversation.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::{
    archive::{ArchiveWriter, Format},
    domain::{Conversation, Message, UserId},
    proto::{
        HttpBody, ImportConversationRequest,
        import_conversation_request::{Options, Part},
    },
};

/// Bytes of a piece of a file.
const PIECE_BYTES: usize = 256 << 10;

/// Writes a conversation as the service reads it.
pub(super) fn encode(conversation: &Conversation, messages: &[Message]) -> Bytes {
    let (mut writer, mut file) = ArchiveWriter::begin(Format::JsonLines, conversation);
    file.append(&mut writer.add(messages));
    file.extend_from_slice(writer.end());
    file.into()
}

/// Requests with a file in memory.
pub(super) fn requests_of(
    user: &UserId,
    file: Bytes,
) -> impl Stream<Item = ImportConversationRequest> + Send + use<> {
    let count = file.len().div_ceil(PIECE_BYTES);
    let piece = move |index: usize| {
        let start = index * PIECE_BYTES;
        file.slice(start..(start + PIECE_BYTES).min(file.len()))
    };
    let pieces = (0..count).map(move |index| request_with(piece(index)));
    stream::iter(std::iter::once(options(user, false)).chain(pieces))
}

/// Requests with a temporary file, from its beginning.
pub(super) fn requests_from(
    user: &UserId,
    file: &File,
    new_message_ids: bool,
) -> io::Result<impl Stream<Item = ImportConversationRequest> + Send + use<>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    let pieces = std::iter::from_fn(move || {
        let mut piece = Vec::new();
        let limit = PIECE_BYTES as u64;
        let read = file.by_ref().take(limit).read_to_end(&mut piece);
        read.is_ok_and(|read| read > 0)
            .then(|| request_with(piece.into()))
    });
    let options = options(user, new_message_ids);
    Ok(stream::iter(std::iter::once(options).chain(pieces)))
}

fn options(user: &UserId, new_message_ids: bool) -> ImportConversationRequest {
    ImportConversationRequest {
        part: Some(Part::Options(Options {
            user_id: user.as_str().to_owned(),
            keep_ids: true,
            new_message_ids,
            ..Options::default()
        })),
    }
}

fn request_with(data: Bytes) -> ImportConversationRequest {
    ImportConversationRequest {
        part: Some(Part::File(HttpBody {
            data,
            ..HttpBody::default()
        })),
    }
}
