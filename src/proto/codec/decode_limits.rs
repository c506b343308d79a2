use std::any::TypeId;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;

use crate::{
    domain::{Metadata, NewMessage},
    proto::{CreateConversationRequest, SaveMessagesRequest, UpdateConversationRequest},
};

/// The most that a request may have of each kind of part. Requests with more
/// than the API allows, but not more than this, get to hear which field is wrong.
const LIMITS: [(Part, usize, &str); 4] = [
    (Part::Message, 1_000, "messages"),
    (Part::Context, 20_000, "contexts"),
    (
        Part::Value,
        NewMessage::MAX_VALUES_PER_SAVE,
        "values in its metadata",
    ),
    (Part::Path, 1_000, "paths in its update_mask"),
];

/// How deep to look. Prost gives up at 100 levels.
const MAX_DEPTH: u32 = 128;

/// What can be repeated in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Message,
    Context,
    /// A field of a struct or an item of a list, at any depth.
    Value,
    /// A struct within a struct or list, which counts as several values.
    Object,
    Path,
}

/// A protobuf message in which something can be repeated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    SaveMessages,
    CreateConversation,
    UpdateConversation,
    Message,
    Context,
    Conversation,
    FieldMask,
    Struct,
    StructField,
    Value,
    List,
    /// A text, or a message with nothing repeated in it.
    Leaf,
}

/// The requests that can be out of proportion to their bytes.
pub(super) fn shape_of<U: 'static>() -> Option<Shape> {
    [
        (TypeId::of::<SaveMessagesRequest>(), Shape::SaveMessages),
        (
            TypeId::of::<CreateConversationRequest>(),
            Shape::CreateConversation,
        ),
        (
            TypeId::of::<UpdateConversationRequest>(),
            Shape::UpdateConversation,
        ),
    ]
    .into_iter()
    .find_map(|(id, shape)| (id == TypeId::of::<U>()).then_some(shape))
}

/// Refuses a message that has too many parts. Bytes that are no such message pass:
/// what is wrong with them is for prost to say, which stops where this does.
pub(super) fn check(shape: Shape, mut bytes: &[u8]) -> Result<(), Status> {
    let mut survey = Survey { seen: [0; 4] };
    while !bytes.is_empty() {
        match survey.field(shape, &mut bytes, 0) {
            Ok(()) => {}
            Err(Stop::Malformed) => break,
            Err(Stop::Over(max, what)) => {
                return Err(Status::resource_exhausted(format!(
                    "the request has more than {max} {what}"
                )));
            }
        }
    }
    Ok(())
}

/// Why a survey ends early.
enum Stop {
    Malformed,
    Over(usize, &'static str),
}

impl From<prost::DecodeError> for Stop {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed
    }
}

struct Survey {
    seen: [usize; LIMITS.len()],
}

impl Survey {
    /// Passes over one field and counts what is in it.
    fn field(&mut self, shape: Shape, bytes: &mut &[u8], depth: u32) -> Result<(), Stop> {
        let (tag, wire_type) = decode_key(bytes)?;
        let Some((inner, part)) = shape.field(tag) else {
            return Ok(skip_field(wire_type, tag, bytes, DecodeContext::default())?);
        };
        if wire_type != WireType::LengthDelimited || depth == MAX_DEPTH {
            return Err(Stop::Malformed);
        }
        if let Some(part) = part {
            self.count(part)?;
        }
        let length = usize::try_from(decode_varint(bytes)?).map_err(|_| Stop::Malformed)?;
        let end = bytes.len().checked_sub(length).ok_or(Stop::Malformed)?;
        if matches!(inner, Shape::Leaf) {
            *bytes = &bytes[length..];
            return Ok(());
        }
        // Prost notices only afterwards that a field goes on beyond the message
        // that it is in. Looking at no more than the message would miss that field.
        while bytes.len() > end {
            self.field(inner, bytes, depth + 1)?;
        }
        if bytes.len() == end {
            Ok(())
        } else {
            Err(Stop::Malformed)
        }
    }

    fn count(&mut self, part: Part) -> Result<(), Stop> {
        let (part, weight) = match part {
            Part::Object => (Part::Value, Metadata::OBJECT_WEIGHT),
            part => (part, 1),
        };
        for (seen, (limited, max, what)) in self.seen.iter_mut().zip(LIMITS) {
            if limited == part {
                *seen += weight;
                if *seen > max {
                    return Err(Stop::Over(max, what));
                }
            }
        }
        Ok(())
    }
}

impl Shape {
    /// What a field holds, and as what it counts; None where nothing in it can be
    /// repeated. The numbers are those of the proto files.
    fn field(self, tag: u32) -> Option<(Self, Option<Part>)> {
        Some(match (self, tag) {
            (Self::SaveMessages, 3) => (Self::Message, Some(Part::Message)),
            (Self::Message, 10) => (Self::Context, Some(Part::Context)),
            (Self::Message, 9)
            | (Self::Context | Self::CreateConversation, 4)
            | (Self::Conversation, 8) => (Self::Struct, None),
            (Self::Value, 5) => (Self::Struct, Some(Part::Object)),
            (Self::UpdateConversation, 1) => (Self::Conversation, None),
            (Self::UpdateConversation, 2) => (Self::FieldMask, None),
            (Self::FieldMask, 1) => (Self::Leaf, Some(Part::Path)),
            (Self::Struct, 1) => (Self::StructField, Some(Part::Value)),
            (Self::StructField, 2) => (Self::Value, None),
            (Self::Value, 6) => (Self::List, None),
            (Self::List, 1) => (Self::Value, Some(Part::Value)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::{FieldMask, ListValue, Struct, Value, value::Kind};
    use tonic::Code;

    use super::*;
    use crate::proto::{Conversation, Message, RetrievedContext};

    fn list(items: usize) -> Value {
        let item = Value {
            kind: Some(Kind::NullValue(0)),
        };
        Value {
            kind: Some(Kind::ListValue(ListValue {
                values: vec![item; items],
            })),
        }
    }

    fn object(value: Value) -> Struct {
        Struct {
            fields: [("a".to_owned(), value)].into(),
        }
    }

    fn nested(value: Value) -> Value {
        Value {
            kind: Some(Kind::StructValue(object(value))),
        }
    }

    fn checked<U: prost::Message + 'static>(request: &U) -> Result<(), String> {
        let shape = shape_of::<U>().unwrap();
        check(shape, &request.encode_to_vec()).map_err(|status| {
            assert_eq!(status.code(), Code::ResourceExhausted);
            status.message().to_owned()
        })
    }

    fn save(messages: Vec<Message>) -> SaveMessagesRequest {
        SaveMessagesRequest {
            conversation_id: "id".to_owned(),
            messages,
            request_id: "request".to_owned(),
            expected_last_seq: Some(-1),
            ..SaveMessagesRequest::default()
        }
    }

    /// A message with something in each field.
    fn full(contexts: usize, metadata: Option<Struct>) -> Message {
        Message {
            id: "id".to_owned(),
            role: 1,
            content: "text".to_owned(),
            tokens_used: Some(7),
            created_at: Some(prost_types::Timestamp::default()),
            contexts: vec![
                RetrievedContext {
                    score: Some(0.5),
                    metadata: metadata.clone(),
                    ..RetrievedContext::default()
                };
                contexts
            ],
            metadata,
            ..Message::default()
        }
    }

    #[test]
    fn messages_are_counted() {
        assert_eq!(checked(&save(vec![full(1, None); 1_000])), Ok(()));
        let refused = checked(&save(vec![Message::default(); 1_001])).unwrap_err();
        assert_eq!(refused, "the request has more than 1000 messages");
    }

    #[test]
    fn contexts_are_counted_over_all_messages() {
        assert_eq!(checked(&save(vec![full(200, None); 100])), Ok(()));
        let refused = checked(&save(vec![full(201, None); 100])).unwrap_err();
        assert_eq!(refused, "the request has more than 20000 contexts");
    }

    #[test]
    fn values_are_counted_over_all_metadata_at_any_depth() {
        // Each metadata has so many items, two fields around them, and an object.
        let request = |items| save(vec![full(1, Some(object(nested(list(items))))); 10]);
        assert_eq!(checked(&request(14_994)), Ok(()));
        let refused = checked(&request(14_995)).unwrap_err();
        assert_eq!(
            refused,
            "the request has more than 300000 values in its metadata"
        );
    }

    #[test]
    fn conversations_are_counted() {
        let create = |items| CreateConversationRequest {
            user_id: "user".to_owned(),
            metadata: Some(object(list(items))),
            ..CreateConversationRequest::default()
        };
        assert_eq!(checked(&create(299_999)), Ok(()));
        assert!(checked(&create(300_000)).is_err());
        let update = |items, paths| UpdateConversationRequest {
            conversation: Some(Conversation {
                id: "id".to_owned(),
                metadata: Some(object(list(items))),
                ..Conversation::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec![String::new(); paths],
            }),
            ..UpdateConversationRequest::default()
        };
        assert_eq!(checked(&update(299_999, 1_000)), Ok(()));
        assert!(checked(&update(300_000, 0)).is_err());
        assert!(checked(&update(0, 1_001)).is_err());
    }

    #[test]
    fn malformed_bytes_and_other_requests_pass() {
        assert!(shape_of::<Conversation>().is_none());
        let good = save(vec![full(2, Some(object(nested(list(3))))); 2]).encode_to_vec();
        for end in 0..good.len() {
            assert!(check(Shape::SaveMessages, &good[..end]).is_ok());
        }
        let mut deep = list(1);
        for _ in 0..60 {
            deep = nested(deep);
        }
        let deep = save(vec![full(0, Some(object(deep)))]).encode_to_vec();
        assert!(check(Shape::SaveMessages, &deep).is_ok());
        assert!(SaveMessagesRequest::decode(deep.as_slice()).is_err());
        // A group where a message belongs, an end without a group.
        for bytes in [&[0x1b, 0x1c][..], &[0x0c], &[0x1a, 0xff], &[0x80]] {
            assert!(check(Shape::SaveMessages, bytes).is_ok());
            assert!(SaveMessagesRequest::decode(bytes).is_err());
        }
    }

    #[test]
    fn a_field_that_goes_on_beyond_its_message_is_counted() {
        // A message of one byte, with metadata that takes all the rest.
        let metadata = object(list(300_000)).encode_to_vec();
        let mut bytes = vec![0x1a, 0x01, 0x4a];
        prost::encoding::encode_varint(metadata.len() as u64, &mut bytes);
        bytes.extend(metadata);
        assert!(check(Shape::SaveMessages, &bytes).is_err());
    }
}
