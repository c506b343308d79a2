//! Tests of the limits on this contract's requests, and on the requests of a contract that this
//! file defines.

use prost::{Message as _, Name};
use prost_reflect::DescriptorPool;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FieldMask, FileDescriptorProto, ListValue,
    MethodDescriptorProto, ServiceDescriptorProto, Struct, Value,
    field_descriptor_proto::{Label, Type},
    value::Kind,
};

use super::*;
use crate::{
    domain::{Metadata, NewMessage},
    proto::{
        Conversation, CreateConversationRequest, GetHistoryRequest, ListMessagesResponse, Message,
        POOL, RetrievedContext, SaveMessagesRequest, UpdateConversationRequest,
    },
};

fn limits() -> DecodeLimits {
    DecodeLimits::of_services(POOL.as_ref().unwrap()).unwrap()
}

fn check<M: prost::Message + Name>(request: &M) -> Result<(), DecodeRejection> {
    limits().check::<M>(&request.encode_to_vec())
}

fn too_many(field: &str, counted: Counted, max: usize) -> Result<(), DecodeRejection> {
    Err(DecodeRejection::TooManyElements {
        field: field.to_owned(),
        counted,
        max,
    })
}

fn too_deep(field: &str, nested: Counted, max: usize) -> Result<(), DecodeRejection> {
    Err(DecodeRejection::TooDeep {
        field: field.to_owned(),
        nested,
        max,
    })
}

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

/// An object of `depth` levels.
fn deep(depth: usize) -> Struct {
    let mut value = Value { kind: None };
    for _ in 1..depth {
        value = nested(value);
    }
    object(value)
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

/// A message with a value in each field.
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
fn counts_messages() {
    assert_eq!(check(&save(vec![full(1, None); 1_000])), Ok(()));
    let rejected = check(&save(vec![Message::default(); 1_001]));
    assert_eq!(rejected, too_many("messages", Counted::Elements, 1_000));
}

#[test]
fn counts_contexts_over_all_messages() {
    assert_eq!(check(&save(vec![full(200, None); 100])), Ok(()));
    let rejected = check(&save(vec![full(201, None); 100]));
    let field = "messages[99].contexts";
    assert_eq!(rejected, too_many(field, Counted::Elements, 20_000));
}

#[test]
fn limits_on_elements_are_above_those_of_the_api() {
    let most = vec![full(NewMessage::MAX_CONTEXTS + 1, None); NewMessage::MAX_PER_SAVE + 1];
    assert_eq!(check(&save(most)), Ok(()));
}

#[test]
fn counts_values_over_all_metadata_at_any_depth() {
    // Each metadata has this many items, two fields around them, and a nested object.
    let request = |items| save(vec![full(1, Some(object(nested(list(items))))); 10]);
    let max = NewMessage::MAX_VALUES_PER_SAVE;
    let items = max / 20 - 2 - Metadata::OBJECT_WEIGHT;
    assert_eq!(check(&request(items)), Ok(()));
    let rejected = check(&request(items + 1));
    let field = "messages[9].contexts[0].metadata";
    assert_eq!(rejected, too_many(field, Counted::Values, max));
}

#[test]
fn counts_values_and_paths_of_other_requests() {
    let max = NewMessage::MAX_VALUES_PER_SAVE;
    let create = |items| CreateConversationRequest {
        user_id: "user".to_owned(),
        metadata: Some(object(list(items))),
        ..CreateConversationRequest::default()
    };
    assert_eq!(check(&create(max - 1)), Ok(()));
    let rejected = check(&create(max));
    assert_eq!(rejected, too_many("metadata", Counted::Values, max));
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
    assert_eq!(check(&update(max - 1, 1_000)), Ok(()));
    let rejected = check(&update(max, 0));
    let field = "conversation.metadata";
    assert_eq!(rejected, too_many(field, Counted::Values, max));
    let rejected = check(&update(0, 1_001));
    let field = "update_mask.paths";
    assert_eq!(rejected, too_many(field, Counted::Elements, 1_000));
}

#[test]
fn names_the_field_that_is_nested_too_deeply() {
    let max = Metadata::MAX_DEPTH;
    for depth in [max + 1, 60, 10_000] {
        let rejected = limits().check::<SaveMessagesRequest>(&deep_request(depth));
        let field = "messages[2].contexts[1].metadata";
        assert_eq!(rejected, too_deep(field, Counted::Values, max), "{depth}");
    }
}

/// The bytes of a request whose third message has a second context with metadata of
/// `depth` levels. They are written from the inside out, since a value that deep would
/// exhaust the stack when it is dropped.
fn deep_request(depth: usize) -> Vec<u8> {
    fn field(number: u32, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(value.len() + 12);
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
        prost::encoding::encode_varint(value.len() as u64, &mut out);
        out.extend_from_slice(value);
        out
    }
    let mut object = Vec::new();
    for level in 0..depth {
        let value = if level == 0 {
            object
        } else {
            field(5, &object)
        };
        object = field(1, &field(2, &value));
    }
    let context = [field(10, b""), field(10, &field(4, &object))].concat();
    [field(3, b""), field(3, b""), field(3, &context)].concat()
}

#[test]
fn agrees_with_the_decoder_on_depth() {
    // The deepest position of metadata: everything that passes the check can be decoded.
    let request = deep_request(Metadata::MAX_DEPTH);
    assert_eq!(limits().check::<SaveMessagesRequest>(&request), Ok(()));
    assert!(SaveMessagesRequest::decode(request.as_slice()).is_ok());
}

#[test]
fn malformed_bytes_pass() {
    let good = save(vec![full(2, Some(object(nested(list(3))))); 2]).encode_to_vec();
    let check = |bytes: &[u8]| limits().check::<SaveMessagesRequest>(bytes);
    for end in 0..good.len() {
        assert_eq!(check(&good[..end]), Ok(()));
    }
    // A group where a message belongs, the end of a group that has no start, lengths
    // beyond the end.
    for bytes in [&[0x1b, 0x1c][..], &[0x0c], &[0x1a, 0xff], &[0x80]] {
        assert_eq!(check(bytes), Ok(()));
        assert!(SaveMessagesRequest::decode(bytes).is_err());
    }
}

#[test]
fn counts_a_field_that_extends_beyond_its_message() {
    // A message of one byte, with metadata that takes all the rest.
    let metadata = object(list(NewMessage::MAX_VALUES_PER_SAVE)).encode_to_vec();
    let mut bytes = vec![0x1a, 0x01, 0x4a];
    prost::encoding::encode_varint(metadata.len() as u64, &mut bytes);
    bytes.extend(metadata);
    assert!(limits().check::<SaveMessagesRequest>(&bytes).is_err());
}

#[test]
fn requests_without_repeated_fields_are_not_scanned() {
    let limits = limits();
    for (name, is_scanned) in [
        (SaveMessagesRequest::NAME, true),
        (CreateConversationRequest::NAME, true),
        (UpdateConversationRequest::NAME, true),
        (GetHistoryRequest::NAME, false),
        ("BeginTurnRequest", false),
        // Only a client decodes responses.
        (ListMessagesResponse::NAME, false),
    ] {
        let tables = limits.by_name[name].tables.is_some();
        assert_eq!(tables, is_scanned, "{name}");
    }
}

#[test]
fn rejects_requests_of_unknown_types() {
    // A type of the contract that no method takes or returns.
    let rejected = check(&Message::default());
    assert_eq!(rejected, Err(DecodeRejection::LimitsUnknown));
}

/// A request type that this crate does not contain.
#[derive(Clone, PartialEq, prost::Message)]
struct NewRequest {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Struct>,
    #[prost(message, optional, tag = "2")]
    any_json: Option<Value>,
    #[prost(message, repeated, tag = "3")]
    items: Vec<NewItem>,
    #[prost(map = "string, int64", tag = "4")]
    counts: std::collections::HashMap<String, i64>,
    #[prost(int32, repeated, tag = "5")]
    numbers: Vec<i32>,
    #[prost(int32, repeated, packed = "false", tag = "6")]
    unpacked: Vec<i32>,
    #[prost(message, optional, boxed, tag = "7")]
    child: Option<Box<NewRequest>>,
    #[prost(string, repeated, tag = "8")]
    names: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewItem {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Struct>,
}

impl Name for NewRequest {
    const NAME: &'static str = "NewRequest";
    const PACKAGE: &'static str = "example.v1";
}

/// A field of a descriptor: its type is a scalar's, or the name of a message.
fn field(number: i32, name: &str, label: Label, kind: Result<Type, &str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind.unwrap_or(Type::Message).into()),
        type_name: kind.err().map(str::to_owned),
        ..FieldDescriptorProto::default()
    }
}

/// The descriptors of this contract, and those of a service that takes [`NewRequest`].
fn pool_with_a_new_request() -> DescriptorPool {
    use Label::{Optional, Repeated};

    let json = ".google.protobuf.Struct";
    let item = DescriptorProto {
        name: Some("NewItem".to_owned()),
        field: vec![field(1, "metadata", Optional, Err(json))],
        ..DescriptorProto::default()
    };
    let entry = DescriptorProto {
        name: Some("CountsEntry".to_owned()),
        field: vec![
            field(1, "key", Optional, Ok(Type::String)),
            field(2, "value", Optional, Ok(Type::Int64)),
        ],
        options: Some(prost_types::MessageOptions {
            map_entry: Some(true),
            ..prost_types::MessageOptions::default()
        }),
        ..DescriptorProto::default()
    };
    let request = DescriptorProto {
        name: Some("NewRequest".to_owned()),
        field: vec![
            field(1, "metadata", Optional, Err(json)),
            field(2, "any_json", Optional, Err(".google.protobuf.Value")),
            field(3, "items", Repeated, Err(".example.v1.NewItem")),
            field(
                4,
                "counts",
                Repeated,
                Err(".example.v1.NewRequest.CountsEntry"),
            ),
            field(5, "numbers", Repeated, Ok(Type::Int32)),
            field(6, "unpacked", Repeated, Ok(Type::Int32)),
            field(7, "child", Optional, Err(".example.v1.NewRequest")),
            field(8, "names", Repeated, Ok(Type::String)),
        ],
        nested_type: vec![entry],
        ..DescriptorProto::default()
    };
    let method = MethodDescriptorProto {
        name: Some("Call".to_owned()),
        input_type: Some(".example.v1.NewRequest".to_owned()),
        output_type: Some(".example.v1.NewItem".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("example/v1/new.proto".to_owned()),
        package: Some("example.v1".to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![item, request],
        service: vec![ServiceDescriptorProto {
            name: Some("NewService".to_owned()),
            method: vec![method],
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    };
    let mut pool = POOL.as_ref().unwrap().clone();
    pool.add_file_descriptor_proto(file).unwrap();
    pool
}

fn check_new(request: &NewRequest) -> Result<(), DecodeRejection> {
    let limits = DecodeLimits::of_services(&pool_with_a_new_request()).unwrap();
    limits.check::<NewRequest>(&request.encode_to_vec())
}

#[test]
fn limits_a_new_request_type_automatically() {
    let max = NewMessage::MAX_VALUES_PER_SAVE;
    let request = |items| NewRequest {
        metadata: Some(object(list(items))),
        ..NewRequest::default()
    };
    assert_eq!(check_new(&request(max - 1)), Ok(()));
    let rejected = check_new(&request(max));
    assert_eq!(rejected, too_many("metadata", Counted::Values, max));
    let inside = NewRequest {
        items: vec![
            NewItem::default(),
            NewItem {
                metadata: Some(object(list(max))),
            },
        ],
        ..NewRequest::default()
    };
    let rejected = check_new(&inside);
    assert_eq!(
        rejected,
        too_many("items[1].metadata", Counted::Values, max)
    );
    let any = NewRequest {
        any_json: Some(list(max + 1)),
        ..NewRequest::default()
    };
    assert_eq!(check_new(&any), too_many("any_json", Counted::Values, max));
    let levels = NewRequest {
        metadata: Some(deep(Metadata::MAX_DEPTH + 1)),
        ..NewRequest::default()
    };
    let rejected = check_new(&levels);
    assert_eq!(
        rejected,
        too_deep("metadata", Counted::Values, Metadata::MAX_DEPTH)
    );
}

#[test]
fn limits_every_kind_of_repeated_field() {
    let numbers = |count: usize| (0_i32..).take(count);
    let of = |count: usize| {
        [
            NewRequest {
                items: vec![NewItem::default(); count],
                ..NewRequest::default()
            },
            NewRequest {
                counts: numbers(count).map(|n| (n.to_string(), 1)).collect(),
                ..NewRequest::default()
            },
            NewRequest {
                numbers: numbers(count).map(|n| n * 1_000).collect(),
                ..NewRequest::default()
            },
            NewRequest {
                unpacked: numbers(count).collect(),
                ..NewRequest::default()
            },
            NewRequest {
                names: vec![String::new(); count],
                ..NewRequest::default()
            },
        ]
    };
    for request in of(DEFAULT_MAX_ELEMENTS) {
        assert_eq!(check_new(&request), Ok(()));
    }
    let fields = ["items", "counts", "numbers", "unpacked", "names"];
    for (request, field) in of(DEFAULT_MAX_ELEMENTS + 1).iter().zip(fields) {
        let expected = too_many(field, Counted::Elements, DEFAULT_MAX_ELEMENTS);
        assert_eq!(check_new(request), expected);
    }
}

#[test]
fn limits_recursive_messages() {
    let request = |depth| {
        let mut request = NewRequest::default();
        for _ in 0..depth {
            request = NewRequest {
                child: Some(Box::new(request)),
                ..NewRequest::default()
            };
        }
        request
    };
    let most = request(MAX_MESSAGE_DEPTH);
    assert_eq!(check_new(&most), Ok(()));
    assert!(NewRequest::decode(most.encode_to_vec().as_slice()).is_ok());
    let rejected = check_new(&request(MAX_MESSAGE_DEPTH + 1));
    let field = vec!["child"; MAX_MESSAGE_DEPTH + 1].join(".");
    assert_eq!(
        rejected,
        too_deep(&field, Counted::Elements, MAX_MESSAGE_DEPTH)
    );
}

#[test]
fn every_request_type_of_the_contract_has_limits() {
    let (pool, limits) = (POOL.as_ref().unwrap(), limits());
    for service in pool.services() {
        for method in service.methods() {
            let request = method.input();
            let entry = &limits.by_name[request.name()];
            assert_eq!(entry.package, request.package_name());
        }
    }
}
