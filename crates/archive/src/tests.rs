use chrono::DateTime;
use serde_json::{Value, json};

use super::*;
use domain::{
    Content, ConversationId, Limits, MessageId, Metadata, RetrievedContext, Role, Title, UserId,
};

fn metadata(value: Value) -> Metadata {
    let Value::Object(object) = value else {
        panic!("metadata is an object");
    };
    Metadata::parse(object, 1 << 20).unwrap()
}

fn content(text: &str) -> Content {
    Content::parse(text.to_owned(), &Limits::default()).unwrap()
}

fn conversation() -> Conversation {
    let at = DateTime::from_timestamp_micros(1_800_000_000_000_001).unwrap();
    Conversation {
        id: ConversationId::from_uuid(uuid::Uuid::from_u128(1)),
        user_id: UserId::parse("ana").unwrap(),
        dept_id: None,
        title: Some(Title::parse("Vacation").unwrap()),
        last_seq: 2,
        created_at: at,
        updated_at: at,
        metadata: None,
        parent_id: None,
        branched_at_seq: None,
        compacted_upto_seq: 0,
        uncompacted_tokens: 0,
    }
}

fn message(seq: i64, text: &str) -> Message {
    Message {
        id: MessageId::from_uuid(uuid::Uuid::from_u128(seq.cast_unsigned().into())),
        conversation_id: conversation().id,
        seq,
        role: Role::User,
        name: None,
        content: content(text),
        parts: Vec::new(),
        token_count: None,
        pinned: false,
        redacted: false,
        tokens_used: None,
        latency_ms: None,
        created_at: conversation().created_at,
        metadata: None,
        contexts: Vec::new(),
    }
}

fn file(format: Format, messages: &[Message]) -> String {
    let (mut writer, mut file) = ArchiveWriter::begin(format, &conversation());
    for message in messages {
        file.extend(writer.add(std::slice::from_ref(message)));
    }
    file.extend(writer.end());
    String::from_utf8(file).unwrap()
}

fn full() -> Message {
    Message {
        role: Role::Assistant,
        tokens_used: Some(3),
        latency_ms: Some(0),
        metadata: Some(metadata(json!({"tool": {"n": 1.5}}))),
        contexts: vec![RetrievedContext {
            doc_id: "hr.pdf".to_owned(),
            content: content("25 days"),
            score: Some(0.5),
            metadata: None,
        }],
        ..message(2, "25 days.\n\"Really\"")
    }
}

#[test]
fn json_is_one_object() {
    let file = file(Format::Json, &[message(1, "How many?"), full()]);
    let read: Value = serde_json::from_str(&file).unwrap();
    assert_eq!(read["format"], "conversation-memory");
    assert_eq!(read["version"], 1);
    assert_eq!(read["conversation"]["title"], "Vacation");
    assert_eq!(
        read["conversation"]["created_at"],
        "2027-01-15T08:00:00.000001Z"
    );
    assert_eq!(
        read["messages"],
        json!([
            {
                "seq": 1, "id": "00000000-0000-0000-0000-000000000001", "role": "user",
                "content": "How many?", "created_at": "2027-01-15T08:00:00.000001Z",
            },
            {
                "seq": 2, "id": "00000000-0000-0000-0000-000000000002", "role": "assistant",
                "content": "25 days.\n\"Really\"", "tokens_used": 3, "latency_ms": 0,
                "created_at": "2027-01-15T08:00:00.000001Z", "metadata": {"tool": {"n": 1.5}},
                "contexts": [{"doc_id": "hr.pdf", "content": "25 days", "score": 0.5}],
            },
        ])
    );
    let none = self::file(Format::Json, &[]);
    let none: Value = serde_json::from_str(&none).unwrap();
    assert_eq!(none["messages"], json!([]));
}

#[test]
fn json_lines_are_the_same_objects() {
    let messages = [message(1, "How\nmany?"), full()];
    let lines = file(Format::JsonLines, &messages);
    let document: Value = serde_json::from_str(&file(Format::Json, &messages)).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["conversation"], document["conversation"]);
    assert_eq!(lines[1..], *document["messages"].as_array().unwrap());
}

#[test]
fn csv_escapes_formulas() {
    let messages = [
        message(1, "=HYPERLINK(\"http://x\",\"y\")"),
        message(2, "-1, \"two\"\r\nthree"),
        message(3, "\ttab"),
        message(4, "plain = text"),
    ];
    let table = file(Format::Csv, &messages);
    assert!(table.starts_with(
        "seq,id,role,content,tokens_used,latency_ms,created_at,metadata,contexts\r\n"
    ));
    assert!(table.contains(",user,\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",,,"));
    assert!(table.contains(",user,\"'-1, \"\"two\"\"\r\nthree\",,,"));
    assert!(table.contains(",user,'\ttab,,,"));
    assert!(table.contains(",user,plain = text,,,"));
    let full = file(Format::Csv, &[full()]);
    let mut rows = ::csv::Reader::from_reader(full.as_bytes());
    let row = rows.records().next().unwrap().unwrap();
    assert_eq!(&row[3], "25 days.\n\"Really\"");
    assert_eq!(&row[7], "{\"tool\":{\"n\":1.5}}");
    assert_eq!(
        &row[8],
        "[{\"doc_id\":\"hr.pdf\",\"content\":\"25 days\",\"score\":0.5}]"
    );
}
