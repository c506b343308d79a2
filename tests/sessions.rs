//! The contract of the session tier, run on both implementations, and tests of each.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{sync::Arc, time::Duration};

use conversation_memory::{
    domain::{ConversationId, DeptId, NewSession, SessionId, SystemClock, UserId},
    redis::Redis,
    sessions::{Sessions, in_process::InProcessSessions, redis::RedisSessions},
};
use test_support::{
    eventually,
    redis_server::{RedisServer, call, connect, connect_and_wait, shared_url, unique_prefix},
};
use uuid::Uuid;

const LONG: Duration = Duration::from_mins(10);

fn session_id() -> SessionId {
    #[expect(clippy::disallowed_methods, reason = "tests have no id source")]
    SessionId::from_uuid(Uuid::now_v7())
}

fn conversation_id() -> ConversationId {
    ConversationId::from_uuid(session_id().as_uuid())
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn new_session(user_id: &str) -> NewSession {
    NewSession {
        id: session_id(),
        user_id: user(user_id),
        dept_id: None,
        conversation_id: None,
    }
}

fn in_process(ttl: Duration) -> InProcessSessions {
    InProcessSessions::new(ttl, Arc::new(SystemClock))
}

async fn shared() -> Redis {
    connect_and_wait(&shared_url(), &unique_prefix()).await
}

/// Creates tests of a case on both implementations.
macro_rules! on_both {
    ($($case:ident)*) => {
        mod in_process_store {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&super::in_process(super::LONG)).await;
            })*
        }
        mod redis_store {
            $(#[tokio::test]
            async fn $case() {
                let redis = super::shared().await;
                super::$case(&super::RedisSessions::new(redis, super::LONG)).await;
            })*
        }
    };
}

on_both! {
    a_started_session_can_be_read
    starting_a_live_session_renews_it
    a_session_belongs_to_one_user
    starting_a_live_session_changes_its_conversation
    operations_on_unknown_sessions_find_nothing
    an_ended_session_is_not_found
    sessions_are_listed_by_last_use
    accepts_every_user_id
}

async fn a_started_session_can_be_read(sessions: &dyn Sessions) {
    let new = NewSession {
        dept_id: Some(DeptId::parse("Ünïts / 部門").unwrap()),
        conversation_id: Some(conversation_id()),
        ..new_session("ann")
    };
    let started = sessions.start(&new).await.unwrap().unwrap();
    assert_eq!(started.id, new.id);
    assert_eq!(started.user_id, new.user_id);
    assert_eq!(started.dept_id, new.dept_id);
    assert_eq!(started.conversation_id, new.conversation_id);
    assert_eq!(started.created_at, started.last_active_at);
    let ttl = started.expires_at - started.last_active_at;
    assert!((ttl.to_std().unwrap().as_secs_f64() - LONG.as_secs_f64()).abs() < 0.1);

    let read = sessions.get(new.id).await.unwrap().unwrap();
    assert!(
        (read.expires_at - started.expires_at)
            .num_milliseconds()
            .abs()
            < 100
    );
    assert_eq!(
        read.last_active_at, started.last_active_at,
        "reading does not renew a session"
    );
    assert_eq!(read.created_at, started.created_at);
    assert_eq!(read.dept_id, new.dept_id);
    assert_eq!(read.conversation_id, new.conversation_id);
}

async fn starting_a_live_session_renews_it(sessions: &dyn Sessions) {
    let new = NewSession {
        conversation_id: Some(conversation_id()),
        ..new_session("ann")
    };
    let first = sessions.start(&new).await.unwrap().unwrap();
    let unnamed = NewSession {
        conversation_id: None,
        ..new.clone()
    };
    let second = sessions.start(&unnamed).await.unwrap().unwrap();
    assert_eq!(second.created_at, first.created_at);
    assert!(second.last_active_at >= first.last_active_at);
    assert_eq!(second.conversation_id, new.conversation_id);

    let other = NewSession {
        conversation_id: Some(conversation_id()),
        ..new
    };
    let third = sessions.start(&other).await.unwrap().unwrap();
    assert_eq!(third.conversation_id, other.conversation_id);
}

async fn a_session_belongs_to_one_user(sessions: &dyn Sessions) {
    let new = new_session("ann");
    let started = sessions.start(&new).await.unwrap().unwrap();
    let bob = user("bob");
    let foreign = NewSession {
        user_id: bob.clone(),
        ..new.clone()
    };
    assert_eq!(sessions.start(&foreign).await.unwrap(), None);
    assert_eq!(sessions.touch(new.id, Some(&bob)).await.unwrap(), None);
    assert!(sessions.list(&bob).await.unwrap().is_empty());

    let read = sessions.get(new.id).await.unwrap().unwrap();
    assert_eq!(read.user_id, new.user_id);
    assert_eq!(read.conversation_id, None);
    assert_eq!(
        read.last_active_at, started.last_active_at,
        "nothing was renewed"
    );
    assert_eq!(sessions.list(&new.user_id).await.unwrap().len(), 1);
}

async fn starting_a_live_session_changes_its_conversation(sessions: &dyn Sessions) {
    let new = new_session("ann");
    sessions.start(&new).await.unwrap().unwrap();
    let conversation = conversation_id();
    let moved = NewSession {
        conversation_id: Some(conversation),
        ..new.clone()
    };
    let bound = sessions.start(&moved).await.unwrap().unwrap();
    assert_eq!(bound.conversation_id, Some(conversation));
    let read = sessions.get(new.id).await.unwrap().unwrap();
    assert_eq!(read.conversation_id, Some(conversation));
    let touched = sessions.touch(new.id, None).await.unwrap().unwrap();
    assert_eq!(touched.conversation_id, Some(conversation));
}

async fn operations_on_unknown_sessions_find_nothing(sessions: &dyn Sessions) {
    let (id, ann) = (session_id(), user("ann"));
    assert_eq!(sessions.get(id).await.unwrap(), None);
    assert_eq!(sessions.touch(id, None).await.unwrap(), None);
    assert_eq!(sessions.touch(id, Some(&ann)).await.unwrap(), None);
    assert!(!sessions.end(id).await.unwrap());
    assert!(sessions.list(&ann).await.unwrap().is_empty());
}

async fn an_ended_session_is_not_found(sessions: &dyn Sessions) {
    let new = new_session("ann");
    sessions.start(&new).await.unwrap().unwrap();
    assert!(sessions.end(new.id).await.unwrap());
    assert!(!sessions.end(new.id).await.unwrap());
    assert_eq!(sessions.get(new.id).await.unwrap(), None);
    assert!(sessions.list(&new.user_id).await.unwrap().is_empty());

    let reused = NewSession {
        user_id: user("bob"),
        ..new
    };
    let started = sessions.start(&reused).await.unwrap();
    assert!(
        started.is_some(),
        "the id of an ended session can be used again"
    );
}

async fn sessions_are_listed_by_last_use(sessions: &dyn Sessions) {
    let ann = user("ann");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let new = new_session("ann");
        sessions.start(&new).await.unwrap().unwrap();
        ids.push(new.id);
        // In Redis the order has a resolution of microseconds.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sessions.start(&new_session("bob")).await.unwrap().unwrap();
    sessions.touch(ids[1], Some(&ann)).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    sessions.get(ids[0]).await.unwrap().unwrap();

    let listed = sessions.list(&ann).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|session| session.id).collect();
    assert_eq!(listed, [ids[1], ids[2], ids[0]]);
}

async fn accepts_every_user_id(sessions: &dyn Sessions) {
    for name in [
        "a:b{c} *",
        "{}",
        "a:sessions",
        "用户 🙂\u{202e}",
        "a\r\nb",
        "'\"\\",
    ] {
        let new = new_session(name);
        sessions.start(&new).await.unwrap().unwrap();
        let listed = sessions.list(&new.user_id).await.unwrap();
        assert_eq!(listed.len(), 1, "{name}");
        assert_eq!(listed[0].user_id, new.user_id);
        let touched = sessions.touch(new.id, Some(&new.user_id)).await.unwrap();
        assert!(touched.is_some(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_process_sessions_are_renewed_and_expire() {
    let sessions = in_process(Duration::from_mins(1));
    let new = new_session("ann");
    sessions.start(&new).await.unwrap().unwrap();
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(sessions.touch(new.id, None).await.unwrap().is_some());
    }
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(sessions.get(new.id).await.unwrap().is_some());
    assert_eq!(sessions.list(&new.user_id).await.unwrap().len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(sessions.list(&new.user_id).await.unwrap().is_empty());
    assert_eq!(
        sessions.touch(new.id, Some(&new.user_id)).await.unwrap(),
        None
    );
    assert_eq!(sessions.get(new.id).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn in_process_sessions_remove_expired_ones() {
    let sessions = in_process(Duration::from_mins(1));
    for _ in 0..100 {
        for _ in 0..10 {
            sessions.start(&new_session("ann")).await.unwrap().unwrap();
        }
        tokio::time::advance(Duration::from_secs(6)).await;
    }
    // Ten are started every six seconds.
    assert!(
        sessions.stored_sessions() <= 160,
        "{}",
        sessions.stored_sessions()
    );
}

#[tokio::test]
async fn sessions_in_redis_are_renewed_and_expire() {
    let (ttl, prefix) = (Duration::from_millis(600), unique_prefix());
    let redis = connect_and_wait(&shared_url(), &prefix).await;
    let sessions = RedisSessions::new(redis, ttl);
    let (used, unused) = (new_session("ann"), new_session("ann"));
    sessions.start(&used).await.unwrap().unwrap();
    sessions.start(&unused).await.unwrap().unwrap();
    eventually("the unused session expires", async || {
        let touched = sessions.touch(used.id, Some(&used.user_id)).await.unwrap();
        assert!(touched.is_some(), "the used session is live");
        sessions.get(unused.id).await.unwrap().is_none()
    })
    .await;
    let listed = sessions.list(&used.user_id).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, used.id);
    let set = format!("{prefix}user:ann:sessions");
    let size = call(&shared_url(), &["SCARD", &set]).await.unwrap();
    assert_eq!(size, "1", "the expired session is removed from the set");

    eventually("all keys expire", async || {
        let keys = call(&shared_url(), &["KEYS", &format!("{prefix}*")]).await;
        keys.unwrap() == "*0"
    })
    .await;
}

#[tokio::test]
async fn many_sessions_are_listed_in_pages() {
    const SESSIONS: usize = 5_000;
    let server = RedisServer::start(&[]).await;
    let redis = connect_and_wait(&server.url(), "").await;
    let sessions = RedisSessions::new(redis, LONG);
    let new = new_session("ann");
    sessions.start(&new).await.unwrap().unwrap();
    // Copies of the session, of which every tenth has ended.
    let copy = format!(
        "for i = 1, {SESSIONS} - 1 do \
         local id = string.format('{{}}%012d', i) \
         redis.call('SADD', 'user:ann:sessions', id) \
         if i % 10 > 0 then redis.call('COPY', 'session:{}', 'session:' .. id) end end",
        new.id
    );
    let copy = copy.replace("{}", "00000000-0000-7000-8000-");
    let copied = server.call(&["EVAL", &copy, "0"]).await;
    assert_eq!(copied, "", "the script returns nothing");
    let listed = sessions.list(&new.user_id).await.unwrap();
    assert_eq!(listed.len(), SESSIONS - (SESSIONS - 1) / 10);
    let mut ids: Vec<_> = listed.iter().map(|session| session.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), listed.len(), "each session is listed once");
    let size = server.call(&["SCARD", "user:ann:sessions"]).await;
    assert_eq!(size, listed.len().to_string(), "ended ones are removed");
    // A command that returns all ids would keep Redis from replying to other callers.
    let commands = server.call(&["INFO", "commandstats"]).await;
    assert!(commands.contains("cmdstat_sscan"), "{commands}");
    assert!(!commands.contains("cmdstat_smembers"), "{commands}");
}

#[tokio::test]
async fn invalid_keys_are_no_sessions() {
    let (url, prefix) = (shared_url(), unique_prefix());
    let sessions = RedisSessions::new(connect_and_wait(&url, &prefix).await, LONG);
    let new = new_session("ann");
    let key = format!("{prefix}session:{}", new.id);
    let set = format!("{prefix}user:ann:sessions");
    let garbage: [&[&str]; 6] = [
        &["SET", &key, "text"],
        &["HSET", &key, "user_id", "ann"],
        &[
            "HSET",
            &key,
            "user_id",
            "ann",
            "created_at",
            "now",
            "last_active_at",
            "1",
        ],
        &[
            "HSET",
            &key,
            "user_id",
            "",
            "created_at",
            "1",
            "last_active_at",
            "1",
        ],
        &[
            "HSET",
            &key,
            "user_id",
            "ann",
            "created_at",
            "1",
            "last_active_at",
            "1",
            "conversation_id",
            "no uuid",
        ],
        &["RPUSH", &key, "a"],
    ];
    for command in garbage {
        call(&url, command).await.unwrap();
        call(&url, &["PEXPIRE", &key, "600000"]).await.unwrap();
        assert_eq!(sessions.get(new.id).await.unwrap(), None, "{command:?}");
        assert_eq!(call(&url, &["EXISTS", &key]).await.unwrap(), "0");
        call(&url, command).await.unwrap();
        call(&url, &["PEXPIRE", &key, "600000"]).await.unwrap();
        assert_eq!(sessions.touch(new.id, None).await.unwrap(), None);
    }
    call(&url, &["SET", &key, "text"]).await.unwrap();
    call(&url, &["SET", &set, "text"]).await.unwrap();
    assert!(sessions.list(&new.user_id).await.unwrap().is_empty());
    call(&url, &["SET", &set, "text"]).await.unwrap();
    assert!(sessions.start(&new).await.unwrap().is_some());
    call(&url, &["SADD", &set, "garbage", &session_id().to_string()])
        .await
        .unwrap();
    assert_eq!(sessions.list(&new.user_id).await.unwrap().len(), 1);
    assert_eq!(call(&url, &["SCARD", &set]).await.unwrap(), "1");

    call(&url, &["DEL", &set]).await.unwrap();
    sessions.touch(new.id, None).await.unwrap().unwrap();
    let listed = sessions.list(&new.user_id).await.unwrap();
    assert_eq!(listed.len(), 1, "the next use restores the set");
}

#[tokio::test]
async fn ended_sessions_do_not_accumulate_in_an_unlisted_set() {
    let (url, prefix) = (shared_url(), unique_prefix());
    let sessions = RedisSessions::new(connect_and_wait(&url, &prefix).await, LONG);
    let set = format!("{prefix}user:ann:sessions");
    let ended: Vec<_> = (0..200).map(|_| session_id().to_string()).collect();
    let mut add = vec!["SADD", &set];
    add.extend(ended.iter().map(String::as_str));
    call(&url, &add).await.unwrap();
    eventually("most ended sessions are removed", async || {
        let new = new_session("ann");
        sessions.start(&new).await.unwrap().unwrap();
        sessions.end(new.id).await.unwrap();
        let size = call(&url, &["SCARD", &set]).await.unwrap();
        size.parse::<u32>().unwrap() <= 64
    })
    .await;
}

#[tokio::test]
async fn without_redis_sessions_are_unavailable() {
    let mut server = RedisServer::stopped(&[]);
    let redis = connect(&server.url(), "");
    let sessions = RedisSessions::new(redis.clone(), LONG);
    let new = new_session("ann");
    assert!(sessions.start(&new).await.is_err());

    server.run().await;
    redis.wait_until_available().await;
    eventually("sessions are available", async || {
        sessions.start(&new).await.is_ok()
    })
    .await;

    server.freeze();
    eventually("the circuit breaker opens", async || {
        sessions.get(new.id).await.is_err() && !redis.is_available()
    })
    .await;
    assert!(sessions.list(&new.user_id).await.is_err());
    server.thaw();
    eventually("sessions are available again", async || {
        sessions
            .get(new.id)
            .await
            .is_ok_and(|found| found.is_some())
    })
    .await;
    redis.shutdown().await;
}
