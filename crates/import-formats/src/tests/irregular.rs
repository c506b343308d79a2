//! Files with authors, times and forms of content that exports should not have, and archives of this
//! service in places where files of other products are expected.

use serde_json::{Value, json};

use super::*;

/// A file with one message in each format: members of it besides its text `Hi`, without its author.
fn with_author(format: Format, author: &Value) -> Value {
    match format {
        Format::ChatGpt => json!({"id": "c1", "mapping": {"m1": {"message": {
            "author": {"role": author}, "content": {"content_type": "text", "parts": ["Hi"]}}}}}),
        Format::Claude => json!({"uuid": "c1", "chat_messages": [
            {"uuid": "m1", "sender": author, "text": "Hi"}]}),
        Format::ShareGpt => json!({"conversations": [{"from": author, "value": "Hi"}]}),
        Format::OpenAi => json!({"messages": [{"role": author, "content": "Hi"}]}),
        Format::LibreChat => json!({"conversationId": "c1", "messages": [
            {"messageId": "m1", "sender": author, "text": "Hi"}]}),
        Format::OpenWebUi => json!({"id": "c1", "chat": {"history": {"messages": {
            "m1": {"role": author, "content": "Hi"}}}}}),
    }
}

#[test]
fn messages_of_unknown_authors_are_rejected() {
    for (format, known, place) in [
        (Format::ChatGpt, "user assistant system tool", "\"m1\""),
        (Format::Claude, "human assistant", "\"m1\""),
        (Format::ShareGpt, "human gpt system tool", "1"),
        (Format::OpenAi, "user assistant system tool", "1"),
        (Format::OpenWebUi, "user assistant system", "\"m1\""),
        (Format::LibreChat, "User Assistant GPT-4", "\"m1\""),
    ] {
        for author in known.split(' ') {
            let file = with_author(format, &author.into()).to_string();
            let shown = show(&read_bytes(file.as_bytes(), None)[0]);
            assert!(shown[0].contains("Hi"), "{format:?} {author}: {shown:?}");
        }
        for author in [json!("critic"), json!(null), json!(7)] {
            // LibreChat names models and agents as the author.
            if format == Format::LibreChat && author.is_string() {
                continue;
            }
            let file = with_author(format, &author).to_string();
            let outcomes = read_bytes(file.as_bytes(), None);
            let Outcome::Rejected(rejection) = &outcomes[0] else {
                panic!("{format:?} {author}: {:?}", show(&outcomes[0]));
            };
            let has_id = !matches!(format, Format::ShareGpt | Format::OpenAi);
            assert_eq!(rejection.source_id.as_deref(), has_id.then_some("c1"));
            let reason = &rejection.reason;
            let is_named = !author.is_string() || reason.contains("\"critic\"");
            assert!(
                reason.starts_with(&format!("message {place}: ")) && is_named,
                "{format:?} {author}: {reason}"
            );
        }
    }
    let empty = json!({"id": "c1", "mapping": {"m1": {"message": {
        "author": {"role": "critic"}, "content": {"content_type": "text", "parts": [""]}}},
        "m2": {"message": {"author": {"role": "user"}, "content": {"parts": ["Hi"]}}}}});
    let outcomes = read_bytes(empty.to_string().as_bytes(), None);
    assert_eq!(show(&outcomes[0]), ["1 user: Hi"]);
    let by_flag = |is_user: Value| {
        let file = json!({"conversationId": "c1", "messages": [
            {"messageId": "m1", "isCreatedByUser": is_user, "text": "Hi"}]});
        show(&read_bytes(file.to_string().as_bytes(), None)[0]).remove(0)
    };
    assert_eq!(by_flag(json!(true)), "1 user: Hi");
    assert_eq!(by_flag(json!(false)), "1 assistant: Hi");
    assert_eq!(
        by_flag(json!("yes")),
        "rejected: message \"m1\": isCreatedByUser is \"yes\" instead of true or false"
    );
}

#[test]
fn times_that_are_not_understood_are_rejected() {
    for (format, time, later) in [
        (Format::ChatGpt, "create_time", "update_time"),
        (Format::Claude, "created_at", "updated_at"),
        (Format::ShareGpt, "created_at", "timestamp"),
        (Format::OpenAi, "created_at", "timestamp"),
        (Format::LibreChat, "createdAt", "updatedAt"),
        (Format::OpenWebUi, "timestamp", "none"),
    ] {
        let author = match format {
            Format::Claude | Format::ShareGpt => "human",
            _ => "user",
        };
        let read = |members: &[(&str, Value)]| {
            let mut file = with_author(format, &author.into());
            let message = match format {
                Format::ChatGpt => &mut file["mapping"]["m1"]["message"],
                Format::Claude => &mut file["chat_messages"][0],
                Format::ShareGpt => &mut file["conversations"][0],
                Format::OpenAi | Format::LibreChat => &mut file["messages"][0],
                Format::OpenWebUi => &mut file["chat"]["history"]["messages"]["m1"],
            };
            for (key, value) in members {
                message[*key] = value.clone();
            }
            read_bytes(file.to_string().as_bytes(), None).remove(0)
        };
        for (value, expected) in [
            (json!(1_700_000_000.5), 1_700_000_000),
            (json!("1970-01-01T00:00:01+00:00"), 1),
            (json!(null), 1_800_000_000),
        ] {
            let outcome = read(&[(time, value)]);
            let created_at = converted(&outcome).messages[0].created_at;
            assert_eq!(created_at.timestamp(), expected, "{format:?}");
        }
        let outcome = read(&[(time, json!("yesterday")), (later, json!(1_700_000_000))]);
        let expected = format!("{time} is not a valid time: \"yesterday\"");
        let shown = show(&outcome).remove(0);
        assert!(shown.starts_with("rejected: message"), "{shown}");
        assert!(shown.ends_with(&expected), "{shown}");
    }
    for (file, expected) in [
        (
            json!({"create_time": "soon", "mapping": {}}),
            "create_time is not a valid time: \"soon\"",
        ),
        (
            json!({"updated_at": true, "chat_messages": []}),
            "updated_at is not a valid time: true",
        ),
        (
            json!({"chat": {"timestamp": []}}),
            "timestamp is not a valid time: a list",
        ),
        (
            json!({"messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
                {"role": "tool", "content": "x", "created_at": "soon"}]}),
            "message 2: created_at is not a valid time: \"soon\"",
        ),
    ] {
        let outcomes = read_bytes(file.to_string().as_bytes(), None);
        assert_eq!(show(&outcomes[0]), [format!("rejected: {expected}")]);
    }
}

#[test]
fn texts_in_place_of_lists_and_objects_are_kept() {
    let chatgpt = |content: Value| {
        json!({"mapping": {"m": {"message": {
            "author": {"role": "user"}, "content": content}}}})
    };
    let claude =
        |content: Value| json!({"chat_messages": [{"sender": "human", "content": content}]});
    let librechat = |content: Value| {
        json!({"messagesTree": [
            {"messageId": "m", "isCreatedByUser": true, "content": content}]})
    };
    let openai = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (file, expected) in [
        (chatgpt(json!("Hi")), "Hi"),
        (chatgpt(json!(["Hi", 5])), "Hi | 5"),
        (
            chatgpt(json!({"content_type": "text", "parts": "Hi"})),
            "Hi",
        ),
        (chatgpt(json!({"parts": {"text": "Hi"}})), "Hi"),
        (chatgpt(json!({"parts": [["Hi"]]})), "[\"Hi\"]"),
        (chatgpt(json!({"parts": [{"other": "Hi"}]})), "<chatgpt>"),
        (
            chatgpt(json!({"content_type": "text", "text": {"a": 1}})),
            "{\"a\":1}",
        ),
        (
            chatgpt(json!({"content_type": "text", "body": "Hi"})),
            "<text>",
        ),
        (
            chatgpt(json!({"content_type": "text", "parts": [""], "body": ["Hi"]})),
            "<text>",
        ),
        (
            chatgpt(json!({"content_type": "thoughts", "thoughts": "Hm"})),
            "thinks Hm",
        ),
        (claude(json!("Hi")), "Hi"),
        (claude(json!(["Hi"])), "Hi"),
        (claude(json!({"type": "text", "text": "Hi"})), "Hi"),
        (
            claude(json!([{"type": "text", "text": ["Hi"]}])),
            "[\"Hi\"]",
        ),
        (librechat(json!("Hi")), "Hi"),
        (librechat(json!(["Hi"])), "Hi"),
        (
            librechat(json!({"type": "text", "text": {"value": "Hi"}})),
            "Hi",
        ),
        (
            librechat(json!([{"type": "text", "text": {"other": 1}}])),
            "{\"other\":1}",
        ),
        (librechat(json!([{"other": "Hi"}])), "<librechat>"),
        (openai(json!({"type": "text", "text": "Hi"})), "Hi"),
        (openai(json!([5, {"type": "text", "text": 6}])), "5 | 6"),
        (
            json!({"conversations": [{"from": "human", "content": "Hi"}]}),
            "Hi",
        ),
    ] {
        let outcomes = read_bytes(file.to_string().as_bytes(), None);
        assert_eq!(
            show(&outcomes[0]),
            [format!("1 user: {expected}")],
            "{file}"
        );
    }
    for (file, expected) in [
        (
            json!({"mapping": {"m": "Hi"}}),
            "message \"m\": is no object",
        ),
        (
            json!({"mapping": {"m": {"message": "Hi"}}}),
            "message \"m\": message is no object",
        ),
        (
            json!({"chat_messages": [null, "Hi"]}),
            "message 2: is no object",
        ),
        (json!({"messagesTree": ["Hi"]}), "message 1: is no object"),
        (
            json!({"messagesTree": [{"messageId": "m", "children": ["Hi"]}]}),
            "message \"m\": has a child that is no object",
        ),
        (
            json!({"chat": {"messages": [5]}}),
            "message 1: is no object",
        ),
        (
            json!({"conversations": [{"from": "human", "other": "Hi"}]}),
            "message 1: has no value",
        ),
    ] {
        let outcomes = read_bytes(file.to_string().as_bytes(), None);
        assert_eq!(show(&outcomes[0]), [format!("rejected: {expected}")]);
    }
}

#[test]
fn archives_of_this_service_are_recognized_among_others() {
    let archive =
        json!({"version": 1, "conversation": {"id": "a"}, "format": "conversation-memory",
        "messages": [{"role": "user", "content": "Hi"}]})
        .to_string();
    let expected = format!("archive of {} bytes", archive.len());
    let sharegpt = r#"{"conversations":[{"from":"human","value":"Hi"}]}"#;
    for file in [
        format!("[{archive},{sharegpt}]"),
        format!("{archive}\n{sharegpt}\n"),
    ] {
        let outcomes = shown(&read_bytes(file.as_bytes(), None));
        assert_eq!(
            outcomes,
            [vec![expected.clone()], vec!["1 user: Hi".to_owned()]]
        );
    }
    let lines = r#"[{"format":"conversation-memory","version":1,"conversation":{"id":"a"}}]"#;
    let reasons = shown(&read_bytes(lines.as_bytes(), None));
    assert!(reasons[0][0].contains("is an archive of this service without messages"));
    let messages = format!(r#"[{{"role":"user","content":"Hi"}},{archive}]"#);
    assert_eq!(
        shown(&read_bytes(messages.as_bytes(), None)),
        [["rejected: is a list of messages and archives of this service"]]
    );
}

/// A tree of LibreChat that is a chain of `count` messages.
fn chain(count: usize) -> String {
    let mut file = r#"{"conversationId":"c1","messages":["#.to_owned();
    for number in 1..=count {
        let message =
            format!(r#"{{"messageId":"m{number}","isCreatedByUser":true,"text":"Hi","children":["#);
        file.push_str(&message);
    }
    file.push_str(&"]}".repeat(count + 1));
    file
}

#[test]
fn trees_are_read_as_deep_as_a_conversation_may_be() {
    for count in [62, 63, 9_000] {
        let file = format!("[{},{}]", chain(count), chain(2));
        let outcomes = read_bytes(file.as_bytes(), None);
        assert_eq!(converted(&outcomes[0]).messages.len(), count);
        assert_eq!(converted(&outcomes[1]).messages.len(), 2);
    }
    assert_eq!(
        shown(&read_bytes(chain(10_000).as_bytes(), None)),
        [["rejected: is nested more than 20000 levels deep, the limit of JSON"]]
    );
    let messages = format!(
        r#"[{{"role":"user","content":"Hi"}},{{"role":"user","content":{}1{}}}]"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    assert_eq!(
        shown(&read_bytes(messages.as_bytes(), None)),
        [["rejected: is nested more than 127 levels deep, the limit of JSON"]]
    );
}

#[test]
fn the_values_of_a_list_of_messages_are_limited() {
    let message = format!(
        r#"{{"role":"user","content":"Hi","extra":[{}0]}}"#,
        "0,".repeat(400_000)
    );
    let file = format!("[{}]", [message.as_str(); 6].join(","));
    let outcomes = shown(&read_bytes(file.as_bytes(), None));
    assert_eq!(
        outcomes,
        [["rejected: has more than 2000000 JSON values, the limit of a conversation"]]
    );
}

#[test]
fn a_broken_first_line_does_not_affect_the_others() {
    let good = r#"{"messages":[{"role":"user","content":"Hi"}]}"#;
    for broken in [
        r#"{"messages":[{"role":"user","content":"H"#,
        r#"{"messages":["#,
        r#"le":"user","content":"Hi"}]}"#,
    ] {
        let file = format!("{broken}\n{good}\n{good}\n");
        assert_eq!(detect(file.as_bytes()), FileKind::Json, "{broken}");
        let outcomes = shown(&read_bytes(file.as_bytes(), None));
        assert!(outcomes[0][0].starts_with("rejected: is not "));
        assert_eq!(outcomes[1..], [["1 user: Hi"], ["1 user: Hi"]]);
    }
    assert_eq!(detect(b"hello\n{name}"), FileKind::Other("a text"));
}
