use proptest::prelude::*;
use prost_reflect::{DynamicMessage, prost::Message as _};
use serde_json::{Value, json};

use super::*;
use crate::proto::POOL;

fn message(name: &str) -> MessageDescriptor {
    let pool = POOL.as_ref().unwrap();
    pool.get_message_by_name(&format!("conversation_memory.v1.{name}"))
        .unwrap()
}

fn read(name: &str, json: &str) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder::new(1 << 20);
    match encoder.message(&message(name), json.as_bytes()) {
        Ok(()) => Ok(encoder.finish()),
        Err(Refusal::Field(error)) => Err(format!("{} {}", error.path, error.reason)),
        Err(Refusal::TooLarge) => Err("too large".to_owned()),
    }
}

fn written(name: &str, wire: &[u8]) -> Value {
    let mut out = Vec::new();
    write(&message(name), wire, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// What another implementation reads.
fn oracle(name: &str, json: &str) -> Result<DynamicMessage, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = DynamicMessage::deserialize(message(name), &mut deserializer)?;
    Ok(decoded(name, &read.encode_to_vec()))
}

/// A message as it is on the wire: to that implementation, a field that is set to
/// its default value is not one that is not set.
fn decoded(name: &str, wire: &[u8]) -> DynamicMessage {
    let decode = |wire: &[u8]| DynamicMessage::decode(message(name), wire).unwrap();
    decode(&decode(wire).encode_to_vec())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn any_message()(
        content in ".{0,200}",
        role in 0..7i32,
        tokens in any::<Option<i32>>(),
        seq in any::<i64>(),
        seq_is_text in any::<bool>(),
        score in any::<f64>(),
        seconds in -62_135_596_800..253_402_300_799i64,
        nanos in 0..1_000_000_000u32,
        metadata in prop::collection::btree_map(".{0,4}", any_json(), 0..5),
        contexts in 0..3usize,
    ) -> Value {
        let time = chrono::DateTime::from_timestamp(seconds, nanos).unwrap();
        let roles = ["ROLE_UNSPECIFIED", "ROLE_USER", "ROLE_ASSISTANT", "ROLE_SYSTEM", "ROLE_TOOL"];
        let role = usize::try_from(role).ok().and_then(|at| roles.get(at)).map_or(json!(role), |name| json!(name));
        json!({
            "content": content,
            "role": role,
            "tokensUsed": tokens,
            "seq": if seq_is_text { json!(seq.to_string()) } else { json!(seq) },
            "created_at": time.to_rfc3339(),
            "metadata": metadata,
            "contexts": vec![json!({ "docId": content, "score": score }); contexts],
        })
    }
}

proptest! {
    #[test]
    fn another_implementation_reads_and_writes_the_same(
        messages in prop::collection::vec(any_message(), 0..4),
        expected in any::<Option<i64>>(),
    ) {
        let request = json!({ "messages": messages, "expectedLastSeq": expected }).to_string();
        let wire = read("SaveMessagesRequest", &request).unwrap();
        let theirs = oracle("SaveMessagesRequest", &request).unwrap();
        prop_assert!(decoded("SaveMessagesRequest", &wire) == theirs);
        // As the services encode it.
        let ours = written("SaveMessagesRequest", &theirs.encode_to_vec());
        let again = oracle("SaveMessagesRequest", &ours.to_string()).unwrap();
        prop_assert!(again == theirs);
    }

    #[test]
    fn no_text_and_no_bytes_do_harm(text in ".{0,64}", wire in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read("SaveMessagesRequest", &text);
        let _ = write(&message("SaveMessagesRequest"), &wire, &mut Vec::new());
    }
}

#[test]
fn refusals_name_the_field_and_not_the_value() {
    for (json, refused) in [
        (
            r#"{"messages":[{},{"content":5}]}"#,
            "messages[1].content must be a string",
        ),
        (
            r#"{"messages":[{"role":"KING"}]}"#,
            "messages[0].role is no known Role",
        ),
        (
            r#"{"messages":[{"role":true}]}"#,
            "messages[0].role is no known Role",
        ),
        (r#"{"messages":{}}"#, "messages must be a list"),
        (r#"{"messages":"secret"}"#, "messages must be a list"),
        (r#"{"messages":[null]}"#, "messages[0] must be an object"),
        (
            r#"{"messages":["secret"]}"#,
            "messages[0] must be an object",
        ),
        (
            r#"{"messages":[{"tokensUsed":"secret"}]}"#,
            "messages[0].tokens_used must be a whole number",
        ),
        (
            r#"{"messages":[{"tokensUsed":1.5}]}"#,
            "messages[0].tokens_used must be a whole number",
        ),
        (
            r#"{"messages":[{"tokensUsed":3000000000}]}"#,
            "messages[0].tokens_used must be a number of 32 bits",
        ),
        (
            r#"{"expectedLastSeq":"9223372036854775808"}"#,
            "expected_last_seq must be a number of 64 bits",
        ),
        (
            r#"{"messages":[{"createdAt":"secret"}]}"#,
            "messages[0].created_at must be a time as in RFC 3339",
        ),
        (
            r#"{"messages":[{"metadata":["secret"]}]}"#,
            "messages[0].metadata must be an object",
        ),
        (
            r#"{"messages":[{"contexts":[{"score":"inf"}]}]}"#,
            "messages[0].contexts[0].score must be a number",
        ),
        (r#"{"what":1}"#, "what is no field of SaveMessagesRequest"),
        (
            r#"{"request_id":"a","requestId":"b"}"#,
            "request_id is given twice",
        ),
        (r"[]", "body must be an object"),
        (r"null", "body must be an object"),
        (r#""secret""#, "body must be an object"),
        (
            r#"{"messages":[{"content":"secret"#,
            "messages[0].content is not valid JSON: EOF while parsing a string at line 1 column 31",
        ),
        (
            r"{} {}",
            "body is not valid JSON: trailing characters at line 1 column 4",
        ),
        (
            r#"{"messages":[{"content":"\ud800"}]}"#,
            "messages[0].content is not valid JSON: unexpected end of hex escape at line 1 column 32",
        ),
    ] {
        assert_eq!(
            read("SaveMessagesRequest", json),
            Err(refused.to_owned()),
            "{json}"
        );
    }
    let deep = format!(r#"{{"metadata":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let refused = read("CreateConversationRequest", &deep).unwrap_err();
    assert!(refused.starts_with("metadata "), "{refused}");
}

#[test]
fn numbers_and_nulls_are_read_as_proto3_has_them() {
    for json in [
        r#"{"expectedLastSeq":7}"#,
        r#"{"expectedLastSeq":"7"}"#,
        r#"{"expectedLastSeq":7.0}"#,
        r#"{"expectedLastSeq":"7e0"}"#,
        r#"{"expected_last_seq":7,"messages":null,"requestId":null}"#,
    ] {
        let wire = read("SaveMessagesRequest", json).unwrap();
        let request = crate::proto::SaveMessagesRequest::decode(wire.as_slice()).unwrap();
        assert_eq!(request.expected_last_seq, Some(7), "{json}");
    }
    let wire = read(
        "UpdateConversationRequest",
        r#"{"updateMask":"title,fooBar"}"#,
    )
    .unwrap();
    let request = crate::proto::UpdateConversationRequest::decode(wire.as_slice()).unwrap();
    assert_eq!(request.update_mask.unwrap().paths, ["title", "foo_bar"]);
}

#[test]
fn what_is_written_is_bounded() {
    let json = format!(r#"{{"metadata":{{"a":[{}0]}}}}"#, "0,".repeat(200_000));
    let refused = read("CreateConversationRequest", &json).unwrap_err();
    assert_eq!(refused, "too large");
}

#[test]
fn lengths_of_all_sizes_are_right() {
    for size in [0, 100, 120, 127, 128, 16_383, 16_384, 200_000] {
        let content = "x".repeat(size);
        let json = json!({ "messages": [{ "content": content }, {}] }).to_string();
        let wire = read("SaveMessagesRequest", &json).unwrap();
        let request = crate::proto::SaveMessagesRequest::decode(wire.as_slice()).unwrap();
        assert_eq!(request.messages[0].content, content);
        assert_eq!(request.messages.len(), 2);
    }
}
