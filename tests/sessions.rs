//! The contract of the session tier, run on both implementations, and tests of each.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{sync::Arc, time::Duration};

use conversation_memory::{
    domain::{ConversationId, DeptId, NewSession, Session, SessionId, SystemClock, UserId},
    redis::Redis,
    sessions::{
        SessionQuery, Sessions,
        in_process::{InProcessLimits, InProcessSessions},
        redis::RedisSessions,
    },
};
use test_support::{
    eventually,
    redis_server::{RedisServer, call, connect, connect_and_wait, shared_url, unique_prefix},
};
use uuid::Uuid;

const LONG: Duration = Duration::from_mins(10);
/// Upper bound on the sessions of a user in these tests.
const LIMIT: u32 = 40;

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
    let limits = InProcessLimits {
        sessions_per_user: LIMIT as usize,
        ..InProcessLimits::default()
    };
    InProcessSessions::new(ttl, Arc::new(SystemClock), limits)
}

/// Reads all pages of a user's sessions.
async fn list(sessions: &dyn Sessions, user: &UserId) -> Vec<Session> {
    let mut query = SessionQuery {
        user_id: user.clone(),
        after: None,
        limit: 7,
    };
    let mut listed = Vec::new();
    loop {
        let page = sessions.list(&query).await.unwrap();
        assert!(page.sessions.len() <= 7);
        listed.extend(page.sessions);
        if page.next.is_none() {
            return listed;
        }
        query.after = page.next;
    }
}

fn ids(sessions: &[Session]) -> Vec<SessionId> {
    sessions.iter().map(|session| session.id).collect()
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
                super::$case(&super::RedisSessions::new(redis, super::LONG, super::LIMIT)).await;
            })*
        }
    };
}

on_both! {
    a_started_session_can_be_read
    starting_a_live_session_renews_it
    sessions_of_users_with_the_same_id_are_independent
    an_operation_without_user_finds_the_first_users_session
    the_sessions_that_were_idle_longest_end_at_the_limit
    pages_contain_each_session_once
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
    let started = sessions.start(&new).await.unwrap();
    assert_eq!(started.id, new.id);
    assert_eq!(started.user_id, new.user_id);
    assert_eq!(started.dept_id, new.dept_id);
    assert_eq!(started.conversation_id, new.conversation_id);
    assert_eq!(started.created_at, started.last_active_at);
    let ttl = started.expires_at - started.last_active_at;
    assert!((ttl.to_std().unwrap().as_secs_f64() - LONG.as_secs_f64()).abs() < 0.1);

    let read = sessions.get(new.id, None).await.unwrap().unwrap();
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
    let first = sessions.start(&new).await.unwrap();
    let unnamed = NewSession {
        conversation_id: None,
        ..new.clone()
    };
    let second = sessions.start(&unnamed).await.unwrap();
    assert_eq!(second.created_at, first.created_at);
    assert!(second.last_active_at >= first.last_active_at);
    assert_eq!(second.conversation_id, new.conversation_id);

    let other = NewSession {
        conversation_id: Some(conversation_id()),
        ..new
    };
    let third = sessions.start(&other).await.unwrap();
    assert_eq!(third.conversation_id, other.conversation_id);
}

async fn sessions_of_users_with_the_same_id_are_independent(sessions: &dyn Sessions) {
    let new = NewSession {
        conversation_id: Some(conversation_id()),
        ..new_session("ann")
    };
    let (ann, bob) = (new.user_id.clone(), user("bob"));
    let started = sessions.start(&new).await.unwrap();
    let theirs = async || sessions.get(new.id, Some(&bob)).await.unwrap();
    let mine = async || sessions.get(new.id, Some(&ann)).await.unwrap();
    // The other user has no such session, and starts one.
    assert_eq!(theirs().await, None);
    assert_eq!(sessions.touch(new.id, Some(&bob)).await.unwrap(), None);
    assert!(!sessions.end(new.id, Some(&bob)).await.unwrap());
    assert!(list(sessions, &bob).await.is_empty());
    let other = NewSession {
        user_id: bob.clone(),
        conversation_id: Some(conversation_id()),
        ..new.clone()
    };
    for _ in 0..2 {
        let other_started = sessions.start(&other).await.unwrap();
        assert_eq!(other_started.user_id, bob);
        assert_eq!(other_started.conversation_id, other.conversation_id);
    }
    let touched = sessions.touch(new.id, Some(&bob)).await.unwrap().unwrap();
    assert_eq!(touched.conversation_id, other.conversation_id);
    assert_eq!(ids(&list(sessions, &bob).await), [new.id]);
    // None of this has changed or renewed the first session.
    assert_eq!(mine().await, Some(started.clone()));
    assert_eq!(list(sessions, &ann).await, [started]);

    assert!(sessions.end(new.id, Some(&bob)).await.unwrap());
    assert_eq!(theirs().await, None);
    assert!(list(sessions, &bob).await.is_empty());
    assert!(mine().await.is_some());
    // The other user can be first, too.
    sessions.start(&other).await.unwrap();
    assert!(sessions.end(new.id, Some(&ann)).await.unwrap());
    sessions.start(&new).await.unwrap();
    assert!(sessions.touch(new.id, Some(&ann)).await.unwrap().is_some());
    assert!(theirs().await.is_some());
    assert!(sessions.end(new.id, Some(&ann)).await.unwrap());
    assert_eq!(mine().await, None);
    assert!(theirs().await.is_some());
}

async fn an_operation_without_user_finds_the_first_users_session(sessions: &dyn Sessions) {
    let first = new_session("ann");
    let second = NewSession {
        user_id: user("bob"),
        ..first.clone()
    };
    for new in [&first, &second, &first] {
        sessions.start(new).await.unwrap();
    }
    let found = sessions.get(first.id, None).await.unwrap().unwrap();
    assert_eq!(found.user_id, first.user_id);
    let found = sessions.touch(first.id, None).await.unwrap().unwrap();
    assert_eq!(found.user_id, first.user_id);
    assert!(sessions.end(first.id, None).await.unwrap());
    assert_eq!(sessions.get(first.id, None).await.unwrap(), None);
    let found = sessions.get(first.id, Some(&second.user_id)).await.unwrap();
    assert!(found.is_some());
}

async fn the_sessions_that_were_idle_longest_end_at_the_limit(sessions: &dyn Sessions) {
    let bob = new_session("bob");
    sessions.start(&bob).await.unwrap();
    let mut started = Vec::new();
    for _ in 0..LIMIT {
        let new = new_session("ann");
        sessions.start(&new).await.unwrap();
        started.push(new.id);
    }
    let ann = user("ann");
    // The first one was used last, so that the second one ends.
    sessions
        .touch(started[0], Some(&ann))
        .await
        .unwrap()
        .unwrap();
    for further in 1..=10_usize {
        let new = new_session("ann");
        sessions.start(&new).await.unwrap();
        assert!(sessions.get(new.id, Some(&ann)).await.unwrap().is_some());
        for (index, id) in started.iter().enumerate() {
            let is_live = sessions.get(*id, Some(&ann)).await.unwrap().is_some();
            assert_eq!(is_live, index == 0 || index > further, "{index}, {further}");
        }
    }
    assert_eq!(list(sessions, &ann).await.len(), LIMIT as usize);
    assert_eq!(list(sessions, &bob.user_id).await.len(), 1);
}

async fn pages_contain_each_session_once(sessions: &dyn Sessions) {
    let ann = user("ann");
    let mut started = Vec::new();
    for _ in 0..30 {
        let new = new_session("ann");
        sessions.start(&new).await.unwrap();
        started.push(new.id);
    }
    // A page may be short, because sessions have ended.
    for id in &started[5..20] {
        assert!(sessions.end(*id, Some(&ann)).await.unwrap());
    }
    let mut expected: Vec<_> = started.drain(20..).rev().collect();
    expected.extend(started.drain(..5).rev());
    assert_eq!(ids(&list(sessions, &ann).await), expected);

    // Sessions that end or are used between two pages neither repeat nor hide others.
    let mut query = SessionQuery {
        user_id: ann.clone(),
        after: None,
        limit: 4,
    };
    let first = sessions.list(&query).await.unwrap();
    assert_eq!(ids(&first.sessions), expected[..4]);
    sessions.end(expected[3], Some(&ann)).await.unwrap();
    sessions.touch(expected[14], Some(&ann)).await.unwrap();
    query.after = first.next;
    query.limit = 100;
    let second = sessions.list(&query).await.unwrap();
    assert_eq!(ids(&second.sessions), expected[4..14]);
    assert_eq!(second.next, None);
}

async fn starting_a_live_session_changes_its_conversation(sessions: &dyn Sessions) {
    let new = new_session("ann");
    sessions.start(&new).await.unwrap();
    let conversation = conversation_id();
    let moved = NewSession {
        conversation_id: Some(conversation),
        ..new.clone()
    };
    let bound = sessions.start(&moved).await.unwrap();
    assert_eq!(bound.conversation_id, Some(conversation));
    let read = sessions.get(new.id, None).await.unwrap().unwrap();
    assert_eq!(read.conversation_id, Some(conversation));
    let touched = sessions.touch(new.id, None).await.unwrap().unwrap();
    assert_eq!(touched.conversation_id, Some(conversation));
}

async fn operations_on_unknown_sessions_find_nothing(sessions: &dyn Sessions) {
    let (id, ann) = (session_id(), user("ann"));
    assert_eq!(sessions.get(id, None).await.unwrap(), None);
    assert_eq!(sessions.touch(id, None).await.unwrap(), None);
    assert_eq!(sessions.touch(id, Some(&ann)).await.unwrap(), None);
    assert!(!sessions.end(id, None).await.unwrap());
    assert!(list(sessions, &ann).await.is_empty());
}

async fn an_ended_session_is_not_found(sessions: &dyn Sessions) {
    let new = new_session("ann");
    sessions.start(&new).await.unwrap();
    assert!(sessions.end(new.id, None).await.unwrap());
    assert!(!sessions.end(new.id, None).await.unwrap());
    assert_eq!(sessions.get(new.id, None).await.unwrap(), None);
    assert!(list(sessions, &new.user_id).await.is_empty());

    let reused = NewSession {
        user_id: user("bob"),
        ..new
    };
    let started = sessions.start(&reused).await.unwrap();
    assert_eq!(started.user_id, reused.user_id, "an id can be used again");
}

async fn sessions_are_listed_by_last_use(sessions: &dyn Sessions) {
    let ann = user("ann");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let new = new_session("ann");
        sessions.start(&new).await.unwrap();
        ids.push(new.id);
        // In Redis the order has a resolution of microseconds.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sessions.start(&new_session("bob")).await.unwrap();
    sessions.touch(ids[1], Some(&ann)).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    sessions.get(ids[0], None).await.unwrap().unwrap();

    let listed = list(sessions, &ann).await;
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
        sessions.start(&new).await.unwrap();
        let listed = list(sessions, &new.user_id).await;
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
    sessions.start(&new).await.unwrap();
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(sessions.touch(new.id, None).await.unwrap().is_some());
    }
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(sessions.get(new.id, None).await.unwrap().is_some());
    assert_eq!(list(&sessions, &new.user_id).await.len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(list(&sessions, &new.user_id).await.is_empty());
    assert_eq!(
        sessions.touch(new.id, Some(&new.user_id)).await.unwrap(),
        None
    );
    assert_eq!(sessions.get(new.id, None).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn in_process_sessions_remove_expired_ones() {
    let sessions = in_process(Duration::from_mins(1));
    for _ in 0..100 {
        for _ in 0..10 {
            sessions.start(&new_session("ann")).await.unwrap();
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
    let sessions = RedisSessions::new(redis, ttl, LIMIT);
    let (used, unused) = (new_session("ann"), new_session("ann"));
    sessions.start(&used).await.unwrap();
    sessions.start(&unused).await.unwrap();
    eventually("the unused session expires", async || {
        let touched = sessions.touch(used.id, Some(&used.user_id)).await.unwrap();
        assert!(touched.is_some(), "the used session is live");
        sessions.get(unused.id, None).await.unwrap().is_none()
    })
    .await;
    let listed = list(&sessions, &used.user_id).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, used.id);
    let set = format!("{prefix}user:ann:live");
    let size = call(&shared_url(), &["ZCARD", &set]).await.unwrap();
    assert_eq!(size, "1", "the expired session is removed from the set");

    eventually("all keys expire", async || {
        let keys = call(&shared_url(), &["KEYS", &format!("{prefix}*")]).await;
        keys.unwrap() == "*0"
    })
    .await;
}

/// Copies a session, as an earlier version would have started `count` more sessions of the same user:
/// each with a later use, in a set without order. Every tenth has ended.
async fn copy_as_earlier_version(server: &RedisServer, session: SessionId, count: usize) {
    let copy = format!(
        "redis.call('DEL', 'user:ann:live') \
         redis.call('SADD', 'user:ann:sessions', '{session}') \
         for i = 1, {count} do \
         local id = string.format('00000000-0000-7000-8000-%012d', i) \
         redis.call('SADD', 'user:ann:sessions', id) \
         if i % 10 > 0 then redis.call('COPY', 'session:{session}', 'session:' .. id) \
         local last = redis.call('HGET', 'session:' .. id, 'last_active_at') \
         redis.call('HSET', 'session:' .. id, 'last_active_at', string.format('%.0f', last + i)) \
         end end",
    );
    let copied = server.call(&["EVAL", &copy, "0"]).await;
    assert_eq!(copied, "", "the script returns nothing");
}

fn numbered(number: usize) -> SessionId {
    SessionId::parse(&format!("00000000-0000-7000-8000-{number:012}")).unwrap()
}

#[tokio::test]
async fn sessions_of_an_earlier_version_are_listed() {
    let server = RedisServer::start(&[]).await;
    let redis = connect_and_wait(&server.url(), "").await;
    let sessions = RedisSessions::new(redis, LONG, LIMIT);
    let new = new_session("ann");
    sessions.start(&new).await.unwrap();
    copy_as_earlier_version(&server, new.id, 30).await;
    let mut expected: Vec<_> = (1..=30)
        .filter(|number| number % 10 > 0)
        .map(numbered)
        .collect();
    expected.reverse();
    expected.push(new.id);
    assert_eq!(ids(&list(&sessions, &new.user_id).await), expected);
    let earlier = server.call(&["EXISTS", "user:ann:sessions"]).await;
    assert_eq!(earlier, "0");
    // One that is used is listed even before it was imported.
    copy_as_earlier_version(&server, new.id, 3).await;
    let used = sessions.touch(numbered(2), Some(&new.user_id)).await;
    used.unwrap().unwrap();
    let listed = server.call(&["ZRANGE", "user:ann:live", "0", "-1"]).await;
    assert!(listed.contains(&numbered(2).to_string()), "{listed}");
    let count = server.call(&["ZCARD", "user:ann:live"]).await;
    assert_eq!(count, "1");
}

#[tokio::test]
async fn many_sessions_of_an_earlier_version_are_ended_in_small_steps() {
    const SESSIONS: usize = 3_000;
    let server = RedisServer::start(&[]).await;
    let redis = connect_and_wait(&server.url(), "").await;
    let sessions = RedisSessions::new(redis, LONG, LIMIT);
    let new = new_session("ann");
    sessions.start(&new).await.unwrap();
    copy_as_earlier_version(&server, new.id, SESSIONS).await;
    // A page does bounded work, and is empty while sessions must be imported.
    let query = SessionQuery {
        user_id: new.user_id.clone(),
        after: None,
        limit: 10,
    };
    let first = sessions.list(&query).await.unwrap();
    assert!(first.sessions.is_empty() && first.next.is_some());
    let left = server.call(&["SCARD", "user:ann:sessions"]).await;
    assert_eq!(left, (SESSIONS + 1 - 32 * 32).to_string());
    let listed = list(&sessions, &new.user_id).await;
    let expected = (1..=SESSIONS).rev().filter(|number| number % 10 > 0);
    let expected: Vec<_> = expected.take(LIMIT as usize).map(numbered).collect();
    assert_eq!(ids(&listed), expected);
    let keys = server.call(&["DBSIZE"]).await;
    assert_eq!(keys, (LIMIT + 1).to_string(), "the others have ended");
    // A command that returns all ids would keep Redis from replying to other callers.
    let commands = server.call(&["INFO", "commandstats"]).await;
    assert!(!commands.contains("cmdstat_smembers"), "{commands}");
}

#[tokio::test]
async fn sessions_that_were_used_at_the_same_time_are_on_one_page_each() {
    let server = RedisServer::start(&[]).await;
    let redis = connect_and_wait(&server.url(), "").await;
    let sessions = RedisSessions::new(redis, LONG, 1_000);
    let new = new_session("ann");
    sessions.start(&new).await.unwrap();
    let copy = format!(
        "local last = redis.call('ZSCORE', 'user:ann:live', '{0}') \
         for i = 1, 500 do \
         local id = string.format('00000000-0000-7000-8000-%012d', i) \
         redis.call('ZADD', 'user:ann:live', last, id) \
         redis.call('COPY', 'session:{0}', 'session:' .. id) end",
        new.id
    );
    server.call(&["EVAL", &copy, "0"]).await;
    let mut listed = ids(&list(&sessions, &new.user_id).await);
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), 501);
}

#[tokio::test]
async fn in_process_sessions_are_bounded_in_number_and_bytes() {
    let limits = InProcessLimits {
        sessions_per_user: 10,
        bytes_per_user: 8_000,
        sessions: 50,
        bytes: 40_000,
    };
    let sessions = InProcessSessions::new(LONG, Arc::new(SystemClock), limits);
    let start = async |name: &str| {
        let new = new_session(name);
        sessions.start(&new).await.unwrap();
        assert!(sessions.stored_sessions() <= limits.sessions);
        assert!(sessions.stored_bytes() <= limits.bytes);
        new.id
    };
    // A user's sessions end before those of others.
    let first = start("ann").await;
    for _ in 0..200 {
        start("bob").await;
    }
    assert_eq!(list(&sessions, &user("bob")).await.len(), 10);
    assert!(sessions.get(first, None).await.unwrap().is_some());
    let long = "x".repeat(255);
    for _ in 0..20 {
        start(&long).await;
    }
    let of_long = list(&sessions, &user(&long)).await.len();
    assert!((1..10).contains(&of_long), "{of_long}");
    // Sessions of many users end in the order of their last use.
    let mut started = Vec::new();
    for number in 0..1_000 {
        started.push(start(&format!("user-{number}")).await);
    }
    let mut were_live = false;
    for id in started {
        let is_live = sessions.get(id, None).await.unwrap().is_some();
        assert!(is_live || !were_live);
        were_live = is_live;
    }
    assert_eq!(sessions.stored_sessions(), 50);
}

#[tokio::test]
async fn invalid_keys_are_no_sessions() {
    let (url, prefix) = (shared_url(), unique_prefix());
    let sessions = RedisSessions::new(connect_and_wait(&url, &prefix).await, LONG, LIMIT);
    let new = new_session("ann");
    let key = format!("{prefix}session:{}", new.id);
    let set = format!("{prefix}user:ann:live");
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
        assert_eq!(
            sessions.get(new.id, None).await.unwrap(),
            None,
            "{command:?}"
        );
        assert_eq!(call(&url, &["EXISTS", &key]).await.unwrap(), "0");
        call(&url, command).await.unwrap();
        call(&url, &["PEXPIRE", &key, "600000"]).await.unwrap();
        assert_eq!(sessions.touch(new.id, None).await.unwrap(), None);
    }
    call(&url, &["SET", &key, "text"]).await.unwrap();
    call(&url, &["SET", &set, "text"]).await.unwrap();
    assert!(list(&sessions, &new.user_id).await.is_empty());
    call(&url, &["SET", &set, "text"]).await.unwrap();
    sessions.start(&new).await.unwrap();
    let last_use = call(&url, &["ZSCORE", &set, &new.id.to_string()]).await;
    let last_use = last_use.unwrap();
    let ended = session_id().to_string();
    call(
        &url,
        &["ZADD", &set, &last_use, "garbage", &last_use, &ended],
    )
    .await
    .unwrap();
    assert_eq!(list(&sessions, &new.user_id).await.len(), 1);
    assert_eq!(call(&url, &["ZCARD", &set]).await.unwrap(), "1");

    call(&url, &["DEL", &set]).await.unwrap();
    sessions.touch(new.id, None).await.unwrap().unwrap();
    let listed = list(&sessions, &new.user_id).await;
    assert_eq!(listed.len(), 1, "the next use restores the set");
}

#[tokio::test]
async fn ended_sessions_do_not_accumulate_in_an_unlisted_set() {
    let (url, prefix) = (shared_url(), unique_prefix());
    let sessions = RedisSessions::new(connect_and_wait(&url, &prefix).await, LONG, LIMIT);
    let set = format!("{prefix}user:ann:live");
    let new = new_session("ann");
    sessions.start(&new).await.unwrap();
    for expired in 0..200 {
        let id = session_id().to_string();
        call(&url, &["ZADD", &set, &expired.to_string(), &id])
            .await
            .unwrap();
    }
    for _ in 0..7 {
        sessions.start(&new).await.unwrap();
    }
    assert_eq!(call(&url, &["ZCARD", &set]).await.unwrap(), "1");
    // A call for a session that does not exist adds nothing.
    let unknown = sessions.touch(session_id(), Some(&new.user_id)).await;
    assert_eq!(unknown.unwrap(), None);
    assert_eq!(call(&url, &["ZCARD", &set]).await.unwrap(), "1");
}

#[tokio::test]
async fn without_redis_sessions_are_unavailable() {
    let mut server = RedisServer::stopped(&[]);
    let redis = connect(&server.url(), "");
    let sessions = RedisSessions::new(redis.clone(), LONG, LIMIT);
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
        sessions.get(new.id, None).await.is_err() && !redis.is_available()
    })
    .await;
    let query = SessionQuery {
        user_id: new.user_id.clone(),
        after: None,
        limit: 10,
    };
    assert!(sessions.list(&query).await.is_err());
    server.thaw();
    eventually("sessions are available again", async || {
        sessions
            .get(new.id, None)
            .await
            .is_ok_and(|found| found.is_some())
    })
    .await;
    redis.shutdown().await;
}
