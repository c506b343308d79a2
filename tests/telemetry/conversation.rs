//! Every span of a call on a conversation contains the conversation.

use conversation_memory::proto::{
    BeginTurnRequest, BeginTurnResponse, Consistency, Conversation, CreateConversationRequest,
    CreateSessionRequest, DeleteConversationRequest, EndSessionRequest, GetConversationRequest,
    GetHistoryRequest, ListConversationsRequest, ListMessagesRequest, Role, SessionState, Source,
    TransferConversationRequest, TruncateConversationRequest, UpdateConversationRequest,
};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    metrics::window_key,
    observed::{CONVERSATION_KEYS, ExportedTelemetry, ObservedSidecar, Trace, traced},
};
use test_support::{
    eventually, new_id, new_user, redis_server,
    requests::{begin, history, message, new_conversation, save, save_text, turn},
    sidecar::{Form, Memory},
};

test_support::in_both_forms!(
    turns_are_traced_with_their_conversation,
    reads_are_traced_with_their_conversation,
    conversation_calls_are_traced_with_the_conversation,
    failed_calls_are_traced_with_their_conversation,
    concurrent_calls_are_traced_with_their_own_conversation,
);

async fn turns_are_traced_with_their_conversation(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    let mut memory = observed.memory().await;
    let user = new_user();
    let mut calls = Vec::new();

    let begun = begin_turn(&mut memory, begin(&user), &mut calls).await;
    assert_eq!(begun.session_state(), SessionState::Started);
    let session = begun.session.unwrap().id;
    let conversation = begun.conversation.unwrap().id;

    let mut request = save(&conversation, turn("one", "two"));
    request.session_id.clone_from(&session);
    let (trace, request) = traced(request);
    memory.save_messages(request).await.unwrap();
    calls.push(("SaveMessages", trace));

    let mut next = begin(&user);
    next.session_id.clone_from(&session);
    let begun = begin_turn(&mut memory, next.clone(), &mut calls).await;
    assert_eq!(begun.session_state(), SessionState::Continued);

    let ended = EndSessionRequest {
        session_id: session,
        ..EndSessionRequest::default()
    };
    let mut sessions = observed.sidecar.sessions();
    sessions.end_session(ended).await.unwrap();
    let begun = begin_turn(&mut memory, next, &mut calls).await;
    assert_eq!(begun.session_state(), SessionState::Resumed);

    let (trace, request) = traced(CreateSessionRequest {
        user_id: user,
        conversation_id: conversation.clone(),
        ..CreateSessionRequest::default()
    });
    sessions.create_session(request).await.unwrap();
    calls.push(("CreateSession", trace));

    observed
        .stop()
        .await
        .assert_conversation_of_calls(&calls, &conversation);
}

async fn begin_turn(
    memory: &mut Memory,
    request: BeginTurnRequest,
    calls: &mut Vec<(&str, Trace)>,
) -> BeginTurnResponse {
    let (trace, request) = traced(request);
    calls.push(("BeginTurn", trace));
    memory.begin_turn(request).await.unwrap().into_inner()
}

async fn reads_are_traced_with_their_conversation(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;
    let mut calls = Vec::new();
    let mut read = async |consistency| {
        let mut request = history(&conversation);
        request.set_consistency(consistency);
        let (trace, request) = traced(request);
        calls.push(("GetHistory", trace));
        let read = memory.get_history(request).await.unwrap();
        read.into_inner().source()
    };
    read(Consistency::Strong).await;
    if let Form::Servers { redis_url, .. } = &observed.form {
        let key = window_key(&conversation);
        redis_server::call(redis_url, &["DEL", &key]).await.unwrap();
        assert_eq!(read(Consistency::Cached).await, Source::Store);
        eventually("the window is filled", async || {
            read(Consistency::Cached).await == Source::Cache
        })
        .await;
    }
    let (trace, request) = traced(GetConversationRequest {
        conversation_id: conversation.clone(),
        ..GetConversationRequest::default()
    });
    memory.get_conversation(request).await.unwrap();
    calls.push(("GetConversation", trace));
    let (trace, request) = traced(ListMessagesRequest {
        conversation_id: conversation.clone(),
        ..ListMessagesRequest::default()
    });
    memory.list_messages(request).await.unwrap();
    calls.push(("ListMessages", trace));
    observed
        .stop()
        .await
        .assert_conversation_of_calls(&calls, &conversation);
}

async fn conversation_calls_are_traced_with_the_conversation(form: Form) {
    let observed = ObservedSidecar::start_with(form, &[("OPERATORS", "*")]).await;
    let mut memory = observed.memory().await;
    let user = new_user();
    let mut calls = Vec::new();
    let (trace, request) = traced(CreateConversationRequest {
        user_id: user.clone(),
        ..CreateConversationRequest::default()
    });
    let created = memory.create_conversation(request).await.unwrap();
    let conversation = created.into_inner().conversation.unwrap().id;
    calls.push(("CreateConversation", trace));
    let (trace, request) = traced(UpdateConversationRequest {
        conversation: Some(Conversation {
            id: conversation.clone(),
            title: "Vacation".to_owned(),
            ..Conversation::default()
        }),
        ..UpdateConversationRequest::default()
    });
    memory.update_conversation(request).await.unwrap();
    calls.push(("UpdateConversation", trace));
    let (trace, request) = traced(TruncateConversationRequest {
        conversation_id: conversation.clone(),
        ..TruncateConversationRequest::default()
    });
    memory.truncate_conversation(request).await.unwrap();
    calls.push(("TruncateConversation", trace));
    let (trace, request) = traced(TransferConversationRequest {
        conversation_id: conversation.clone(),
        new_user_id: new_user(),
        ..TransferConversationRequest::default()
    });
    memory.transfer_conversation(request).await.unwrap();
    calls.push(("TransferConversation", trace));
    let (without_conversation, request) = traced(ListConversationsRequest {
        user_id: user,
        ..ListConversationsRequest::default()
    });
    memory.list_conversations(request).await.unwrap();
    let (trace, request) = traced(DeleteConversationRequest {
        conversation_id: conversation.clone(),
        ..DeleteConversationRequest::default()
    });
    memory.delete_conversation(request).await.unwrap();
    calls.push(("DeleteConversation", trace));

    let exported = observed.stop().await;
    exported.assert_conversation_of_calls(&calls, &conversation);
    for span in exported.call(&without_conversation).spans {
        for key in CONVERSATION_KEYS {
            assert!(!span.attributes.contains_key(key), "{span:#?}");
        }
    }
}

async fn failed_calls_are_traced_with_their_conversation(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut calls = Vec::new();

    let (trace, request) = traced(GetHistoryRequest {
        user_id: "somebody-else".to_owned(),
        ..history(&conversation)
    });
    let error = memory.get_history(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    calls.push(("GetHistory", trace));

    let (trace, request) = traced(GetHistoryRequest {
        min_seq: 7,
        ..history(&conversation)
    });
    let error = memory.get_history(request).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    calls.push(("GetHistory", trace));

    let (trace, request) = traced(save(&conversation, vec![message(Role::User, "\0")]));
    let error = memory.save_messages(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    calls.push(("SaveMessages", trace));

    let missing = new_id();
    let (trace, request) = traced(save(&missing, turn("one", "two")));
    let error = memory.save_messages(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);

    let exported = observed.stop().await;
    exported.assert_conversation_of_calls(&calls, &conversation);
    exported.assert_conversation_of_calls(&[("SaveMessages", trace)], &missing);
}

async fn concurrent_calls_are_traced_with_their_own_conversation(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let mut memory = observed.memory().await;
        calls.spawn(async move {
            let (begun, request) = traced(begin(&new_user()));
            let answer = memory.begin_turn(request).await.unwrap().into_inner();
            let conversation = answer.conversation.unwrap().id;
            let (saved, request) = traced(save(&conversation, turn("one", "two")));
            memory.save_messages(request).await.unwrap();
            let traces = [("BeginTurn", begun), ("SaveMessages", saved)];
            (traces, conversation)
        });
    }
    let calls = calls.join_all().await;
    let exported = observed.stop().await;
    for (traces, conversation) in calls {
        exported.assert_conversation_of_calls(&traces, &conversation);
    }
}

impl ExportedTelemetry {
    /// Asserts that the spans of all calls, given with their methods, contain the
    /// conversation.
    pub(crate) fn assert_conversation_of_calls(&self, calls: &[(&str, Trace)], conversation: &str) {
        for (method, trace) in calls {
            let call = self.call(trace);
            assert!(
                call.server.name.ends_with(&format!("/{method}")),
                "{call:#?}"
            );
            call.assert_conversation(conversation);
        }
        for span in &self.spans {
            // LangSmith would group threads by this attribute.
            assert!(
                !span
                    .attributes
                    .contains_key("langsmith.metadata.session_id")
            );
        }
    }
}
