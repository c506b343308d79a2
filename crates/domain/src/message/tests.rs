use std::cell::Cell;

use serde_json::json;

use super::*;

fn metadata(value: &serde_json::Value) -> Metadata {
    Metadata::from_json(&value.to_string(), 1 << 20).unwrap()
}

fn validate(raw: RawMessage, contexts: Vec<RawContext>) -> Result<NewMessage, String> {
    let contexts = contexts.into_iter().map(Ok);
    let generate_id = || MessageId::from_uuid(uuid::Uuid::nil());
    NewMessage::new(raw, contexts, generate_id, &Limits::default())
        .map_err(|error| error.to_string())
}

fn error_of(raw: RawMessage, contexts: Vec<RawContext>) -> String {
    validate(raw, contexts).unwrap_err()
}

fn hello() -> RawMessage {
    RawMessage::text(Role::User, "Hello")
}

#[test]
fn requires_content_or_metadata() {
    let with = |metadata: Option<Metadata>| RawMessage {
        metadata,
        ..RawMessage::text(Role::Tool, "")
    };
    for missing in [None, Some(metadata(&json!({})))] {
        assert_eq!(
            error_of(with(missing), Vec::new()),
            "content is required where there are no parts and no metadata"
        );
    }
    let valid = validate(with(Some(metadata(&json!({"a": null})))), Vec::new());
    assert!(valid.unwrap().content.as_str().is_empty());
}

#[test]
fn only_messages_that_can_stand_alone_can_be_pinned() {
    let reasoning = || RawPart::Reasoning {
        content: "Hm.".to_owned(),
    };
    let call = RawPart::ToolCall {
        id: "1".to_owned(),
        name: "look_up".to_owned(),
        arguments: String::new(),
    };
    let pinned = |role, content: &str, parts: Vec<RawPart>| RawMessage {
        pinned: true,
        parts,
        ..RawMessage::text(role, content)
    };
    for raw in [
        pinned(Role::Tool, "sunny", Vec::new()),
        pinned(Role::Assistant, "Wait.", vec![call]),
        pinned(Role::Assistant, "", vec![reasoning()]),
    ] {
        assert_eq!(
            error_of(raw, Vec::new()),
            "pinned must not be set on tool calls, their results, or reasoning alone"
        );
    }
    for raw in [
        pinned(Role::System, "Be brief.", Vec::new()),
        pinned(Role::Assistant, "Sunny.", vec![reasoning()]),
    ] {
        assert!(validate(raw, Vec::new()).unwrap().pinned);
    }
}

#[test]
fn rejects_negative_counts() {
    let tokens_used = RawMessage {
        tokens_used: Some(-1),
        ..hello()
    };
    assert_eq!(
        error_of(tokens_used, Vec::new()),
        "tokens_used must not be negative"
    );
    let latency_ms = RawMessage {
        tokens_used: Some(0),
        latency_ms: Some(-1),
        ..hello()
    };
    assert_eq!(
        error_of(latency_ms, Vec::new()),
        "latency_ms must not be negative"
    );
}

#[test]
fn errors_of_contexts_have_their_path() {
    let second = |context: RawContext| vec![RawContext::default(), context];
    for (context, error) in [
        (
            RawContext {
                score: Some(f64::NAN),
                ..RawContext::default()
            },
            "contexts[1].score must be finite",
        ),
        (
            RawContext {
                doc_id: "d".repeat(513),
                ..RawContext::default()
            },
            "contexts[1].doc_id must have at most 512 characters",
        ),
        (
            RawContext {
                content: "\0".to_owned(),
                ..RawContext::default()
            },
            "contexts[1].content must not contain U+0000",
        ),
    ] {
        assert_eq!(error_of(hello(), second(context)), error);
    }
    let many = (0..=100).map(|_| RawContext::default()).collect();
    assert_eq!(
        error_of(hello(), many),
        "contexts must have at most 100 contexts"
    );
}

#[test]
fn stops_at_the_first_context_with_too_many_values() {
    let decoded = Cell::new(0);
    let contexts = (0..100_u8).map(|_| {
        decoded.set(decoded.get() + 1);
        Ok(RawContext {
            metadata: Some(metadata(&json!({"a": vec![0; 50_000]}))),
            ..RawContext::default()
        })
    });
    let generate_id = || MessageId::from_uuid(uuid::Uuid::nil());
    let error = NewMessage::new(hello(), contexts, generate_id, &Limits::default());
    assert_eq!(decoded.get(), 6);
    assert_eq!(
        error.unwrap_err().to_string(),
        "contexts must have at most 300000 values in metadata"
    );
}

#[test]
fn a_save_has_1_to_100_messages_of_different_ids() {
    let batch = |messages: Vec<NewMessage>| {
        NewMessage::batch(messages.into_iter().map(Ok)).map_err(|error| error.to_string())
    };
    let message = |id: u128| NewMessage {
        id: MessageId::from_uuid(uuid::Uuid::from_u128(id)),
        ..validate(hello(), Vec::new()).unwrap()
    };
    assert_eq!(
        batch(Vec::new()).unwrap_err(),
        " must have 1 to 100 messages"
    );
    assert!(batch((0..100).map(message).collect()).is_ok());
    assert!(batch((0..=100).map(message).collect()).is_err());
    assert_eq!(
        batch(vec![message(1), message(2), message(1)]).unwrap_err(),
        "[2].id is the id of an earlier message of this request"
    );
}
