//! Redis is not needed to continue a conversation.

use conversation_memory::proto::{
    CreateSessionRequest, DeleteConversationRequest, Role, SessionState, Source,
};
use tonic::Code;

use crate::{Servers, begun_with_session, read, read_from_cache};
use test_support::{
    eventually, new_user,
    redis_server::RedisServer,
    requests::{begin, contents, history, message, new_conversation, save, save_text, seqs},
    sidecar::{Form, Sidecar},
};

#[tokio::test]
async fn conversations_continue_without_redis() {
    let mut servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let user = new_user();
    let begun = begun_with_session(&mut memory, &begin(&user)).await;
    let session = begun.session.unwrap().id;
    let conversation = begun.conversation.unwrap().id;
    save_text(&mut memory, &conversation, "one").await;
    read_from_cache(&mut memory, &conversation, &["one"]).await;

    servers.redis.kill();
    let answer = read(&mut memory, &conversation).await;
    assert_eq!(answer.source(), Source::Store);
    assert_eq!(contents(&answer.messages), ["one"]);
    save_text(&mut memory, &conversation, "two").await;
    assert_eq!(
        contents(&read(&mut memory, &conversation).await.messages),
        ["one", "two"]
    );
    let request = CreateSessionRequest {
        user_id: user.clone(),
        ..CreateSessionRequest::default()
    };
    let refused = sessions.create_session(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let mut turn = begin(&user);
    turn.session_id = session;
    let begun = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
    assert_eq!(begun.session_state(), SessionState::Unavailable);
    assert!(begun.session.is_none());
    // The store has recorded the conversation of the session.
    assert_eq!(begun.conversation.unwrap().id, conversation);
    assert_eq!(contents(&begun.messages), ["one", "two"]);

    servers.redis.run().await;
    read_from_cache(&mut memory, &conversation, &["one", "two"]).await;
    let begun = begun_with_session(&mut memory, &turn).await;
    assert_eq!(begun.session_state(), SessionState::Resumed);
}

#[tokio::test]
async fn sidecar_starts_without_redis() {
    let servers = Servers::start().await;
    let mut redis = RedisServer::stopped(&[]);
    let form = Form::Servers {
        database_url: servers.postgres.url(),
        redis_url: redis.url(),
    };
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let begun = memory.begin_turn(begin(&new_user())).await.unwrap();
    let begun = begun.into_inner();
    assert_eq!(begun.session_state(), SessionState::Unavailable);
    let conversation = begun.conversation.unwrap().id;
    save_text(&mut memory, &conversation, "one").await;
    redis.run().await;
    read_from_cache(&mut memory, &conversation, &["one"]).await;
}

#[tokio::test]
async fn suspended_redis_causes_no_stale_read() {
    let servers = Servers::start().await;
    let sidecars = [
        Sidecar::start(&servers.form()).await,
        Sidecar::start(&servers.form()).await,
    ];
    let [mut memory, mut other] = sidecars.each_ref().map(Sidecar::memory);
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;
    read_from_cache(&mut other, &conversation, &["one"]).await;
    servers.redis.freeze();
    save_text(&mut memory, &conversation, "two").await;
    for memory in [&mut memory, &mut other] {
        let answer = read(memory, &conversation).await;
        assert_eq!(answer.source(), Source::Store);
        assert_eq!(seqs(&answer.messages), [1, 2]);
    }
    servers.redis.thaw();
    // Windows that lack the save that Redis missed are never read.
    read_from_cache(&mut memory, &conversation, &["one", "two"]).await;
    read_from_cache(&mut other, &conversation, &["one", "two"]).await;
}

#[tokio::test]
async fn unexpected_redis_replies_lose_nothing() {
    let servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let key = format!("history:{conversation}:recent");
    let disturbances: [&[&[&str]]; 8] = [
        &[&["FLUSHALL"]],
        &[&["SCRIPT", "FLUSH"]],
        &[&["DEL", &key], &["SET", &key, "no hash"]],
        &[&["HSET", &key, "hi", "garbage"]],
        &[&["HSET", &key, "s:0", "garbage"]],
        &[&["CONFIG", "SET", "maxmemory", "1"]],
        &[&["CONFIG", "SET", "maxmemory", "0"]],
        &[
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ],
    ];
    let mut expected = Vec::new();
    for (round, commands) in disturbances.iter().enumerate() {
        read(&mut memory, &conversation).await;
        for command in *commands {
            servers.redis.call(command).await;
            let text = format!("{round}: {}", command.join(" "));
            save_text(&mut memory, &conversation, &text).await;
            expected.push(text);
            let newest = &expected[expected.len().saturating_sub(6)..];
            for _ in 0..3 {
                let answer = read(&mut memory, &conversation).await;
                assert_eq!(contents(&answer.messages), newest);
            }
        }
    }
    let newest: Vec<&str> = expected
        .iter()
        .rev()
        .take(6)
        .rev()
        .map(String::as_str)
        .collect();
    read_from_cache(&mut memory, &conversation, &newest).await;
}

#[tokio::test]
async fn session_that_was_not_created_replaces_none() {
    let mut servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let user = new_user();
    let begun = begun_with_session(&mut memory, &begin(&user)).await;
    let (session, conversation) = (begun.session.unwrap().id, begun.conversation.unwrap().id);
    servers.redis.kill();
    let request = CreateSessionRequest {
        user_id: user.clone(),
        conversation_id: conversation.clone(),
        ..CreateSessionRequest::default()
    };
    let refused = sessions.create_session(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let mut turn = begin(&user);
    turn.conversation_id.clone_from(&conversation);
    let begun = memory.begin_turn(turn).await.unwrap().into_inner();
    assert_eq!(begun.session_state(), SessionState::Unavailable);
    // The earlier session still belongs to its conversation.
    let mut turn = begin(&user);
    turn.session_id = session;
    let begun = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
    assert_eq!(begun.conversation.unwrap().id, conversation);
    servers.redis.run().await;
    eventually("sessions are available again", async || {
        let begun = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
        assert_eq!(begun.conversation.as_ref().unwrap().id, conversation);
        begun.session.is_some()
    })
    .await;
}

#[tokio::test]
async fn window_of_a_deleted_conversation_is_dropped() {
    let servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let mut memory = sidecar.memory();
    for deletes in [true, false] {
        let conversation = new_conversation(&mut memory, &new_user()).await;
        save_text(&mut memory, &conversation, "private").await;
        read_from_cache(&mut memory, &conversation, &["private"]).await;
        // As after a failover that lost the removal of the window.
        servers.postgres.execute("DELETE FROM conversations").await;
        let found = if deletes {
            let request = DeleteConversationRequest {
                conversation_id: conversation.clone(),
                ..DeleteConversationRequest::default()
            };
            memory.delete_conversation(request).await.map(drop)
        } else {
            let request = save(&conversation, vec![message(Role::User, "late")]);
            memory.save_messages(request).await.map(drop)
        };
        assert_eq!(found.unwrap_err().code(), Code::NotFound);
        let gone = memory
            .get_history(history(&conversation))
            .await
            .unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn keys_expire_with_the_session() {
    let servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let begun = begun_with_session(&mut memory, &begin(&user)).await;
    let conversation = begun.conversation.unwrap().id;
    save_text(&mut memory, &conversation, "one").await;
    read_from_cache(&mut memory, &conversation, &["one"]).await;
    let session = begun.session.unwrap().id;
    for key in [
        format!("session:{session}"),
        format!("user:{user}:live"),
        format!("history:{conversation}:recent"),
    ] {
        let ttl: u64 = servers.redis.call(&["TTL", &key]).await.parse().unwrap();
        assert!((1..=1800).contains(&ttl), "{key}: {ttl}");
    }
}
