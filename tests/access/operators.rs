//! Methods for operators: who may call them, and the transfer of conversations.

use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, GetConversationRequest, GetHistoryRequest,
    ListConversationsRequest, SaveMessagesRequest, SearchMessagesRequest, SessionState, Source,
    TransferConversationRequest, TransferConversationResponse,
};
use tonic::{Code, Status};

use crate::{
    client::{contents_of, with},
    tokens::{OTHER, TOKEN, TokenFile, authorization},
};
use test_support::{
    eventually, new_id, new_user,
    requests::{begin, history, reason, rejected_field, save, save_text, turn},
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    only_operators_transfer_conversations,
    a_transferred_conversation_belongs_to_the_new_owner_alone,
    concurrent_turns_are_before_or_after_a_transfer,
);

fn transfer_of(conversation: &str, new_user: &str) -> TransferConversationRequest {
    TransferConversationRequest {
        conversation_id: conversation.to_owned(),
        new_user_id: new_user.to_owned(),
        ..TransferConversationRequest::default()
    }
}

async fn transfer(
    memory: &mut Memory,
    request: TransferConversationRequest,
    token: &str,
) -> Result<TransferConversationResponse, Status> {
    let request = with(request, Some(&authorization(token)));
    let transferred = memory.transfer_conversation(request).await?;
    Ok(transferred.into_inner())
}

async fn only_operators_transfer_conversations(form: Form) {
    let file = TokenFile::of(&[("agent", TOKEN), ("admin", OTHER)]);
    let sidecar = file
        .start(
            &form,
            &[("OPERATORS", "support, admin"), ("REQUIRE_USER_ID", "true")],
        )
        .await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let turn = with(begin(&user), Some(&authorization(TOKEN)));
    let begun = memory.begin_turn(turn).await.unwrap().into_inner();
    let conversation = begun.conversation.unwrap().id;
    let mut refusals = Vec::new();
    for request in [
        transfer_of(&conversation, &new_user()),
        transfer_of(&new_id(), &new_user()),
        TransferConversationRequest::default(),
    ] {
        refusals.push(transfer(&mut memory, request, TOKEN).await.unwrap_err());
    }
    for refused in &refusals {
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("OPERATORS"), "{refused}");
        assert_eq!(contents_of(refused), contents_of(&refusals[0]));
    }
    let refused = transfer(&mut memory, transfer_of(&conversation, ""), "wrong").await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);

    let new = new_user();
    let mut request = transfer_of(&conversation, &new);
    let invalid = transfer(&mut memory, request.clone(), OTHER)
        .await
        .unwrap_err();
    assert_eq!(rejected_field(&invalid), "user_id");
    request.user_id = new_user();
    let missing = transfer(&mut memory, request.clone(), OTHER)
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    request.user_id = user;
    for _ in 0..2 {
        let transferred = transfer(&mut memory, request.clone(), OTHER).await.unwrap();
        assert_eq!(transferred.conversation.unwrap().user_id, new);
        assert_eq!(
            transferred.transferred_ids,
            std::slice::from_ref(&conversation)
        );
    }
    request.new_user_id.clear();
    let invalid = transfer(&mut memory, request.clone(), OTHER)
        .await
        .unwrap_err();
    assert_eq!(rejected_field(&invalid), "new_user_id");
    request.new_user_id = new;
    request.new_dept_id = "x".repeat(256);
    let invalid = transfer(&mut memory, request, OTHER).await.unwrap_err();
    assert_eq!(rejected_field(&invalid), "new_dept_id");
}

#[tokio::test]
async fn without_operators_nobody_transfers_conversations() {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let refused = memory
        .transfer_conversation(transfer_of(&new_id(), "ann"))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("OPERATORS"), "{refused}");
}

async fn cached(memory: &mut Memory, conversation: &str, user: &str) {
    let request = GetHistoryRequest {
        user_id: user.to_owned(),
        ..history(conversation)
    };
    eventually("the window is filled", async || {
        let read = memory.get_history(request.clone()).await.unwrap();
        read.into_inner().source() == Source::Cache
    })
    .await;
}

async fn search(memory: &mut Memory, user: &str) -> usize {
    let request = SearchMessagesRequest {
        user_id: user.to_owned(),
        query: "holidays".to_owned(),
        ..SearchMessagesRequest::default()
    };
    let found = memory.search_messages(request).await.unwrap();
    found.into_inner().hits.len()
}

async fn list(memory: &mut Memory, user: &str) -> usize {
    let request = ListConversationsRequest {
        user_id: user.to_owned(),
        ..ListConversationsRequest::default()
    };
    let listed = memory.list_conversations(request).await.unwrap();
    listed.into_inner().conversations.len()
}

async fn a_transferred_conversation_belongs_to_the_new_owner_alone(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("OPERATORS", "*")]).await;
    let mut memory = sidecar.memory();
    let (ann, bob) = (new_user(), new_user());
    let begun = memory.begin_turn(begin(&ann)).await.unwrap().into_inner();
    let (session, conversation) = (begun.session.unwrap().id, begun.conversation.unwrap().id);
    let mut turn = save(&conversation, turn("holidays?", "25 holidays."));
    turn.session_id.clone_from(&session);
    turn.request_id = "turn".to_owned();
    turn.user_id.clone_from(&ann);
    memory.save_messages(turn.clone()).await.unwrap();
    let branch = BranchConversationRequest {
        conversation_id: conversation.clone(),
        at_seq: 1,
        ..BranchConversationRequest::default()
    };
    let branch = memory
        .branch_conversation(branch)
        .await
        .unwrap()
        .into_inner();
    let branch = branch.conversation.unwrap().id;
    save_text(&mut memory, &branch, "more holidays").await;
    for id in [&conversation, &branch] {
        cached(&mut memory, id, &ann).await;
    }

    let request = transfer_of(&branch, &bob);
    let transferred = memory
        .transfer_conversation(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(transferred.conversation.unwrap().id, branch);
    let mut ids = [conversation.clone(), branch.clone()];
    ids.sort();
    let mut transferred = transferred.transferred_ids;
    transferred.sort();
    assert_eq!(transferred, ids);

    for id in [&conversation, &branch] {
        let foreign = GetHistoryRequest {
            user_id: ann.clone(),
            ..history(id)
        };
        for _ in 0..2 {
            let refused = memory.get_history(foreign.clone()).await.unwrap_err();
            assert_eq!(refused.code(), Code::NotFound);
        }
        cached(&mut memory, id, &bob).await;
        let refused = memory.get_history(foreign).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    assert_eq!(
        (
            search(&mut memory, &ann).await,
            search(&mut memory, &bob).await
        ),
        (0, 3)
    );
    assert_eq!(
        (list(&mut memory, &ann).await, list(&mut memory, &bob).await),
        (0, 2)
    );

    // The retry of a save belongs to the new owner.
    let refused = memory.save_messages(turn.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    turn.user_id.clone_from(&bob);
    let saved = memory.save_messages(turn).await.unwrap().into_inner();
    assert!(saved.replayed);

    // The session of the previous owner continues with a new conversation.
    let next = BeginTurnRequest {
        session_id: session.clone(),
        ..begin(&ann)
    };
    let begun = memory.begin_turn(next).await.unwrap().into_inner();
    assert_eq!(begun.session_state(), SessionState::Continued);
    assert!(!ids.contains(&begun.conversation.unwrap().id));
    let stolen = BeginTurnRequest {
        session_id: session,
        ..begin(&bob)
    };
    let refused = memory.begin_turn(stolen).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let turn = BeginTurnRequest {
        conversation_id: conversation,
        ..begin(&bob)
    };
    let begun = memory.begin_turn(turn).await.unwrap().into_inner();
    assert_eq!(begun.messages.len(), 2);
}

async fn concurrent_turns_are_before_or_after_a_transfer(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("OPERATORS", "*")]).await;
    let mut memory = sidecar.memory();
    let users = [new_user(), new_user()];
    let begun = memory
        .begin_turn(begin(&users[0]))
        .await
        .unwrap()
        .into_inner();
    let conversation = begun.conversation.unwrap().id;
    let saves = users.clone().map(|user| {
        let mut memory = memory.clone();
        let save = SaveMessagesRequest {
            user_id: user.clone(),
            ..save(&conversation, turn("holidays?", "25."))
        };
        let read = GetHistoryRequest {
            user_id: user,
            limit: 100,
            ..history(&conversation)
        };
        tokio::spawn(async move {
            let mut saved = 0;
            for _ in 0..60 {
                match memory.save_messages(save.clone()).await {
                    Ok(_) => saved += 2,
                    Err(refused) => assert_eq!(refused.code(), Code::NotFound),
                }
                match memory.get_history(read.clone()).await {
                    Ok(history) => assert!(history.into_inner().last_seq >= saved),
                    Err(refused) => assert_eq!(refused.code(), Code::NotFound),
                }
            }
            saved
        })
    });
    for new in users.iter().rev().cycle().take(9) {
        memory
            .transfer_conversation(transfer_of(&conversation, new))
            .await
            .unwrap();
    }
    let mut saved = 0;
    for save in saves {
        saved += save.await.unwrap();
    }
    let request = GetConversationRequest {
        conversation_id: conversation,
        ..GetConversationRequest::default()
    };
    let read = memory.get_conversation(request).await.unwrap().into_inner();
    let found = read.conversation.unwrap();
    assert_eq!((&found.user_id, found.last_seq), (&users[1], saved));
    let texts = usize::try_from(saved / 2).unwrap();
    assert_eq!(search(&mut memory, &users[1]).await, texts.min(20));
    assert_eq!(search(&mut memory, &users[0]).await, 0);
}

#[tokio::test]
async fn a_family_that_is_too_large_is_refused_with_its_limits() {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[("OPERATORS", "*")]).await;
    let mut memory = sidecar.memory();
    let begun = memory.begin_turn(begin("ann")).await.unwrap().into_inner();
    let conversation = begun.conversation.unwrap().id;
    save_text(&mut memory, &conversation, "text").await;
    let branch = BranchConversationRequest {
        conversation_id: conversation.clone(),
        at_seq: 1,
        ..BranchConversationRequest::default()
    };
    for _ in 0..1_000 {
        memory.branch_conversation(branch.clone()).await.unwrap();
    }
    let refused = memory
        .transfer_conversation(transfer_of(&conversation, "bob"))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(reason(&refused), "FAMILY_TOO_LARGE");
    assert_eq!(list(&mut memory, "bob").await, 0);
}
