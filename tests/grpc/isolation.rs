//! Calls with another user's ids: they change nothing, and cost what calls with unknown ids cost.

use std::collections::BTreeMap;

use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, CompactConversationRequest, Consistency,
    Conversation, DeleteConversationRequest, GetConversationRequest, GetHistoryRequest,
    ListBranchesRequest, ListMessagesRequest, RedactMessagesRequest, Role, SaveMessagesRequest,
    Source, TruncateConversationRequest, UpdateConversationRequest,
};
use tonic::{Code, Status};

use test_support::{
    eventually, new_id,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    requests::{history, message, new_conversation, save},
    sidecar::{Form, Memory, Sidecar},
};

/// Number of the kinds of [`call`].
const CALLS: usize = 14;

/// Names a conversation in a call as its owner `user`.
async fn call(
    memory: &mut Memory,
    kind: usize,
    conversation: &str,
    user: &str,
) -> Result<(), Status> {
    match kind {
        0 | 1 | 10..13 => read(memory, kind, conversation, user).await,
        _ => write(memory, kind, conversation, user).await,
    }
}

/// Reads a conversation.
async fn read(
    memory: &mut Memory,
    kind: usize,
    conversation_id: &str,
    user: &str,
) -> Result<(), Status> {
    let (conversation_id, user_id) = (conversation_id.to_owned(), user.to_owned());
    match kind {
        0 | 1 => {
            let read = GetHistoryRequest {
                conversation_id,
                user_id,
                consistency: [Consistency::Cached, Consistency::Strong][kind].into(),
                ..GetHistoryRequest::default()
            };
            memory.get_history(read).await.map(drop)
        }
        10 => {
            let list = ListMessagesRequest {
                conversation_id,
                user_id,
                ..ListMessagesRequest::default()
            };
            memory.list_messages(list).await.map(drop)
        }
        11 => {
            let list = ListBranchesRequest {
                conversation_id,
                user_id,
                ..ListBranchesRequest::default()
            };
            memory.list_branches(list).await.map(drop)
        }
        _ => {
            let get = GetConversationRequest {
                conversation_id,
                user_id,
                ..GetConversationRequest::default()
            };
            memory.get_conversation(get).await.map(drop)
        }
    }
}

/// Begins a turn in a conversation, or changes it.
async fn write(
    memory: &mut Memory,
    kind: usize,
    conversation_id: &str,
    user: &str,
) -> Result<(), Status> {
    let (conversation_id, user_id) = (conversation_id.to_owned(), user.to_owned());
    match kind {
        2 => {
            let begin = BeginTurnRequest {
                conversation_id,
                user_id,
                ..BeginTurnRequest::default()
            };
            memory.begin_turn(begin).await.map(drop)
        }
        3 | 4 => {
            let save = SaveMessagesRequest {
                conversation_id,
                user_id,
                messages: vec![message(Role::User, "another text")],
                request_id: ["", "key"][kind - 3].to_owned(),
                ..SaveMessagesRequest::default()
            };
            memory.save_messages(save).await.map(drop)
        }
        5 => {
            let truncate = TruncateConversationRequest {
                conversation_id,
                user_id,
                ..TruncateConversationRequest::default()
            };
            memory.truncate_conversation(truncate).await.map(drop)
        }
        6 => {
            let compact = CompactConversationRequest {
                conversation_id,
                user_id,
                upto_seq: 1,
                summary: "another summary".to_owned(),
                ..CompactConversationRequest::default()
            };
            memory.compact_conversation(compact).await.map(drop)
        }
        7 => {
            let redact = RedactMessagesRequest {
                conversation_id,
                user_id,
                seqs: vec![1],
            };
            memory.redact_messages(redact).await.map(drop)
        }
        8 => {
            let delete = DeleteConversationRequest {
                conversation_id,
                user_id,
            };
            memory.delete_conversation(delete).await.map(drop)
        }
        9 => {
            let branch = BranchConversationRequest {
                conversation_id,
                user_id,
                at_seq: 1,
                ..BranchConversationRequest::default()
            };
            memory.branch_conversation(branch).await.map(drop)
        }
        _ => {
            let update = UpdateConversationRequest {
                user_id,
                conversation: Some(Conversation {
                    id: conversation_id,
                    title: "another title".to_owned(),
                    ..Conversation::default()
                }),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["title".to_owned()],
                }),
            };
            memory.update_conversation(update).await.map(drop)
        }
    }
}

/// Work of Redis and PostgreSQL for calls: the number of each command and statement, without those
/// with which the sidecar observes the servers.
async fn work(redis: &RedisServer, postgres: &PostgresServer) -> BTreeMap<String, u64> {
    const OBSERVATION: [&str; 7] = [
        "info", "ping", "client", "hello", "config", "cluster", "select",
    ];
    let mut work = BTreeMap::new();
    for line in redis.call(&["INFO", "commandstats"]).await.lines() {
        let Some((name, stats)) = line.split_once(':') else {
            continue;
        };
        let name = name.trim_start_matches("cmdstat_");
        let calls = stats
            .split(',')
            .next()
            .unwrap()
            .trim_start_matches("calls=");
        if !OBSERVATION.iter().any(|prefix| name.starts_with(prefix)) {
            work.insert(format!("redis: {name}"), calls.parse().unwrap_or(0));
        }
    }
    for statement in postgres.statements().await {
        // Also of a connection that was replaced meanwhile.
        let is_observation = statement.contains(" AS clock");
        if !is_observation {
            *work.entry(format!("postgres: {statement}")).or_default() += 1;
        }
    }
    work
}

fn difference(
    after: &BTreeMap<String, u64>,
    before: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let difference = after.iter().map(|(name, count)| {
        let before = before.get(name).copied().unwrap_or(0);
        (name.clone(), count - before)
    });
    difference.filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn another_users_conversation_costs_what_a_missing_one_costs_and_is_unchanged() {
    let (redis, postgres) = (
        RedisServer::start(&[]).await,
        PostgresServer::start_logging().await,
    );
    let form = Form::Servers {
        database_url: postgres.url(),
        redis_url: redis.url(),
    };
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let owned = new_conversation(&mut memory, "ann").await;
    let key = format!("history:{owned}:recent");
    for kind in 0..CALLS {
        // Scripts are loaded and statements prepared.
        call(&mut memory, kind, &new_id(), "bob").await.unwrap_err();
    }
    for state in ["cold", "cached"] {
        if state == "cached" {
            let mut saved = save(&owned, vec![message(Role::User, "her text")]);
            saved.user_id = "ann".to_owned();
            memory.save_messages(saved).await.unwrap();
            let read = GetHistoryRequest {
                user_id: "ann".to_owned(),
                ..history(&owned)
            };
            eventually("the window is filled", async || {
                let read = memory.get_history(read.clone()).await.unwrap();
                read.into_inner().source() == Source::Cache
            })
            .await;
        }
        let window = redis.call(&["HGETALL", &key]).await;
        for kind in 0..CALLS {
            let mut works = Vec::new();
            // A task in the background can run within a measurement.
            for _ in 0..20 {
                works.clear();
                for conversation in [&new_id(), &owned] {
                    let before = work(&redis, &postgres).await;
                    let ttl: i64 = redis.call(&["PTTL", &key]).await.parse().unwrap();
                    let refused = call(&mut memory, kind, conversation, "bob")
                        .await
                        .unwrap_err();
                    assert_eq!(refused.code(), Code::NotFound, "{state}, {kind}: {refused}");
                    let ttl_after: i64 = redis.call(&["PTTL", &key]).await.parse().unwrap();
                    assert!(ttl_after <= ttl, "{state}, {kind}");
                    assert_eq!(
                        redis.call(&["HGETALL", &key]).await,
                        window,
                        "{state}, {kind}"
                    );
                    works.push(difference(&work(&redis, &postgres).await, &before));
                }
                if works[1] == works[0] {
                    break;
                }
            }
            assert_eq!(works[1], works[0], "{state}, {kind}");
        }
    }
    let read = GetHistoryRequest {
        user_id: "ann".to_owned(),
        ..history(&owned)
    };
    let read = memory.get_history(read).await.unwrap().into_inner();
    assert_eq!(read.source(), Source::Cache);
    assert_eq!(read.messages.len(), 1);
}
