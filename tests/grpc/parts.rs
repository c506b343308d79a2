//! Typed parts of messages.

use conversation_memory::proto::{
    BlobPart, Consistency, FilePart, GenericPart, GetBlobRequest, GetConversationRequest, Message,
    Part, ReasoningPart, Role, TextPart, ToolCallPart, ToolCallResponsePart, UriPart, part::Kind,
};
use tonic::Code;

use test_support::{
    new_id, new_user,
    requests::{
        history, message, new_conversation, part, reason, rejected_field, save, tool_call,
        tool_result,
    },
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    returns_all_types_of_parts,
    content_and_parts_are_two_views_of_a_text,
    rejects_invalid_parts,
    returns_data_of_blobs_where_it_fits,
    a_retry_with_a_blob_returns_the_first_outcome,
);

fn text(content: &str) -> Part {
    part(Kind::Text(TextPart {
        content: content.to_owned(),
    }))
}

fn blob(mime_type: &str, data: Vec<u8>) -> Part {
    part(Kind::Blob(BlobPart {
        mime_type: mime_type.to_owned(),
        modality: "image".to_owned(),
        data: data.into(),
        size_bytes: 0,
    }))
}

/// Sets what the server sets in a blob of a response, and removes the data if it is not returned.
fn in_response(mut message: Message, with_data: bool) -> Message {
    for part in &mut message.parts {
        if let Some(Kind::Blob(blob)) = &mut part.kind {
            blob.size_bytes = i64::try_from(blob.data.len()).unwrap();
            if !with_data {
                blob.data = Vec::new().into();
            }
        }
    }
    message
}

async fn returns_all_types_of_parts(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut question = message(Role::User, "What is this?\nAnd this?");
    question.parts = vec![
        text("What is this?"),
        blob("image/png", vec![0, 159, 146, 150]),
        text("And this?"),
        part(Kind::Uri(UriPart {
            mime_type: "image/jpeg".to_owned(),
            modality: "image".to_owned(),
            uri: "https://example.com/cat.jpg".to_owned(),
        })),
        part(Kind::File(FilePart {
            mime_type: String::new(),
            modality: String::new(),
            file_id: "file-1".to_owned(),
        })),
        part(Kind::Generic(GenericPart {
            r#type: "input_audio_transcript".to_owned(),
            json: r#"{"big":9007199254740993}"#.to_owned(),
        })),
    ];
    let mut call = message(Role::Assistant, "");
    call.parts = vec![
        part(Kind::Reasoning(ReasoningPart {
            content: "A picture: look at it.".to_owned(),
        })),
        part(Kind::ToolCall(ToolCallPart {
            id: "call_1".to_owned(),
            name: "look".to_owned(),
            arguments: "{not json".to_owned(),
        })),
    ];
    let mut result = message(Role::Tool, "a cat\n[1,2]");
    result.parts = vec![
        part(Kind::ToolCallResponse(ToolCallResponsePart {
            id: "call_1".to_owned(),
            response: "a cat".to_owned(),
        })),
        text("[1,2]"),
    ];
    let sent = vec![question, call, result];
    let saved = memory
        .save_messages(save(&conversation, sent.clone()))
        .await;
    let saved = saved.unwrap().into_inner().messages;
    let complete = |with_data: bool| -> Vec<Message> {
        let expected = sent.iter().zip(&saved).map(|(sent, saved)| Message {
            role: sent.role,
            content: sent.content.clone(),
            parts: in_response(sent.clone(), with_data).parts,
            ..saved.clone()
        });
        expected.collect()
    };
    assert_eq!(saved, complete(false));
    assert!(saved.iter().all(|saved| saved.token_count.unwrap() > 0));
    for consistency in [
        Consistency::Cached,
        Consistency::Cached,
        Consistency::Strong,
    ] {
        let mut request = history(&conversation);
        request.set_consistency(consistency);
        let read = memory.get_history(request).await.unwrap().into_inner();
        assert_eq!(read.messages, complete(true));
    }
    for include_blobs in [false, true] {
        let request = GetConversationRequest {
            conversation_id: conversation.clone(),
            include_blobs,
            ..GetConversationRequest::default()
        };
        let read = memory.get_conversation(request).await.unwrap();
        assert_eq!(read.into_inner().messages, complete(include_blobs));
    }
}

async fn content_and_parts_are_two_views_of_a_text(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let with_parts = |content: &str, parts: Vec<Part>| Message {
        parts,
        ..message(Role::User, content)
    };
    // Nothing is stored twice: with its parts the text would exceed the limit of a message.
    let long = "x".repeat(700 << 10);
    let messages = vec![
        with_parts("", vec![text("Hello")]),
        with_parts("", vec![text("a"), text("b")]),
        with_parts("Look:", vec![blob("image/png", vec![1])]),
        with_parts("", vec![text(&long), blob("image/png", vec![1])]),
    ];
    let saved = memory.save_messages(save(&conversation, messages)).await;
    let saved = saved.unwrap().into_inner().messages;
    assert_eq!(saved[0].content, "Hello");
    assert!(saved[0].parts.is_empty());
    assert_eq!(saved[1].content, "a\nb");
    assert_eq!(saved[1].parts, [text("a"), text("b")]);
    assert_eq!(saved[2].parts[0], text("Look:"));
    assert_eq!(saved[3].content, long);
    assert_eq!(saved[3].parts[0], text(&long));
}

async fn rejects_invalid_parts(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let with_part = |role, kind| Message {
        parts: vec![part(kind)],
        ..message(role, "")
    };
    let pinned = Message {
        pinned: true,
        ..tool_call(&["1"])
    };
    let differing = Message {
        parts: vec![text("a"), text("b")],
        ..message(Role::User, "a b")
    };
    let empty = Message {
        parts: vec![Part { kind: None }],
        ..message(Role::User, "a")
    };
    let too_large = with_part(
        Role::User,
        Kind::Blob(BlobPart {
            mime_type: "image/png".to_owned(),
            data: vec![0; (8 << 20) + 1].into(),
            ..BlobPart::default()
        }),
    );
    let too_long = with_part(
        Role::Assistant,
        Kind::Reasoning(ReasoningPart {
            content: "x".repeat((1 << 20) + 1),
        }),
    );
    for (message, field) in [
        (tool_call(&[""]), "parts[0].tool_call.id"),
        (
            Message {
                role: Role::User.into(),
                ..tool_call(&["1"])
            },
            "parts[0].tool_call",
        ),
        (
            Message {
                role: Role::User.into(),
                ..tool_result("1", "x")
            },
            "parts[0].tool_call_response",
        ),
        (pinned, "pinned"),
        (differing, "content"),
        (empty, "parts[0]"),
        (too_large, "parts[0].blob.data"),
        (too_long, "parts"),
        (
            with_part(Role::User, Kind::Uri(UriPart::default())),
            "parts[0].uri.uri",
        ),
    ] {
        let refused = memory
            .save_messages(save(&conversation, vec![message]))
            .await;
        let refused = refused.unwrap_err();
        assert_eq!(rejected_field(&refused), format!("messages[0].{field}"));
    }
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(read.into_inner().last_seq, 0);
}

/// Reads a blob, and returns its media type and data.
async fn read_blob(memory: &mut Memory, request: GetBlobRequest) -> (String, Vec<u8>) {
    let mut pieces = memory.get_blob(request).await.unwrap().into_inner();
    let (mut mime_type, mut data) = (String::new(), Vec::new());
    while let Some(piece) = pieces.message().await.unwrap() {
        let piece = piece.file.unwrap();
        mime_type.push_str(&piece.content_type);
        data.extend_from_slice(&piece.data);
    }
    (mime_type, data)
}

async fn returns_data_of_blobs_where_it_fits(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    // A photo of a phone does not fit in the response of a client with default limits.
    let photo: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    for data in [vec![7; 1 << 20], photo.clone(), vec![9; 1 << 20]] {
        let mut sent = message(Role::User, "What is this?");
        sent.parts = vec![blob("image/jpeg", data)];
        memory
            .save_messages(save(&conversation, vec![sent]))
            .await
            .unwrap();
    }
    let data_sizes = |messages: &[Message]| -> Vec<(usize, i64)> {
        let parts = messages.iter().flat_map(|message| &message.parts);
        let blobs = parts.filter_map(|part| match &part.kind {
            Some(Kind::Blob(blob)) => Some((blob.data.len(), blob.size_bytes)),
            _ => None,
        });
        blobs.collect()
    };
    for consistency in [Consistency::Cached, Consistency::Strong] {
        let mut request = history(&conversation);
        request.set_consistency(consistency);
        let read = memory.get_history(request).await.unwrap().into_inner();
        let expected = [(1 << 20, 1 << 20), (0, 5_000_000), (1 << 20, 1 << 20)];
        assert_eq!(data_sizes(&read.messages), expected);
    }
    let request = GetBlobRequest {
        conversation_id: conversation,
        user_id: user,
        seq: 2,
        part: 1,
    };
    let (mime_type, data) = read_blob(&mut memory, request.clone()).await;
    assert_eq!(mime_type, "image/jpeg");
    assert!(data == photo, "the data differs");
    for (missing, expected) in [
        (
            GetBlobRequest {
                part: 0,
                ..request.clone()
            },
            "BLOB_NOT_FOUND",
        ),
        (
            GetBlobRequest {
                seq: 4,
                ..request.clone()
            },
            "BLOB_NOT_FOUND",
        ),
        (
            GetBlobRequest {
                user_id: new_user(),
                ..request.clone()
            },
            "CONVERSATION_NOT_FOUND",
        ),
    ] {
        let refused = memory.get_blob(missing).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(reason(&refused), expected);
    }
}

async fn a_retry_with_a_blob_returns_the_first_outcome(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let with_data = |data: Vec<u8>| Message {
        parts: vec![blob("image/jpeg", data)],
        ..message(Role::User, "What is this?")
    };
    let mut request = save(&conversation, vec![with_data(vec![1, 2, 3])]);
    request.messages[0].id = new_id();
    let first = memory
        .save_messages(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = memory
        .save_messages(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(again.replayed);
    assert_eq!(again.messages, first.messages);
    let mut other = request.clone();
    other.messages[0].parts = with_data(vec![1, 2, 4]).parts;
    let refused = memory.save_messages(other).await.unwrap_err();
    assert_eq!(reason(&refused), "MESSAGE_ID_REUSED");
}
