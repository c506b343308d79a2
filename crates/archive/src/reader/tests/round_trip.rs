use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::Value;

use super::{super::*, MAX, read_in};
use crate::ArchiveWriter;
use domain::{
    Content, Conversation, ConversationId, DeptId, Message, Metadata, NewMessage, RawMessage,
    RawPart, RetrievedContext, Role, Title, UserId,
};

fn any_metadata() -> impl Strategy<Value = Option<Metadata>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(|n| Metadata::number(n).map_or(Value::Null, Value::Number)),
        "[^\0]{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[^\0]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let object = prop::collection::btree_map("[^\0]{0,4}", value, 0..4);
    prop::option::of(
        object.prop_map(|map| Metadata::parse(map.into_iter().collect(), MAX).unwrap()),
    )
}

fn any_time() -> impl Strategy<Value = DateTime<Utc>> {
    (-62_135_596_800_000_000..253_402_300_800_000_000_i64)
        .prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap())
}

prop_compose! {
    fn any_context()(
        doc_id in "[^\0]{0,8}", content in "[^\0]{0,8}",
        score in prop::option::of(any::<f64>().prop_filter("finite", |n| n.is_finite())),
        metadata in any_metadata(),
    ) -> RetrievedContext {
        let content = Content::parse(content, &Limits::default()).unwrap();
        RetrievedContext { doc_id, content, score, metadata }
    }
}

/// Parts other than texts, which are part of the content.
fn any_part() -> impl Strategy<Value = RawPart> {
    let text = || "[^\0]{1,6}";
    prop_oneof![
        text().prop_map(|content| RawPart::Reasoning { content }),
        (text(), text(), "[^\0]{0,6}").prop_map(|(id, name, arguments)| RawPart::ToolCall {
            id,
            name,
            arguments,
        }),
        prop::collection::vec(any::<u8>(), 1..9).prop_map(|data| RawPart::Blob {
            mime_type: "image/png".to_owned(),
            modality: "image".to_owned(),
            bytes: data.len(),
            data: Some(data.into()),
        }),
        text().prop_map(|uri| RawPart::Uri {
            mime_type: String::new(),
            modality: String::new(),
            uri,
        }),
        text().prop_map(|file_id| RawPart::File {
            mime_type: "application/pdf".to_owned(),
            modality: String::new(),
            file_id,
        }),
        (text(), "[^\0]{0,6}")
            .prop_map(|(generic_type, json)| RawPart::Generic { generic_type, json }),
    ]
}

fn is_valid_for(part: &RawPart, role: Role) -> bool {
    !matches!(part, RawPart::ToolCall { .. }) || role == Role::Assistant
}

prop_compose! {
    fn any_additions()(
        name in "[^\0]{0,6}", parts in prop::collection::vec(any_part(), 0..4),
        token_count in prop::option::of(0..i32::MAX), pinned in any::<bool>(),
    ) -> (String, Vec<RawPart>, Option<i32>, bool, bool) {
        let pinned = pinned && !parts.iter().any(|part| matches!(part, RawPart::ToolCall { .. }));
        (name, parts, token_count, pinned, false)
    }
}

prop_compose! {
    fn any_message()(
        step in 1..3_i64, role in 0..4_usize, content in "[^\0]{1,12}",
        tokens_used in prop::option::of(0..i32::MAX), latency_ms in prop::option::of(0..i32::MAX),
        created_at in any_time(), metadata in any_metadata(),
        contexts in prop::collection::vec(any_context(), 0..3),
        (name, parts, token_count, pinned, redacted) in any_additions(),
    ) -> Message {
        let role = [Role::User, Role::Assistant, Role::System, Role::Tool][role];
        let mut parts: Vec<_> =
            parts.into_iter().filter(|part| is_valid_for(part, role)).collect();
        if role == Role::Tool {
            parts.push(RawPart::ToolCallResponse { id: "1".to_owned(), response: content.clone() });
        }
        let pinned = pinned && role != Role::Tool;
        let raw = RawMessage { name, parts, ..RawMessage::text(role, content) };
        let id = || MessageId::from_uuid(Uuid::from_u128(7));
        let new = NewMessage::new(raw, std::iter::empty(), id, &Limits::default()).unwrap();
        Message {
            name: new.name, content: new.content, parts: new.parts, token_count, pinned, redacted,
            id: MessageId::from_uuid(Uuid::from_u128(7)),
            conversation_id: ConversationId::from_uuid(Uuid::nil()),
            // The distance to the previous number, which is not known yet.
            seq: step,
            role,
            tokens_used, latency_ms, created_at, metadata, contexts,
        }
    }
}

prop_compose! {
    fn any_conversation()(
        mut messages in prop::collection::vec(any_message(), 0..6), beyond in 0..3_i64,
        dept_id in prop::option::of("[^\0]{1,8}"), title in prop::option::of("[^\0]{1,8}"),
        created_at in any_time(), updated_at in any_time(), metadata in any_metadata(),
    ) -> (Conversation, Vec<Message>) {
        let mut last_seq = 0;
        for message in &mut messages {
            last_seq += message.seq;
            message.seq = last_seq;
        }
        let conversation = Conversation {
            id: ConversationId::from_uuid(Uuid::nil()),
            user_id: UserId::parse("ana").unwrap(),
            dept_id: dept_id.map(|text| DeptId::parse(text).unwrap()),
            title: title.map(|text| Title::parse(text).unwrap()),
            last_seq: last_seq + beyond,
            created_at, updated_at, metadata,
            parent_id: None, branched_at_seq: None,
            compacted_upto_seq: 0, uncompacted_tokens: 0,
        };
        (conversation, messages)
    }
}

fn write(format: Format, conversation: &Conversation, messages: &[Message]) -> Vec<u8> {
    let (mut writer, mut file) = ArchiveWriter::begin(format, conversation);
    file.extend(writer.add(messages));
    file.extend(writer.end());
    file
}

proptest! {
    /// A file that was written is read back unchanged, in pieces of any size, and writing
    /// it again yields the same bytes.
    #[test]
    fn reading_restores_what_was_written(
        (conversation, messages) in any_conversation(), piece in 1..40_usize,
        format in prop_oneof![Just(Format::Json), Just(Format::JsonLines)],
    ) {
        let file = write(format, &conversation, &messages);
        let read = read_in(format, &file, piece);
        prop_assert_eq!(&read_in(None, &file, piece), &read);
        let (mut items, last_seq) = read.unwrap();
        let Record::Conversation(header) = items.remove(0) else {
            panic!("the first record is the conversation");
        };
        let read = Conversation {
            dept_id: header.dept_id,
            title: header.title,
            created_at: header.created_at.unwrap(),
            updated_at: header.updated_at.unwrap(),
            metadata: header.metadata,
            last_seq,
            ..conversation.clone()
        };
        let numbered = items.into_iter().map(|item| match item {
            Record::Message(numbered) => *numbered,
            Record::Conversation(_) => panic!("only the first record is a conversation"),
        });
        let stored: Vec<Message> = numbered
            .map(|NumberedMessage { seq, message }| {
                let (contexts, parts) = (message.contexts.clone(), message.parts.clone());
                let stored = message.into_stored(conversation.id, seq, DateTime::UNIX_EPOCH);
                Message {
                    contexts,
                    parts,
                    ..stored
                }
            })
            .collect();
        prop_assert_eq!(&stored, &messages);
        let again = write(format, &read, &stored);
        prop_assert_eq!(String::from_utf8(again), String::from_utf8(file));
    }

    /// A damaged document is accepted only if it is still valid JSON, and the reader does
    /// not panic.
    #[test]
    fn accepts_a_damaged_document_only_if_it_is_json(
        (conversation, messages) in any_conversation(), at in any::<prop::sample::Index>(),
        with in prop::sample::select(b"{}[],:\"\\ 1\n".to_vec()), insert in any::<bool>(),
    ) {
        let mut file = write(Format::Json, &conversation, &messages);
        let at = at.index(file.len());
        if insert { file.insert(at, with) } else { file[at] = with }
        let is_json = serde_json::from_slice::<Value>(&file).is_ok();
        if read_in(Format::Json, &file, MAX).is_ok() {
            prop_assert!(is_json, "{}", String::from_utf8_lossy(&file));
        }
    }
}
