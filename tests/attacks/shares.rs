//! Callers with many calls, next to one with few.

use conversation_memory::proto::{GetHistoryRequest, Role};
use test_support::{
    new_user,
    requests::{history, message, save},
    sidecar::{Form, Memory, Sidecar},
};
use tokio::task::JoinSet;

use crate::{
    tokens::{GREEDY, MODEST, TokensFile},
    turns::{Access, Turns, with_access},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_many_calls_leaves_a_share_to_others() {
    let form = Form::servers();
    let tokens = TokensFile::new();
    let settings = [tokens.setting(), ("MAX_CONCURRENT_CALLS", "64")];
    let sidecar = Sidecar::start_with(&form, &settings).await;
    let access = Access {
        token: Some(MODEST),
        ..Access::default()
    };
    let turns = Turns::start(&sidecar, access).await;
    let mut memory = Memory::new(sidecar.channel());
    let id = conversation(&mut memory).await;
    let mut calls = JoinSet::new();
    for number in 0..500 {
        // Several connections, because each has a limit of its own.
        let mut memory = if number % 50 == 0 {
            Memory::new(sidecar.channel())
        } else {
            memory.clone()
        };
        let id = id.clone();
        calls.spawn(async move {
            loop {
                // Rejections are repeated at once.
                if number % 2 == 0 {
                    let text = vec![message(Role::User, "more")];
                    let save = with_access(save(&id, text), Some(GREEDY));
                    let _ = memory.save_messages(save).await;
                } else {
                    let read = GetHistoryRequest {
                        limit: 100,
                        ..history(&id)
                    };
                    let _ = memory.get_history(with_access(read, Some(GREEDY))).await;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    turns.pass(15).await;
    turns.finish(&sidecar).await;
}

async fn conversation(memory: &mut Memory) -> String {
    let create = conversation_memory::proto::CreateConversationRequest {
        user_id: new_user(),
        ..Default::default()
    };
    let created = memory.create_conversation(with_access(create, Some(GREEDY)));
    created.await.unwrap().into_inner().conversation.unwrap().id
}
