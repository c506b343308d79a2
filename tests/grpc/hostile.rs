//! Invalid input: each request is rejected with the path of the field, and writes nothing.

use conversation_memory::proto::{
    BeginTurnRequest, CreateConversationRequest, CreateSessionRequest, GetConversationRequest,
    GetHistoryRequest, ListConversationsRequest, ListMessagesRequest, Message, RetrievedContext,
    Role, SaveMessagesRequest, SaveMessagesResponse, TruncateConversationRequest,
};
use prost_types::{ListValue, Struct, Timestamp, Value, value::Kind};
use tonic::Code;

use test_support::{
    new_id, new_user,
    requests::{
        begin, history, message, new_conversation, object, rejected_field, save, save_text, seqs,
    },
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    rejects_invalid_messages_and_writes_nothing,
    rejects_invalid_ids_and_users,
    rejects_invalid_numbers_and_clamps_large_ones,
    rejects_invalid_page_tokens,
    stores_large_and_unusual_texts_unchanged,
    rejects_requests_that_are_too_large,
    rejects_requests_with_too_many_elements,
);

/// An invalid field, and the change that makes it invalid.
type Flaw = (&'static str, fn(&mut Message));

const FLAWS: [Flaw; 19] = [
    ("id", |m| m.id = "not-a-uuid".to_owned()),
    ("id", |m| m.id = format!("{{{}}}", new_id())),
    ("conversation_id", |m| m.conversation_id = new_id()),
    ("role", |m| m.role = 0),
    ("role", |m| m.role = 99),
    ("content", |m| m.content.clear()),
    ("content", |m| m.content = "nul \0".to_owned()),
    ("content", |m| m.content = "x".repeat((1 << 20) + 1)),
    ("tokens_used", |m| m.tokens_used = Some(-1)),
    ("latency_ms", |m| m.latency_ms = Some(-1)),
    ("created_at", |m| {
        m.created_at = Some(Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        });
    }),
    ("metadata", |m| {
        m.metadata = Some(object(&[("a", Kind::StringValue("\0".to_owned()))]));
    }),
    ("metadata", |m| {
        m.metadata = Some(object(&[("\0", Kind::BoolValue(true))]));
    }),
    ("metadata", |m| {
        m.metadata = Some(object(&[("a", Kind::NumberValue(f64::NAN))]));
    }),
    ("metadata", |m| {
        let large = Kind::StringValue("x".repeat(64 << 10));
        m.metadata = Some(object(&[("a", large)]));
    }),
    ("metadata", |m| m.metadata = Some(nested(33))),
    ("contexts", |m| {
        m.contexts = vec![RetrievedContext::default(); 101];
    }),
    ("contexts[0].score", |m| {
        m.contexts = vec![RetrievedContext {
            score: Some(f64::INFINITY),
            ..RetrievedContext::default()
        }];
    }),
    ("contexts[0].doc_id", |m| {
        m.contexts = vec![RetrievedContext {
            doc_id: "x".repeat(513),
            ..RetrievedContext::default()
        }];
    }),
];

async fn rejects_invalid_messages_and_writes_nothing(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for (field, spoil) in FLAWS {
        let mut messages = vec![message(Role::User, "good"), message(Role::User, "bad")];
        spoil(&mut messages[1]);
        let refused = memory.save_messages(save(&conversation, messages)).await;
        let refused = refused.expect_err(field);
        assert_eq!(rejected_field(&refused), format!("messages[1].{field}"));
    }
    let deep = vec![Message {
        metadata: Some(nested(60)),
        ..message(Role::User, "deep")
    }];
    let refused = memory.save_messages(save(&conversation, deep)).await;
    assert_eq!(
        rejected_field(&refused.unwrap_err()),
        "messages[0].metadata"
    );
    for count in [0, 101] {
        let messages = vec![message(Role::User, "x"); count];
        let refused = memory.save_messages(save(&conversation, messages)).await;
        assert_eq!(rejected_field(&refused.unwrap_err()), "messages");
    }
    let mut twice = vec![message(Role::User, "x"); 2];
    let id = new_id();
    for message in &mut twice {
        message.id.clone_from(&id);
    }
    let refused = memory.save_messages(save(&conversation, twice)).await;
    assert_eq!(rejected_field(&refused.unwrap_err()), "messages[1].id");
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(read.into_inner().last_seq, 0);
    // Values at the limits are accepted.
    let mut edge = message(Role::Tool, "");
    edge.metadata = Some(nested(32));
    let saved = memory
        .save_messages(save(&conversation, vec![edge.clone()]))
        .await;
    assert_eq!(
        saved.unwrap().into_inner().messages[0].metadata,
        edge.metadata
    );
}

async fn rejects_invalid_ids_and_users(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    for id in [
        "",
        "x",
        "{0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f}",
        "../../etc",
    ] {
        let refused = memory.get_history(history(id)).await.unwrap_err();
        assert_eq!(rejected_field(&refused), "conversation_id");
    }
    let long = "é".repeat(256);
    for user in ["", "a\0b", long.as_str()] {
        let refused = memory.begin_turn(begin(user)).await.unwrap_err();
        assert_eq!(rejected_field(&refused), "user_id");
        let request = CreateSessionRequest {
            user_id: user.to_owned(),
            ..CreateSessionRequest::default()
        };
        let refused = sessions.create_session(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), "user_id");
        let request = ListConversationsRequest {
            user_id: user.to_owned(),
            ..ListConversationsRequest::default()
        };
        let refused = memory.list_conversations(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), "user_id");
    }
    let longest = format!("{}-{}", "é".repeat(200), new_id());
    memory.begin_turn(begin(&longest)).await.unwrap();
    let request = BeginTurnRequest {
        session_id: "x".to_owned(),
        ..begin("u")
    };
    let refused = memory.begin_turn(request).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "session_id");
    for (field, request) in [
        (
            "dept_id",
            CreateConversationRequest {
                dept_id: "\0".to_owned(),
                ..create("u")
            },
        ),
        (
            "title",
            CreateConversationRequest {
                title: "x\0".to_owned(),
                ..create("u")
            },
        ),
        (
            "metadata",
            CreateConversationRequest {
                metadata: Some(nested(33)),
                ..create("u")
            },
        ),
    ] {
        let refused = memory.create_conversation(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    let request = SaveMessagesRequest {
        request_id: "x".repeat(129),
        ..save(&new_id(), vec![message(Role::User, "x")])
    };
    let refused = memory.save_messages(request).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "request_id");
    // An id in upper case names the same conversation.
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let read = memory.get_history(history(&conversation.to_uppercase()));
    read.await.unwrap();
}

async fn rejects_invalid_numbers_and_clamps_large_ones(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for (field, request) in [
        (
            "limit",
            GetHistoryRequest {
                limit: -1,
                ..history(&conversation)
            },
        ),
        (
            "min_seq",
            GetHistoryRequest {
                min_seq: -1,
                ..history(&conversation)
            },
        ),
        (
            "consistency",
            GetHistoryRequest {
                consistency: 7,
                ..history(&conversation)
            },
        ),
    ] {
        let refused = memory.get_history(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    let page = |page_size| ListMessagesRequest {
        conversation_id: conversation.clone(),
        page_size,
        ..ListMessagesRequest::default()
    };
    let refused = memory.list_messages(page(i32::MIN)).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "page_size");
    memory.list_messages(page(i32::MAX)).await.unwrap();
    let whole = |page_size| GetConversationRequest {
        conversation_id: conversation.clone(),
        page_size,
        ..GetConversationRequest::default()
    };
    let refused = memory.get_conversation(whole(-1)).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "page_size");
    memory.get_conversation(whole(i32::MAX)).await.unwrap();
    let request = TruncateConversationRequest {
        conversation_id: conversation.clone(),
        after_seq: -1,
        ..TruncateConversationRequest::default()
    };
    let refused = memory.truncate_conversation(request).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "after_seq");
    let request = SaveMessagesRequest {
        expected_last_seq: Some(-1),
        ..save(&conversation, vec![message(Role::User, "x")])
    };
    let refused = memory.save_messages(request).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "expected_last_seq");
}

async fn rejects_invalid_page_tokens(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let other = new_conversation(&mut memory, &user).await;
    for number in 0..4 {
        save_text(&mut memory, &conversation, &format!("{number}")).await;
    }
    let request = ListMessagesRequest {
        conversation_id: conversation.clone(),
        page_size: 2,
        ..ListMessagesRequest::default()
    };
    let page = memory.list_messages(request.clone()).await.unwrap();
    let token = page.into_inner().next_page_token;
    let with = |page_token: &str| ListMessagesRequest {
        page_token: page_token.to_owned(),
        ..request.clone()
    };
    let next = memory.list_messages(with(&token)).await.unwrap();
    assert_eq!(seqs(&next.into_inner().messages), [3, 4]);
    let mut tampered = token.clone().into_bytes();
    tampered[3] = if tampered[3] == b'A' { b'B' } else { b'A' };
    for bad in [
        with("garbage"),
        with(&token[1..]),
        with(std::str::from_utf8(&tampered).unwrap()),
        ListMessagesRequest {
            conversation_id: other,
            ..with(&token)
        },
        ListMessagesRequest {
            newest_first: true,
            ..with(&token)
        },
        ListMessagesRequest {
            user_id: user.clone(),
            ..with(&token)
        },
    ] {
        let refused = memory.list_messages(bad).await.unwrap_err();
        assert_eq!(rejected_field(&refused), "page_token");
    }
    let request = ListConversationsRequest {
        user_id: user,
        page_token: token,
        ..ListConversationsRequest::default()
    };
    let refused = memory.list_conversations(request).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "page_token");
}

async fn stores_large_and_unusual_texts_unchanged(form: Form) {
    use std::fmt::Write as _;

    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut words = String::new();
    for number in 0..150_000 {
        write!(words, "{number:x} ").unwrap();
    }
    words.truncate(1 << 20);
    // One character of each Unicode plane, and texts that need escaping elsewhere.
    let planes: String = (0..17)
        .filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0x41))
        .collect();
    let texts = [
        words,
        "w".repeat(3_000),
        planes,
        "\u{feff}\u{202e}\u{200b}\u{1}\u{7f}\r\n\t\u{fffd}\u{10ffff}".to_owned(),
        "'; DROP TABLE messages; -- <script>alert(1)</script> %s ${x} \\ \\u0000".to_owned(),
        "العربية עברית 👩‍👩‍👧‍👦".to_owned(),
    ];
    for text in &texts {
        save_text(&mut memory, &conversation, text).await;
    }
    for limit in [6, 1000] {
        let request = GetHistoryRequest {
            limit,
            ..history(&conversation)
        };
        let read = memory.get_history(request).await.unwrap().into_inner();
        assert_eq!(test_support::requests::contents(&read.messages), texts);
    }
}

async fn rejects_requests_that_are_too_large(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let conversation = new_id();
    let messages = vec![message(Role::User, &"x".repeat(1 << 20)); 13];
    let request = save(&conversation, messages);
    let mut memory = sidecar.memory();
    let refused = memory.save_messages(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    // The same size from a few kilobytes of gzip.
    let before = sidecar.resident_kib();
    let mut zipped = sidecar
        .memory()
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let bomb = save(
        &conversation,
        vec![message(Role::User, &"x".repeat(64 << 20))],
    );
    let refused = zipped.save_messages(bomb).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(sidecar.resident_kib() < before + (32 << 10));
    // A small compressed request is accepted.
    let user = new_user();
    let begun = zipped.begin_turn(begin(&user)).await.unwrap();
    assert_eq!(begun.into_inner().conversation.unwrap().user_id, user);
}

/// A request that is small on the wire and large in memory: field 3 of a save has its
/// messages, each of two bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct ManyMessages {
    #[prost(bytes = "vec", repeated, tag = "3")]
    messages: Vec<Vec<u8>>,
}

async fn rejects_requests_with_too_many_elements(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "before").await;
    let before = sidecar.resident_kib();
    let mut raw = tonic::client::Grpc::new(sidecar.channel())
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    raw.ready().await.unwrap();
    let request = ManyMessages {
        messages: vec![Vec::new(); 2_000_000],
    };
    let codec = tonic_prost::ProstCodec::<ManyMessages, SaveMessagesResponse>::default();
    let method = "/conversation_memory.v1.ConversationMemory/SaveMessages";
    let refused = raw
        .unary(tonic::Request::new(request), method.parse().unwrap(), codec)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(
        refused.message(),
        "messages exceeds the limit of 1000 elements per request: split the request"
    );
    assert!(sidecar.peak_kib() < before + (64 << 10));
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(read.into_inner().last_seq, 1);
}

fn create(user: &str) -> CreateConversationRequest {
    CreateConversationRequest {
        user_id: user.to_owned(),
        ..CreateConversationRequest::default()
    }
}

/// Metadata of `levels` levels, the last of which is a list.
fn nested(levels: usize) -> Struct {
    let mut value = Value {
        kind: Some(Kind::ListValue(ListValue { values: Vec::new() })),
    };
    for _ in 2..levels {
        let fields = [("a".to_owned(), value)].into();
        value = Value {
            kind: Some(Kind::StructValue(Struct { fields })),
        };
    }
    Struct {
        fields: [("a".to_owned(), value)].into(),
    }
}
