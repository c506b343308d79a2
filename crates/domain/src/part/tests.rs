use super::*;

fn text(content: &str) -> RawPart {
    RawPart::Text {
        content: content.to_owned(),
    }
}

fn call(id: &str) -> RawPart {
    RawPart::ToolCall {
        id: id.to_owned(),
        name: "look_up".to_owned(),
        arguments: r#"{"day":1}"#.to_owned(),
    }
}

fn response(id: &str, response: &str) -> RawPart {
    RawPart::ToolCallResponse {
        id: id.to_owned(),
        response: response.to_owned(),
    }
}

fn blob(mime_type: &str, data: &'static [u8]) -> RawPart {
    RawPart::Blob {
        mime_type: mime_type.to_owned(),
        modality: String::new(),
        data: Some(Bytes::from_static(data)),
        bytes: data.len(),
    }
}

fn assembled(content: &str, raw: Vec<RawPart>, role: Role) -> Result<(String, Vec<Part>), String> {
    let limits = Limits {
        content_bytes: 100,
        blob_bytes: 8,
        ..Limits::default()
    };
    assemble(content.to_owned(), raw, role, &limits).map_err(|error| error.to_string())
}

#[test]
fn content_is_the_texts_of_the_parts() {
    for (content, raw) in [
        ("a\n\nb", vec![text("a"), text(""), text("b")]),
        (
            "é\nline\nfeed",
            vec![text("é"), call("1"), text("line\nfeed")],
        ),
        ("before", vec![text("before"), blob("image/png", b"x")]),
        ("", vec![call("1"), call("2")]),
        ("", vec![text("")]),
    ] {
        let (derived, parts) = assembled("", raw.clone(), Role::Assistant).unwrap();
        assert_eq!(derived, content);
        assert_eq!(render(&derived, &parts), raw);
        let given = assembled(content, raw, Role::Assistant).unwrap();
        assert_eq!(given, (derived, parts));
    }
    let (content, parts) = assembled(
        "",
        vec![response("1", "sunny"), response("2", "25")],
        Role::Tool,
    )
    .unwrap();
    assert_eq!(content, "sunny\n25");
    assert_eq!(render(&content, &parts)[1], response("2", "25"));
}

#[test]
fn one_text_is_a_plain_message() {
    let plain = ("Hello".to_owned(), Vec::new());
    assert_eq!(
        assembled("", vec![text("Hello")], Role::User),
        Ok(plain.clone())
    );
    assert_eq!(assembled("Hello", Vec::new(), Role::User), Ok(plain));
}

#[test]
fn content_without_text_parts_becomes_the_first_part() {
    let (content, parts) =
        assembled("What is this?", vec![blob("image/png", b"x")], Role::User).unwrap();
    assert_eq!(
        render(&content, &parts),
        [text("What is this?"), blob("image/png", b"x")]
    );
}

#[test]
fn rejects_invalid_parts() {
    let long = "x".repeat(256);
    let reasoning = RawPart::Reasoning {
        content: "x".repeat(101),
    };
    let uri = RawPart::Uri {
        mime_type: "text".to_owned(),
        modality: String::new(),
        uri: "https://example.com".to_owned(),
    };
    let generic = RawPart::Generic {
        generic_type: "other".to_owned(),
        json: "\0".to_owned(),
    };
    for (raw, error) in [
        (
            vec![text("a"), call("")],
            "parts[1].tool_call.id is required",
        ),
        (
            vec![call(&long)],
            "parts[0].tool_call.id must have at most 255 characters",
        ),
        (
            vec![response("1", "x")],
            "parts[0].tool_call_response is only valid on messages of the role tool",
        ),
        (
            vec![blob("image/png", b"")],
            "parts[0].blob.data is required",
        ),
        (
            vec![blob("image/png", b"123456789")],
            "parts[0].blob.data must have at most 8 bytes: store larger data elsewhere and save its URI, or raise MAX_BLOB_BYTES",
        ),
        (vec![blob("", b"1")], "parts[0].blob.mime_type is required"),
        (
            vec![blob("image/png\r\nx: y", b"1")],
            "parts[0].blob.mime_type must be a media type, such as image/jpeg",
        ),
        (
            vec![reasoning],
            "parts must have at most 100 bytes of text besides the content, and 150 with it: split the text, or raise MAX_CONTENT_BYTES",
        ),
        (
            vec![uri],
            "parts[0].uri.mime_type must be a media type, such as image/jpeg",
        ),
        (
            vec![generic],
            "parts[0].generic.json must not contain U+0000",
        ),
        (vec![text("x"); 201], "parts must have at most 200 parts"),
    ] {
        assert_eq!(assembled("", raw, Role::Assistant), Err(error.to_owned()));
    }
    assert_eq!(
        assembled("other", vec![text("a"), call("1")], Role::Assistant),
        Err("content must be empty or the texts of the parts, joined by line feeds".to_owned())
    );
    assert_eq!(
        assembled("", vec![call("1")], Role::User),
        Err("parts[0].tool_call is only valid on messages of the role assistant".to_owned())
    );
}

#[test]
fn ids_of_calls_and_of_results_are_unique_in_a_message() {
    assert_eq!(
        assembled(
            "",
            vec![call("1"), text("a"), call("2"), call("1")],
            Role::Assistant
        ),
        Err("parts[3].tool_call.id is the id of an earlier part".to_owned())
    );
    assert_eq!(
        assembled("", vec![response("1", "a"), response("1", "b")], Role::Tool),
        Err("parts[1].tool_call_response.id is the id of an earlier part".to_owned())
    );
    assert!(assembled("", vec![call("1"), call("1 ")], Role::Assistant).is_ok());
}

#[test]
fn lengths_that_do_not_match_the_content_are_read_as_what_there_is() {
    let parts = [Part::Text { bytes: 2 }, Part::Text { bytes: 9 }];
    assert_eq!(render("é", &parts), [text("é"), text("")]);
    assert_eq!(render("éa", &[Part::Text { bytes: 1 }]), [text("éa")]);
}

#[test]
fn stored_parts_have_no_text_of_the_content() {
    let (_, parts) = assembled(
        "",
        vec![text("secret"), call("1"), blob("image/png", b"x")],
        Role::Assistant,
    )
    .unwrap();
    let json = serde_json::to_string(&parts).unwrap();
    assert!(!json.contains("secret"), "{json}");
    let stored: Vec<Part> = serde_json::from_str(&json).unwrap();
    assert_eq!(stored, parts);
}
