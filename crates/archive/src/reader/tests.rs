mod round_trip;

use serde_json::{Value, json};

use super::*;
use domain::UserId;

const MAX: usize = 1 << 20;

fn reader(format: impl Into<Option<Format>>, max_message_bytes: usize) -> ArchiveReader {
    let generate_id = Box::new(|| Uuid::from_u128(7));
    ArchiveReader::new(
        format.into(),
        Limits::default(),
        max_message_bytes,
        generate_id,
    )
    .unwrap()
}

/// Reads a file in pieces of `piece` bytes: its records, and the last number.
fn read_in(
    format: impl Into<Option<Format>>,
    file: &[u8],
    piece: usize,
) -> Result<(Vec<Record>, i64), LineError> {
    let mut reader = reader(format, MAX);
    let mut items = Vec::new();
    for piece in file.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(item) = reader.read_next()? {
            items.push(item);
        }
    }
    items.extend(reader.end()?);
    Ok((items, reader.last_seq()))
}

fn read(format: Format, file: &str) -> Result<(Vec<Record>, i64), LineError> {
    let whole = read_in(format, file.as_bytes(), MAX);
    assert_eq!(read_in(format, file.as_bytes(), 1), whole);
    whole
}

/// Reads an invalid file, and returns the error's line, path and reason.
fn error_of(format: Format, file: &str) -> String {
    let LineError { line, error } = read(format, file).unwrap_err();
    format!("{line} {}: {}", error.path, error.reason)
}

fn lines(messages: &[Value]) -> String {
    let header = json!({"format": FORMAT_NAME, "version": 1, "conversation": {"user_id": "ana"}});
    let lines = std::iter::once(&header).chain(messages);
    lines.map(|line| line.to_string() + "\n").collect()
}

fn document(messages: &[Value]) -> String {
    let file = json!({
        "conversation": {"user_id": "ana"}, "format": FORMAT_NAME, "messages": messages, "version": 1,
    });
    serde_json::to_string_pretty(&file).unwrap()
}

fn messages(items: &[Record]) -> Vec<&NumberedMessage> {
    let messages = items.iter().filter_map(|item| match item {
        Record::Message(message) => Some(&**message),
        Record::Conversation(_) => None,
    });
    messages.collect()
}

#[test]
fn omitted_members_get_defaults() {
    let sent = [
        json!({"role": "user", "content": "How many?"}),
        json!({"seq": 5, "role": "assistant", "content": "25", "tokens_used": null}),
        json!({"role": "tool", "content": "", "metadata": {"n": 1.0}}),
    ];
    for file in [lines(&sent), document(&sent)] {
        let format = if file.contains("messages") {
            Format::Json
        } else {
            Format::JsonLines
        };
        let (items, last_seq) = read(format, &file).unwrap();
        let messages = messages(&items);
        assert_eq!(
            messages.iter().map(|m| m.seq).collect::<Vec<_>>(),
            [1, 5, 6]
        );
        assert_eq!(last_seq, 6);
        assert_eq!(messages[0].message.created_at, None);
        let metadata = messages[2].message.metadata.as_ref().unwrap();
        assert_eq!(metadata.to_json(), "{\"n\":1}");
        let Record::Conversation(header) = &items[0] else {
            panic!("the first record is the conversation");
        };
        assert_eq!(header.user_id, UserId::parse("ana").ok());
    }
}

#[test]
fn accepts_all_line_breaks_and_blank_lines() {
    let file = lines(&[json!({"role": "user", "content": "a\nb"})]);
    let wanted = read(Format::JsonLines, &file).unwrap();
    let variants = [
        file.trim_end().to_owned(),
        file.replace('\n', "\r\n"),
        file.replace('\n', "\n\n  \n"),
    ];
    for variant in variants {
        assert_eq!(read(Format::JsonLines, &variant).unwrap(), wanted);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn errors_name_line_and_member_and_repeat_no_value() {
    let line = |message: Value| {
        error_of(
            Format::JsonLines,
            &lines(&[json!({"role": "user", "content": "a"}), message]),
        )
    };
    let full = |member: &str, value: Value| {
        let mut message = json!({"role": "user", "content": "secret"});
        message[member] = value;
        line(message)
    };
    for (given, wanted) in [
        (
            line(json!({"role": "user"})),
            "3 content: is required".to_owned(),
        ),
        (line(json!(["secret"])), "3 : must be an object".to_owned()),
        (
            full("role", json!("bot")),
            "3 role: must be user, assistant, system or tool".to_owned(),
        ),
        (
            full("redacted", json!(true)),
            "3 redacted: must not be set where there is content, parts, name, metadata or contexts"
                .to_owned(),
        ),
        (
            full("content", json!(7)),
            "3 content: must be a string".to_owned(),
        ),
        (
            full("content", json!("a\0b")),
            "3 content: must not contain U+0000".to_owned(),
        ),
        (
            full("content", json!("")),
            "3 content: is required where there are no parts and no metadata".to_owned(),
        ),
        (
            full("seq", json!(1)),
            "3 seq: must be higher than the previous one".to_owned(),
        ),
        (
            full("seq", json!(1.5)),
            "3 seq: must be a 64-bit integer".to_owned(),
        ),
        (
            full("tokens_used", json!(-1)),
            "3 tokens_used: must not be negative".to_owned(),
        ),
        (
            full("latency_ms", json!(1_u64 << 40)),
            "3 latency_ms: must be a 32-bit integer".to_owned(),
        ),
        (
            full("id", json!("secret")),
            "3 id: must be a UUID such as 0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f".to_owned(),
        ),
        (
            full("metadata", json!([1])),
            "3 metadata: must be an object".to_owned(),
        ),
        (
            full("metadata", json!({"a": ["b\0"]})),
            "3 metadata: must not contain U+0000".to_owned(),
        ),
        (
            full("secret", json!("secret")),
            format!("3 : {UNKNOWN_MEMBER}"),
        ),
        (
            full(
                "contexts",
                json!([{"doc_id": "", "content": ""}, {"doc_id": ""}]),
            ),
            "3 contexts[1].content: is required".to_owned(),
        ),
        (
            full(
                "contexts",
                json!([{"doc_id": "", "content": "", "score": "secret"}]),
            ),
            "3 contexts[0].score: must be a number".to_owned(),
        ),
        (
            full(
                "contexts",
                json!([{"doc_id": "d".repeat(513), "content": ""}]),
            ),
            "3 contexts[0].doc_id: must have at most 512 characters".to_owned(),
        ),
        (
            full(
                "contexts",
                Value::Array(vec![json!({"doc_id": "", "content": ""}); 300]),
            ),
            "3 contexts: must have at most 100 contexts".to_owned(),
        ),
        (
            full("contexts", json!("secret")),
            "3 contexts: must be a list of objects".to_owned(),
        ),
        (
            full("created_at", json!("yesterday")),
            "3 created_at: must be a time in RFC 3339 format".to_owned(),
        ),
        (
            full("created_at", json!("0000-01-01T00:00:00Z")),
            "3 created_at: must be a time of the years 1 to 9999".to_owned(),
        ),
        (
            full("content", json!("x".repeat(MAX + 1))),
            format!(
                "3 content: must have at most {MAX} bytes: split the text, or raise MAX_CONTENT_BYTES"
            ),
        ),
    ] {
        assert_eq!(given, wanted);
        assert!(!given.contains("secret"), "{given}");
    }
    let large = "{\"role\":\"user\",\"content\":\"\",\"contexts\":[{\"score\":1e999}]}\n";
    let large = error_of(Format::JsonLines, &(lines(&[]) + large));
    assert_eq!(large, "2 contexts[0].score: must be a finite number");
    let half = "{\"role\":\"user\",\"content\":\"\",\"metadata\":{\"a\":\"\\ud800\"}}\n";
    let half = error_of(Format::JsonLines, &(lines(&[]) + half));
    assert_eq!(
        half,
        "2 metadata: must have text of Unicode characters only"
    );
    let quoting = full("seq", json!("missing field `x`"));
    assert_eq!(quoting, "3 seq: must be a 64-bit integer");
    let twice = "{\"role\":\"user\",\"role\":\"user\",\"content\":\"\"}\n";
    let twice = error_of(Format::JsonLines, &(lines(&[]) + twice));
    assert_eq!(twice, "2 role: is given twice");
}

#[test]
fn rejects_files_of_other_formats() {
    let of = |header: Value| error_of(Format::JsonLines, &header.to_string());
    let conversation = json!({"user_id": "ana"});
    for (given, wanted) in [
        (
            of(json!({"format": "other", "version": 1, "conversation": conversation})),
            "1 format: must be \"conversation-memory\"",
        ),
        (
            of(json!({"format": FORMAT_NAME, "version": 2, "conversation": conversation})),
            "1 version: must be 1: other versions are not supported",
        ),
        (
            of(json!({"format": FORMAT_NAME, "version": 1})),
            "1 conversation: is required",
        ),
        (
            of(json!({"format": FORMAT_NAME, "version": 1, "conversation": {"user_id": ""}})),
            "1 conversation.user_id: is required",
        ),
        (
            of(json!({"format": FORMAT_NAME, "version": 1, "conversation": {"last_seq": -1}})),
            "1 conversation.last_seq: must be 0 to 4503599627370496",
        ),
        (
            error_of(Format::JsonLines, ""),
            "1 conversation: is required",
        ),
        (
            error_of(Format::JsonLines, "{\"format\":\nsecret"),
            "1 : is not valid JSON",
        ),
        (
            error_of(Format::Json, ""),
            "1 : is incomplete: the file ends within the document",
        ),
        (error_of(Format::Json, "[]"), "1 : is not valid JSON"),
        (error_of(Format::Json, "{}"), "1 conversation: is required"),
        (error_of(Format::Json, "{}\n{}"), "2 : is not valid JSON"),
        (
            error_of(Format::Json, "{\"messages\": [\n1]}"),
            "2 messages: must come after conversation",
        ),
        (
            error_of(Format::Json, "{\"messages\": {}}"),
            "1 messages: must be a list",
        ),
        (
            error_of(Format::Json, "{\"secret\": {}}"),
            "1 : has a member that the format does not have",
        ),
        (
            error_of(Format::Json, "{\"messages\": [],\n\"messages\": []}"),
            "2 : has a second list of messages",
        ),
        (
            error_of(Format::Json, "{\"version\": 1,\n\"version\": 1}"),
            "2 version: is given twice",
        ),
    ] {
        assert_eq!(given, wanted);
    }
    let short = json!({"format": FORMAT_NAME, "version": 1, "conversation": {"last_seq": 1}});
    let message = json!({"role": "user", "content": "a"});
    let beyond = error_of(Format::JsonLines, &format!("{short}\n{message}\n{message}"));
    assert_eq!(beyond, "3 seq: must be at most the conversation's last_seq");
    // Within a document the line is that of the file, too.
    let file = document(&[
        json!({"role": "user", "content": "a"}),
        json!({"content": 1}),
    ]);
    assert_eq!(
        error_of(Format::Json, &file),
        "11 content: must be a string"
    );
}

#[test]
fn bounds_the_size_of_lines_and_messages() {
    let endless = lines(&[json!({"role": "user", "content": "x".repeat(MAX * 7)})]);
    let error = error_of(Format::JsonLines, &endless);
    let advice = "split the message, or raise MAX_REQUEST_BYTES";
    assert_eq!(
        error,
        format!("2 : must have at most {} bytes: {advice}", MAX * 6)
    );
    let texts = json!({
        "role": "user", "content": "x".repeat(60),
        "contexts": [{"doc_id": "", "content": "x".repeat(41)}],
    });
    let mut reader = reader(Format::JsonLines, 100);
    reader.push(Bytes::from(lines(&[texts])));
    assert!(reader.read_next().unwrap().is_some());
    let error = reader.read_next().unwrap_err();
    let reason = format!("has a message of more than 100 bytes: {advice}");
    assert_eq!((error.line, error.error.reason.to_string()), (2, reason));
}

#[test]
fn bounds_elements_before_the_conversation() {
    let name = format!("{{\"{}", "x".repeat(1 << 10));
    assert_eq!(
        error_of(Format::Json, &name),
        format!("1 : {UNKNOWN_MEMBER}")
    );
    let value = format!("{{\"other\":\"{}", "x".repeat(1 << 20));
    assert!(error_of(Format::Json, &value).starts_with("1 : must have at most"));
    let line = "x".repeat(1 << 20);
    assert!(error_of(Format::JsonLines, &line).starts_with("1 : must have at most"));
}

#[test]
fn bounds_the_values_in_metadata() {
    let metadata = json!({"a": vec![json!({"": 0}); 5_000]});
    let context = json!({"doc_id": "", "content": "", "metadata": metadata});
    let message = json!({"role": "user", "content": "a", "contexts": vec![context; 20]});
    let error = error_of(Format::JsonLines, &lines(&[message]));
    assert_eq!(
        error,
        "2 contexts: must have at most 300000 values in metadata"
    );
}

#[test]
fn accepts_unusual_json() {
    let message = "{\"role\":\"user\",\"content\":\"a\"}";
    let conversation = "\"version\":1,\"format\":\"conversation-memory\",\"conversation\":{}";
    for (file, count) in [
        (format!("\u{feff}{{{conversation}}}"), 0),
        (format!("{{{conversation},\"messages\":null }}"), 0),
        (
            format!("{{{conversation},\"m\\u0065ssages\":[{message}]}}"),
            1,
        ),
        (
            format!("\t{{ {conversation} ,\r\n\"messages\" : [ {message} , {message} ] }} "),
            2,
        ),
    ] {
        let (items, _) = read(Format::Json, &file).unwrap();
        assert_eq!(messages(&items).len(), count, "{file}");
    }
    let feed = error_of(Format::Json, &format!("{{{conversation}\u{c}}}"));
    assert_eq!(
        feed,
        "1 conversation: is not valid JSON".replace("conversation", "")
    );
}

#[test]
fn rejects_numbers_above_the_maximum() {
    let message = |seq: i64| lines(&[json!({"seq": seq, "role": "user", "content": "a"})]);
    assert_eq!(
        read(Format::JsonLines, &message(1 << 52)).unwrap().1,
        1 << 52
    );
    let error = error_of(Format::JsonLines, &message((1 << 52) + 1));
    assert_eq!(error, "2 seq: must be 0 to 4503599627370496");
}

#[test]
fn rejects_csv() {
    let reader = ArchiveReader::new(
        Some(Format::Csv),
        Limits::default(),
        MAX,
        Box::new(Uuid::nil),
    );
    assert!(reader.unwrap_err().to_string().contains("CSV"));
}
