//! Reads that cost much: responses that grow, long lists, and searches.

use conversation_memory::proto::{
    ListMessagesRequest, ListSessionsRequest, Message, Role, SearchMessagesRequest,
};
use prost_types::{ListValue, Value, value::Kind};
use test_support::{
    new_user,
    requests::{create_session, message, new_conversation, object, save},
    sidecar::{Form, Sidecar},
};
use tokio::task::JoinSet;

use crate::turns::{Access, Turns};

test_support::in_both_forms!(
    large_numbers_in_metadata_do_not_exhaust_memory,
    many_sessions_of_one_user_do_not_block_others,
    expensive_searches_do_not_block_turns,
);

async fn large_numbers_in_metadata_do_not_exhaust_memory(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let id = new_conversation(&mut memory, &new_user()).await;
    let number = Value {
        kind: Some(Kind::NumberValue(1e308)),
    };
    let list = ListValue {
        values: vec![number; 5_000],
    };
    let metadata = object(&[("n", Kind::ListValue(list))]);
    for _ in 0..20 {
        let message = Message {
            metadata: Some(metadata.clone()),
            ..message(Role::User, "numbers")
        };
        memory
            .save_messages(save(&id, vec![message]))
            .await
            .unwrap();
    }
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut reads = JoinSet::new();
    for _ in 0..8 {
        let (mut memory, id) = (sidecar.memory(), id.clone());
        reads.spawn(async move {
            let list = ListMessagesRequest {
                conversation_id: id,
                page_size: 1000,
                ..ListMessagesRequest::default()
            };
            let _ = memory.list_messages(list).await;
        });
    }
    reads.join_all().await;
    turns.finish(&sidecar).await;
}

async fn many_sessions_of_one_user_do_not_block_others(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let user = new_user();
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (mut sessions, user) = (sidecar.sessions(), user.clone());
        callers.spawn(async move {
            for _ in 0..200 {
                // The calls may be rejected, those of others may not.
                let _ = sessions.create_session(create_session(&user)).await;
            }
            for _ in 0..5 {
                let list = ListSessionsRequest {
                    user_id: user.clone(),
                    ..ListSessionsRequest::default()
                };
                let _ = sessions.list_sessions(list).await;
            }
        });
    }
    callers.join_all().await;
    turns.finish(&sidecar).await;
}

async fn expensive_searches_do_not_block_turns(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let id = new_conversation(&mut memory, &user).await;
    let letters: Vec<_> = ('a'..='z').map(String::from).collect();
    let text = format!("{} ", letters.join(" ")).repeat((16 << 10) / 52);
    for _ in 0..4 {
        let messages = vec![message(Role::User, &text); 25];
        memory.save_messages(save(&id, messages)).await.unwrap();
    }
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut searches = JoinSet::new();
    for _ in 0..12 {
        let (mut memory, user, query) = (sidecar.memory(), user.clone(), letters.join(" "));
        searches.spawn(async move {
            for _ in 0..3 {
                let search = SearchMessagesRequest {
                    user_id: user.clone(),
                    query: query.clone(),
                    page_size: 100,
                    ..SearchMessagesRequest::default()
                };
                let _ = memory.search_messages(search).await;
            }
        });
    }
    searches.join_all().await;
    turns.finish(&sidecar).await;
}
