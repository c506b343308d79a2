//! Beginning and saving turns.

use conversation_memory::proto::{
    Consistency, GetHistoryRequest, ListMessagesRequest, RetrievedContext, Role,
    SaveMessagesRequest, SessionState, Source, TextPart, ToolCallPart, TruncateConversationRequest,
    conversation_memory_client::ConversationMemoryClient, part,
};
use prost_types::{Timestamp, value::Kind};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use test_support::{
    new_id, new_user,
    requests::{
        begin, contents, history, message, new_conversation, object, part, reason, save, save_text,
        seqs, turn,
    },
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    the_second_turn_returns_the_first,
    history_has_the_newest_messages_oldest_first,
    returns_every_field_of_a_message,
    retry_returns_the_first_outcome,
    rejects_reused_ids_and_request_ids,
    expected_last_seq_rejects_concurrent_saves,
    min_seq_requires_a_save,
    truncation_does_not_reuse_numbers,
    retried_truncation_keeps_later_messages,
    a_read_during_a_truncation_is_of_one_state,
    saved_messages_survive_a_restart,
    histories_fit_the_size_limit_of_clients,
    reads_a_long_history,
    a_save_is_atomic,
);

async fn the_second_turn_returns_the_first(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let first = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
    assert_eq!(first.session_state(), SessionState::Started);
    assert_eq!(first.messages, []);
    let session = first.session.unwrap();
    let conversation = first.conversation.unwrap();
    assert_eq!(conversation.user_id, user);
    assert_eq!(session.conversation_id, conversation.id);

    let mut request = save(
        &conversation.id,
        turn("What is our vacation policy?", "25 days a year."),
    );
    request.session_id.clone_from(&session.id);
    let saved = memory.save_messages(request).await.unwrap().into_inner();
    assert_eq!(seqs(&saved.messages), [1, 2]);
    assert_eq!(saved.last_seq, 2);
    assert!(!saved.replayed);

    let mut request = begin(&user);
    request.session_id.clone_from(&session.id);
    let second = memory.begin_turn(request).await.unwrap().into_inner();
    assert_eq!(second.session_state(), SessionState::Continued);
    assert_eq!(second.session.unwrap().id, session.id);
    assert_eq!(
        contents(&second.messages),
        ["What is our vacation policy?", "25 days a year."]
    );
    let found = second.conversation.unwrap();
    assert_eq!((found.id, found.last_seq), (conversation.id, 2));
}

async fn history_has_the_newest_messages_oldest_first(form: Form) {
    let settings = [("MAX_HISTORY_MESSAGES", "4")];
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for number in 1..=10 {
        save_text(&mut memory, &conversation, &format!("message {number}")).await;
    }
    let read = async |memory: &mut Memory, limit| {
        let request = GetHistoryRequest {
            limit,
            ..history(&conversation)
        };
        memory.get_history(request).await.unwrap().into_inner()
    };
    let answer = read(&mut memory, 0).await;
    assert_eq!(seqs(&answer.messages), [5, 6, 7, 8, 9, 10]);
    assert_eq!(answer.last_seq, 10);
    assert_eq!(seqs(&read(&mut memory, 3).await.messages), [8, 9, 10]);
    let all: Vec<i64> = (1..=10).collect();
    assert_eq!(seqs(&read(&mut memory, 1000).await.messages), all);
    assert_eq!(seqs(&read(&mut memory, i32::MAX).await.messages), all);

    drop(sidecar);
    let other = Sidecar::start_with(&form, &settings).await;
    let mut memory = other.memory();
    assert_eq!(seqs(&read(&mut memory, 0).await.messages), [7, 8, 9, 10]);
}

async fn returns_every_field_of_a_message(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let metadata = object(&[
        ("model", Kind::StringValue("m".to_owned())),
        ("temperature", Kind::NumberValue(0.1)),
        ("huge", Kind::NumberValue(f64::MAX)),
        ("nothing", Kind::NullValue(0)),
    ]);
    let mut said = message(
        Role::Assistant,
        "25 days \u{1f3d6} a year.\u{202e}\r\n'; DROP TABLE",
    );
    said.id = new_id().to_uppercase();
    said.tokens_used = Some(0);
    said.latency_ms = Some(1_250);
    said.created_at = Some(Timestamp {
        seconds: 1_700_000_000,
        nanos: 123_456_789,
    });
    said.metadata = Some(metadata.clone());
    said.name = "hr".to_owned();
    said.token_count = Some(17);
    said.parts = vec![
        part(part::Kind::Text(TextPart {
            content: said.content.clone(),
        })),
        part(part::Kind::ToolCall(ToolCallPart {
            id: "call_1".to_owned(),
            name: "book".to_owned(),
            arguments: "{}".to_owned(),
        })),
    ];
    said.contexts = vec![RetrievedContext {
        doc_id: "handbook#4".to_owned(),
        content: "Vacation: 25 days.".to_owned(),
        score: Some(0.87),
        metadata: Some(metadata),
    }];
    let request = save(&conversation, vec![said.clone()]);
    let saved = memory.save_messages(request).await.unwrap().into_inner();

    let mut expected = said;
    expected.id = expected.id.to_lowercase();
    expected.conversation_id.clone_from(&conversation);
    expected.seq = 1;
    expected.created_at.as_mut().unwrap().nanos = 123_456_000;
    let whole = expected.clone();
    expected.contexts.clear();
    assert_eq!(saved.messages, [expected.clone()]);
    for consistency in [Consistency::Cached, Consistency::Strong] {
        let mut request = history(&conversation);
        request.set_consistency(consistency);
        let read = memory.get_history(request.clone()).await.unwrap();
        assert_eq!(read.into_inner().messages, [expected.clone()]);
        request.include_contexts = true;
        let read = memory.get_history(request).await.unwrap();
        assert_eq!(read.into_inner().messages, std::slice::from_ref(&whole));
    }
}

async fn retry_returns_the_first_outcome(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut request = save(&conversation, turn("one", "two"));
    request.request_id = "turn-1".to_owned();
    let first = memory.save_messages(request.clone()).await.unwrap();
    let first = first.into_inner();
    save_text(&mut memory, &conversation, "three").await;
    let again = memory.save_messages(request.clone()).await.unwrap();
    let again = again.into_inner();
    assert!(again.replayed);
    assert_eq!(again.messages, first.messages);
    assert_eq!(again.last_seq, 2);

    // Concurrently, from many callers.
    request.request_id = "turn-2".to_owned();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (mut memory, request) = (memory.clone(), request.clone());
        calls.spawn(async move { memory.save_messages(request).await.unwrap().into_inner() });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    for answer in answers {
        assert_eq!(seqs(&answer.messages), [4, 5]);
    }
    let all = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(all.into_inner().last_seq, 5);
}

async fn rejects_reused_ids_and_request_ids(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut request = save(&conversation, turn("one", "two"));
    request.request_id = "turn-1".to_owned();
    request.messages[0].id = new_id();
    memory.save_messages(request.clone()).await.unwrap();

    let mut other_content = request.clone();
    other_content.messages[1].content = "three".to_owned();
    let refused = memory.save_messages(other_content).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");

    let mut other_key = request.clone();
    other_key.request_id = "turn-2".to_owned();
    let refused = memory.save_messages(other_key).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(reason(&refused), "MESSAGE_ID_REUSED");

    // Another conversation can have a message with the id.
    let other = new_conversation(&mut memory, &new_user()).await;
    request.conversation_id.clone_from(&other);
    for is_retry in [false, true] {
        let saved = memory.save_messages(request.clone()).await.unwrap();
        let saved = saved.into_inner();
        assert_eq!(saved.replayed, is_retry);
        assert_eq!(saved.messages[0].id, request.messages[0].id);
    }

    let all = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(contents(&all.into_inner().messages), ["one", "two"]);
}

async fn expected_last_seq_rejects_concurrent_saves(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let expecting = |seq| SaveMessagesRequest {
        expected_last_seq: Some(seq),
        ..save(&conversation, turn("one", "two"))
    };
    memory.save_messages(expecting(0)).await.unwrap();
    let refused = memory.save_messages(expecting(0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert_eq!(reason(&refused), "SEQ_MISMATCH");
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["current_seq"], "2");
    memory.save_messages(expecting(2)).await.unwrap();
}

async fn min_seq_requires_a_save(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;
    let at_least = |min_seq| GetHistoryRequest {
        min_seq,
        ..history(&conversation)
    };
    let read = memory.get_history(at_least(1)).await.unwrap();
    assert_eq!(read.into_inner().last_seq, 1);
    let refused = memory.get_history(at_least(2)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(reason(&refused), "MIN_SEQ_NOT_REACHED");
}

async fn truncation_does_not_reuse_numbers(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for text in ["one", "two", "three", "four"] {
        save_text(&mut memory, &conversation, text).await;
    }
    // The recent window is filled.
    memory.get_history(history(&conversation)).await.unwrap();
    let request = TruncateConversationRequest {
        conversation_id: conversation.clone(),
        after_seq: 2,
        ..TruncateConversationRequest::default()
    };
    let answer = memory.truncate_conversation(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!((answer.removed_messages, answer.last_seq), (2, 4));
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(contents(&read.into_inner().messages), ["one", "two"]);
    assert_eq!(
        save_text(&mut memory, &conversation, "five").await.last_seq,
        5
    );
    for _ in 0..2 {
        let read = memory.get_history(history(&conversation)).await.unwrap();
        let read = read.into_inner();
        assert_eq!(seqs(&read.messages), [1, 2, 5]);
        assert_eq!(read.last_seq, 5);
    }
    let request = ListMessagesRequest {
        conversation_id: conversation.clone(),
        newest_first: true,
        ..ListMessagesRequest::default()
    };
    let all = memory.list_messages(request).await.unwrap().into_inner();
    assert_eq!(seqs(&all.messages), [5, 2, 1]);
}

async fn retried_truncation_keeps_later_messages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut first_save = save(&conversation, turn("one", "two"));
    first_save.request_id = "turn-1".to_owned();
    memory.save_messages(first_save.clone()).await.unwrap();
    let request = TruncateConversationRequest {
        conversation_id: conversation.clone(),
        after_seq: 0,
        request_id: "clear-1".to_owned(),
        ..TruncateConversationRequest::default()
    };
    let first = memory.truncate_conversation(request.clone()).await.unwrap();
    save_text(&mut memory, &conversation, "three").await;
    let again = memory.truncate_conversation(request).await.unwrap();
    assert_eq!(again.into_inner().removed_messages, 2);
    assert_eq!(first.into_inner().removed_messages, 2);
    // A late retry of the save does not restore the removed messages.
    let again = memory.save_messages(first_save).await.unwrap().into_inner();
    assert!(again.replayed);
    assert_eq!((again.last_seq, again.messages.len()), (2, 0));
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(contents(&read.into_inner().messages), ["three"]);
}

async fn a_read_during_a_truncation_is_of_one_state(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    // More than are read from the store at once.
    let turn = vec![message(Role::User, "text"); 80];
    for _ in 0..40 {
        memory
            .save_messages(save(&conversation, turn.clone()))
            .await
            .unwrap();
        let mut readers = JoinSet::new();
        for _ in 0..8 {
            let mut memory = memory.clone();
            let request = GetHistoryRequest {
                limit: 80,
                consistency: Consistency::Strong.into(),
                ..history(&conversation)
            };
            readers.spawn(async move {
                let read = memory.get_history(request).await.unwrap().into_inner();
                read.messages.len()
            });
        }
        let truncation = TruncateConversationRequest {
            conversation_id: conversation.clone(),
            ..TruncateConversationRequest::default()
        };
        memory.truncate_conversation(truncation).await.unwrap();
        for read in readers.join_all().await {
            assert!(read == 80 || read == 0, "{read} messages");
        }
    }
}

async fn saved_messages_survive_a_restart(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "remember this").await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));

    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    save_text(&mut memory, &conversation, "and this").await;
    sidecar.kill().await;

    let sidecar = Sidecar::start(&form).await;
    let read = sidecar.memory().get_history(history(&conversation)).await;
    assert_eq!(
        contents(&read.unwrap().into_inner().messages),
        ["remember this", "and this"]
    );
}

async fn histories_fit_the_size_limit_of_clients(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = ConversationMemoryClient::new(sidecar.channel());
    let user = new_user();
    let begun = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
    let conversation = begun.conversation.unwrap().id;
    for at in 0..6 {
        save_text(&mut memory, &conversation, &"x".repeat(900_000 + at)).await;
    }
    let mut turn = begin(&user);
    turn.session_id = begun.session.unwrap().id;
    let begun = memory.begin_turn(turn).await.unwrap().into_inner();
    assert_eq!(seqs(&begun.messages), [4, 5, 6]);
    for limit in [0, 2, 1000] {
        let request = GetHistoryRequest {
            limit,
            ..history(&conversation)
        };
        let read = memory.get_history(request).await.unwrap().into_inner();
        let expected = if limit == 2 { &[5, 6][..] } else { &[4, 5, 6] };
        assert_eq!(seqs(&read.messages), expected);
    }
}

async fn reads_a_long_history(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let read = async |memory: &mut Memory, limit| {
        let request = GetHistoryRequest {
            limit,
            ..history(&conversation)
        };
        let read = memory.get_history(request).await.unwrap().into_inner();
        seqs(&read.messages)
    };
    assert!(read(&mut memory, 10).await.is_empty());
    // More messages than a window keeps and than one read returns.
    for _ in 0..4 {
        let many = vec![message(Role::User, "x"); 100];
        memory
            .save_messages(save(&conversation, many))
            .await
            .unwrap();
    }
    for _ in 0..2 {
        for limit in [1000, 400, 399, 301, 33, 32, 31, 11, 10, 6] {
            let expected: Vec<i64> = (401 - i64::from(limit.min(400))..=400).collect();
            assert_eq!(read(&mut memory, limit).await, expected, "{limit}");
        }
    }
}

async fn a_save_is_atomic(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let taken = new_id();
    let mut request = save(&conversation, vec![message(Role::User, "one")]);
    request.messages[0].id.clone_from(&taken);
    memory.save_messages(request).await.unwrap();
    // The last of a hundred messages cannot be stored.
    let mut messages = vec![message(Role::User, "more"); 100];
    messages[99].id = taken;
    let refused = memory.save_messages(save(&conversation, messages)).await;
    assert_eq!(refused.unwrap_err().code(), Code::AlreadyExists);
    let read = memory.get_history(history(&conversation)).await.unwrap();
    let read = read.into_inner();
    assert_eq!((read.last_seq, read.messages.len()), (1, 1));
    assert_ne!(read.source(), Source::Unspecified);
}
