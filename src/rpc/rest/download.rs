//! Files: what a stream of messages makes over REST.
//!
//! The answer of an RPC that streams is a file. Each message has the next piece of
//! it in a field `bytes data`. The first message may say in `string file_name` what
//! the file is called and in `string content_type` what it is; that is all that the
//! contract has to do for it.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};
use tonic::{Status, body::Body};

use super::frames::Messages;

const DATA: &str = "data";
const FILE_NAME: &str = "file_name";
const CONTENT_TYPE: &str = "content_type";

/// Whether a stream of this message is a file.
pub(super) fn check(message: &MessageDescriptor) -> Result<(), String> {
    let data = message.get_field_by_name(DATA);
    if data.is_some_and(|field| field.kind() == Kind::Bytes && !field.is_list()) {
        return Ok(());
    }
    Err(format!("{} has no field bytes data", message.full_name()))
}

/// Begins the file with the first message: what goes wrong before it is an answer of
/// its own, what goes wrong later cuts the file off in a way that HTTP notices.
pub(super) async fn begin(
    method: &MethodDescriptor,
    mut messages: Messages,
) -> Result<Response<Body>, Status> {
    let message = method.output();
    let first = messages.next().await?.unwrap_or_default();
    let text = |name| {
        let text = field(&message, name, &first)?;
        String::from_utf8(text.to_vec()).ok()
    };
    let content_type = text(CONTENT_TYPE).and_then(|kind| kind.parse().ok());
    let disposition = text(FILE_NAME).and_then(|name| disposition(&name));
    let data = field(&message, DATA, &first).unwrap_or_default();
    let pieces = stream::unfold(Some((Some(data), messages, message)), async |state| {
        let (piece, mut messages, message) = state?;
        let piece = match piece {
            Some(first) => first,
            None => match messages.next().await {
                Ok(next) => field(&message, DATA, &next?).unwrap_or_default(),
                Err(status) => return Some((Err(status), None)),
            },
        };
        Some((Ok(Frame::data(piece)), Some((None, messages, message))))
    });
    let mut response = super::response(content_type, Body::new(StreamBody::new(pieces)));
    if let Some(disposition) = disposition {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// Names a file for whoever saves it.
fn disposition(name: &str) -> Option<HeaderValue> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let text = if name.chars().all(is_plain) {
        format!("attachment; filename=\"{name}\"")
    } else {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        format!("attachment; filename*=UTF-8''{name}")
    };
    text.parse().ok()
}

/// The bytes of a field of a message, without a copy.
fn field(descriptor: &MessageDescriptor, name: &str, message: &Bytes) -> Option<Bytes> {
    let wanted = descriptor.get_field_by_name(name)?.number();
    let (mut rest, mut found) = (message.clone(), None);
    while rest.has_remaining() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if number == wanted && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            if length > rest.len() {
                return None;
            }
            found = Some(rest.split_to(length));
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
        }
    }
    found
}
