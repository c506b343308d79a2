//! Files: what a stream of messages makes over REST.
//!
//! The answer of an RPC that streams is a file. Each message has the next piece of
//! it in a field `bytes data`, whose option `media_types` says what files there are.
//! The first message may say in `string file_name` what the file is called and in
//! `string content_type` what it is; that is all that the contract has to do for it.

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
const MEDIA_TYPES: &str = "conversation_memory.v1.media_types";

/// Whether a stream of this message is a file.
pub(super) fn check(message: &MessageDescriptor) -> Result<(), String> {
    let data = message.get_field_by_name(DATA);
    if !data.is_some_and(|field| field.kind() == Kind::Bytes && !field.is_list()) {
        return Err(format!("{} has no field bytes data", message.full_name()));
    }
    if media_types(message).is_empty() {
        return Err(format!("{}.data has no media_types", message.full_name()));
    }
    Ok(())
}

/// What a file that is made of this message can be.
pub(super) fn media_types(message: &MessageDescriptor) -> Vec<String> {
    let data = message.get_field_by_name(DATA);
    let extension = message.parent_pool().get_extension_by_name(MEDIA_TYPES);
    let (Some(data), Some(extension)) = (data, extension) else {
        return Vec::new();
    };
    let options = data.options();
    let types = options.get_extension(&extension);
    let types = types.as_list().into_iter().flatten();
    types
        .filter_map(|kind| kind.as_str().map(ToOwned::to_owned))
        .collect()
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

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use prost_reflect::{DescriptorPool, prost::Message as _};
    use prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
        MethodDescriptorProto, ServiceDescriptorProto,
    };
    use tonic::Code;

    use super::*;
    use crate::rpc::rest::frames;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Piece {
        #[prost(bytes = "bytes", tag = "1")]
        data: Bytes,
        #[prost(string, tag = "2")]
        file_name: String,
        #[prost(string, tag = "3")]
        content_type: String,
    }

    fn method() -> MethodDescriptor {
        let field = |(number, name, kind): (i32, &str, i32)| FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(1),
            r#type: Some(kind),
            ..FieldDescriptorProto::default()
        };
        let fields = [(1, DATA, 12), (2, FILE_NAME, 9), (3, CONTENT_TYPE, 9)];
        let file = FileDescriptorProto {
            name: Some("file.proto".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("Piece".to_owned()),
                field: fields.map(field).into(),
                ..DescriptorProto::default()
            }],
            service: vec![ServiceDescriptorProto {
                name: Some("Files".to_owned()),
                method: vec![MethodDescriptorProto {
                    name: Some("Get".to_owned()),
                    input_type: Some(".Piece".to_owned()),
                    output_type: Some(".Piece".to_owned()),
                    server_streaming: Some(true),
                    ..MethodDescriptorProto::default()
                }],
                ..ServiceDescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        let set = FileDescriptorSet { file: vec![file] };
        let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
        pool.services().next().unwrap().methods().next().unwrap()
    }

    fn piece(data: &str, name: &str) -> Bytes {
        let piece = Piece {
            data: Bytes::copy_from_slice(data.as_bytes()),
            file_name: name.to_owned(),
            content_type: "text/csv".to_owned(),
        };
        frames::frame(&piece.encode_to_vec())
    }

    /// The answer of a service that sends these pieces and ends with this status.
    fn answer(pieces: Vec<Bytes>, status: &Status) -> Messages {
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        let frames = pieces
            .into_iter()
            .map(Frame::data)
            .chain([Frame::trailers(trailers)])
            .map(Ok::<_, Status>);
        Messages::new(Body::new(StreamBody::new(stream::iter(
            frames.collect::<Vec<_>>(),
        ))))
    }

    #[tokio::test]
    async fn a_stream_is_a_file_with_a_name_and_a_type() {
        let whole = [
            piece("a,b\n", "talk.csv"),
            piece("1,2\n", ""),
            piece("", ""),
        ]
        .concat();
        // However the transport cuts it.
        let cut = whole.chunks(3).map(Bytes::copy_from_slice).collect();
        let answer = answer(cut, &Status::ok(""));
        let file = begin(&method(), answer).await.unwrap();
        let headers = file.headers();
        assert_eq!(headers["content-type"], "text/csv");
        assert_eq!(
            headers["content-disposition"],
            "attachment; filename=\"talk.csv\""
        );
        let body = file.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "a,b\n1,2\n");
    }

    #[tokio::test]
    async fn a_name_cannot_add_to_the_header() {
        let answer = answer(vec![piece("", "a\"\r\nb: é.csv")], &Status::ok(""));
        let file = begin(&method(), answer).await.unwrap();
        assert_eq!(
            file.headers()["content-disposition"],
            "attachment; filename*=UTF-8''a%22%0D%0Ab%3A%20%C3%A9%2Ecsv"
        );
    }

    #[tokio::test]
    async fn a_failure_before_the_file_is_an_answer_and_one_within_it_cuts_it_off() {
        let failed = answer(Vec::new(), &Status::not_found("none"));
        let refused = begin(&method(), failed).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        let failed = answer(vec![piece("a", "")], &Status::internal("broken"));
        let file = begin(&method(), failed).await.unwrap();
        let cut = file.into_body().collect().await.unwrap_err();
        assert_eq!(cut.code(), Code::Internal);
    }
}
