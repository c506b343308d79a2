//! Windows of a sidecar that could not reach Redis, of servers that went back to an earlier state,
//! and of writes that are committed late: no read is stale once the sentence of the README allows
//! none.

use std::time::Duration;

use conversation_memory::proto::{
    CompactConversationRequest, Consistency, DeleteConversationRequest, RedactMessagesRequest,
    Role, Source, TruncateConversationRequest,
};
use test_support::{
    eventually, new_user,
    redis_server::RedisServer,
    requests::{contents, history, message, new_conversation, reason, save, save_text},
    sidecar::{Form, Memory, Sidecar, try_signal},
    tcp_proxy::TcpProxy,
};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use crate::{Servers, read, read_from_cache};

/// Time between two looks of a sidecar at the pending invalidations.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Write to a conversation with the messages "one" and "two".
#[derive(Clone, Copy, Debug)]
enum Write {
    Save,
    Pin,
    Truncate,
    Delete,
    Redact,
    Compact,
}

impl Write {
    const ALL: [Self; 6] = [
        Self::Save,
        Self::Pin,
        Self::Truncate,
        Self::Delete,
        Self::Redact,
        Self::Compact,
    ];

    async fn send(self, memory: &mut Memory, conversation: &str) -> Result<(), Status> {
        let id = conversation.to_owned();
        match self {
            Self::Save => {
                let request = save(&id, vec![message(Role::User, "three")]);
                memory.save_messages(request).await.map(drop)
            }
            Self::Pin => {
                let mut pinned = message(Role::User, "three");
                pinned.pinned = true;
                memory
                    .save_messages(save(&id, vec![pinned]))
                    .await
                    .map(drop)
            }
            Self::Truncate => {
                let request = TruncateConversationRequest {
                    conversation_id: id,
                    after_seq: 1,
                    ..TruncateConversationRequest::default()
                };
                memory.truncate_conversation(request).await.map(drop)
            }
            Self::Delete => {
                let request = DeleteConversationRequest {
                    conversation_id: id,
                    ..DeleteConversationRequest::default()
                };
                memory.delete_conversation(request).await.map(drop)
            }
            Self::Redact => {
                let request = RedactMessagesRequest {
                    conversation_id: id,
                    seqs: vec![2],
                    ..RedactMessagesRequest::default()
                };
                memory.redact_messages(request).await.map(drop)
            }
            Self::Compact => {
                let request = CompactConversationRequest {
                    conversation_id: id,
                    upto_seq: 2,
                    summary: "both".to_owned(),
                    ..CompactConversationRequest::default()
                };
                memory.compact_conversation(request).await.map(drop)
            }
        }
    }

    /// Contents of a history after the write; `None` if the conversation does not exist.
    fn expected(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Save | Self::Pin => Some(&["one", "two", "three"]),
            Self::Truncate => Some(&["one"]),
            Self::Delete => None,
            Self::Redact => Some(&["one", ""]),
            Self::Compact => Some(&["both"]),
        }
    }

    fn history_after(self) -> Option<Vec<String>> {
        let expected = self.expected()?;
        Some(expected.iter().map(ToString::to_string).collect())
    }
}

/// Reads a history like a caller that accepts any source.
async fn cached(memory: &mut Memory, conversation: &str) -> Option<Vec<String>> {
    match memory.get_history(history(conversation)).await {
        Ok(read) => {
            let messages = read.into_inner().messages;
            Some(
                messages
                    .into_iter()
                    .map(|message| message.content)
                    .collect(),
            )
        }
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            None
        }
    }
}

async fn assert_becomes_fresh(memory: &mut Memory, conversation: &str, write: Write) {
    eventually("the read contains the write", async || {
        cached(memory, conversation).await == write.history_after()
    })
    .await;
    // It stays so, from Redis as well.
    if let Some(expected) = write.expected() {
        read_from_cache(memory, conversation, expected).await;
    }
}

/// Creates a conversation with two messages, of which both sidecars have read the window.
async fn cached_conversation(writer: &mut Memory, readers: &mut [&mut Memory]) -> String {
    let conversation = new_conversation(writer, &new_user()).await;
    save_text(writer, &conversation, "one").await;
    save_text(writer, &conversation, "two").await;
    for reader in readers {
        read_from_cache(reader, &conversation, &["one", "two"]).await;
    }
    conversation
}

/// Starts a sidecar whose connections to Redis pass through a proxy.
async fn proxied_sidecar(servers: &Servers) -> (Sidecar, TcpProxy) {
    let proxy = TcpProxy::start(([127, 0, 0, 1], servers.redis.port()).into()).await;
    let form = Form::Servers {
        database_url: servers.postgres.url(),
        redis_url: format!("redis://{}/0", proxy.address()),
    };
    (Sidecar::start(&form).await, proxy)
}

#[tokio::test]
async fn writes_of_a_killed_sidecar_without_redis_become_visible() {
    let servers = Servers::start().await;
    let reader = Sidecar::start(&servers.form()).await;
    let mut reader = reader.memory();
    let (writer, proxy) = proxied_sidecar(&servers).await;
    let mut memory = writer.memory();
    let mut conversations = Vec::new();
    for write in Write::ALL {
        let conversation = cached_conversation(&mut memory, &mut [&mut reader]).await;
        conversations.push((conversation, write));
    }
    proxy.refuse();
    for (conversation, write) in &conversations {
        write.send(&mut memory, conversation).await.unwrap();
    }
    writer.kill().await;
    for (conversation, write) in &conversations {
        assert_becomes_fresh(&mut reader, conversation, *write).await;
    }
    let pending = "SELECT count(*) FROM pending_invalidations";
    eventually("no invalidation is pending", async || {
        let mut connection = servers.postgres.connect().await;
        let count: i64 = sqlx::query_scalar(pending)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        count == 0
    })
    .await;
}

#[tokio::test]
async fn writes_that_redis_refuses_become_visible() {
    let servers = Servers::start().await;
    let sidecars = [
        Sidecar::start(&servers.form()).await,
        Sidecar::start(&servers.form()).await,
    ];
    let [mut writer, mut reader] = sidecars.each_ref().map(Sidecar::memory);
    let refusals: [(&[&str], &[&str]); 4] = [
        (
            &["CONFIG", "SET", "min-replicas-to-write", "3"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        (
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
        (
            &["ACL", "SETUSER", "default", "-evalsha", "-eval"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        (
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
    ];
    for (refuse, accept) in refusals {
        for write in [Write::Save, Write::Truncate, Write::Delete] {
            let conversation = cached_conversation(&mut writer, &mut [&mut reader]).await;
            servers.redis.call(refuse).await;
            write.send(&mut writer, &conversation).await.unwrap();
            servers.redis.call(accept).await;
            assert_becomes_fresh(&mut reader, &conversation, write).await;
            assert_becomes_fresh(&mut writer, &conversation, write).await;
        }
    }
}

/// A sidecar that could not drop a window while Redis refused writes does not read it when Redis
/// accepts them again.
#[tokio::test]
async fn writes_that_redis_refused_for_long_are_visible_at_once() {
    let servers = Servers::start().await;
    let (writer, proxy) = proxied_sidecar(&servers).await;
    let reader = Sidecar::start(&servers.form()).await;
    let [mut writer, mut reader] = [&writer, &reader].map(Sidecar::memory);
    let refusals: [(&[&str], &[&str]); 2] = [
        (
            &["CONFIG", "SET", "min-replicas-to-write", "3"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        (
            &["ACL", "SETUSER", "default", "-@write"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
    ];
    for (refuse, accept) in refusals {
        for write in [Write::Save, Write::Truncate, Write::Delete] {
            let conversation = cached_conversation(&mut writer, &mut [&mut reader]).await;
            servers.redis.call(refuse).await;
            proxy.refuse();
            write.send(&mut writer, &conversation).await.unwrap();
            // The reader looks for pending invalidations meanwhile.
            tokio::time::sleep(2 * LOOK_INTERVAL).await;
            servers.redis.call(accept).await;
            assert_eq!(
                cached(&mut reader, &conversation).await,
                write.history_after()
            );
            proxy.forward();
            assert_becomes_fresh(&mut reader, &conversation, write).await;
            assert_becomes_fresh(&mut writer, &conversation, write).await;
        }
    }
}

#[tokio::test]
async fn redis_that_restarts_from_a_snapshot_returns_nothing_stale() {
    let mut servers = Servers::start().await;
    servers.redis = RedisServer::start(&["--save", "3600 1000000"]).await;
    let sidecars = [
        Sidecar::start(&servers.form()).await,
        Sidecar::start(&servers.form()).await,
    ];
    let [mut writer, mut reader] = sidecars.each_ref().map(Sidecar::memory);
    let mut conversations = Vec::new();
    for write in Write::ALL {
        let conversation = cached_conversation(&mut writer, &mut [&mut reader]).await;
        conversations.push((conversation, write));
    }
    servers.redis.call(&["SAVE"]).await;
    for (conversation, write) in &conversations {
        write.send(&mut writer, conversation).await.unwrap();
    }
    servers.redis.kill();
    servers.redis.run().await;
    for memory in [&mut writer, &mut reader] {
        for (conversation, write) in &conversations {
            let read = cached(memory, conversation).await;
            assert_eq!(read, write.history_after(), "{write:?}");
        }
    }
    for (conversation, write) in &conversations {
        assert_becomes_fresh(&mut reader, conversation, *write).await;
    }
}

/// Moves the deadlines of all announced writes into the past.
async fn expire_announcements(servers: &Servers, conversation: &str) {
    let key = format!("history:{conversation}:recent");
    let fields = servers.redis.call(&["HKEYS", &key]).await;
    for field in fields.split('\n').filter(|field| field.starts_with("p:")) {
        servers.redis.call(&["HSET", &key, field, "1"]).await;
    }
}

#[tokio::test]
async fn save_that_is_committed_late_becomes_visible() {
    let servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let other = Sidecar::start(&servers.form()).await;
    let (mut memory, mut reader) = (sidecar.memory(), other.memory());
    for is_killed in [false, true] {
        let writer = Sidecar::start(&servers.form()).await;
        let mut writing = writer.memory();
        let conversation = cached_conversation(&mut memory, &mut [&mut reader]).await;
        for statement in [
            "ALTER SYSTEM SET synchronous_standby_names = 'missing'",
            "SELECT pg_reload_conf()",
        ] {
            servers.postgres.execute(statement).await;
        }
        let request = save(&conversation, vec![message(Role::User, "three")]);
        let saving =
            TaskTracker::new().spawn(async move { writing.save_messages(request).await.map(drop) });
        eventually("the commit waits for the standby", async || {
            let mut connection = servers.postgres.connect().await;
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' \
                    AND (query LIKE '%UPDATE conversations%' OR query LIKE '%COMMIT')",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            waiting > 0
        })
        .await;
        if is_killed {
            writer.kill().await;
        } else {
            saving.await.unwrap().unwrap_err();
        }
        expire_announcements(&servers, &conversation).await;
        for memory in [&mut memory, &mut reader] {
            // These reads do not fill the window.
            for _ in 0..3 {
                let read = read(memory, &conversation).await;
                assert_eq!(contents(&read.messages), ["one", "two"]);
                assert_eq!(read.source(), Source::Store);
            }
        }
        for statement in [
            "ALTER SYSTEM RESET synchronous_standby_names",
            "SELECT pg_reload_conf()",
        ] {
            servers.postgres.execute(statement).await;
        }
        eventually("the commit is complete", async || {
            let mut strong = history(&conversation);
            strong.set_consistency(Consistency::Strong);
            let read = memory.get_history(strong).await.unwrap().into_inner();
            read.last_seq == 3
        })
        .await;
        for memory in [&mut memory, &mut reader] {
            let read = read(memory, &conversation).await;
            assert_eq!(contents(&read.messages), ["one", "two", "three"]);
        }
    }
}

#[tokio::test]
async fn save_that_the_server_executes_late_becomes_visible() {
    let servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let mut reader = sidecar.memory();
    let form = Form::Servers {
        database_url: servers.postgres.url() + "?application_name=late",
        redis_url: servers.redis.url(),
    };
    let writer = Sidecar::start(&form).await;
    let mut writing = writer.memory();
    let conversation = cached_conversation(&mut writing, &mut [&mut reader]).await;
    let processes = loop {
        let sent = processes_of(&servers, "late").await;
        signal_all(&sent, "STOP");
        // A save that cannot be repeated is sent on a connection that has just replied.
        let mut request = save(&conversation, vec![message(Role::User, "three")]);
        request.request_id = "late".to_owned();
        let failed = writing.save_messages(request).await.unwrap_err();
        if reason(&failed) == "COMMIT_OUTCOME_UNKNOWN" {
            break sent;
        }
        // On a busy machine the connection was tested before, and the save was not sent.
        signal_all(&sent, "CONT");
    };
    writer.kill().await;
    // The announcement expires, and the window is filled without the save.
    read_from_cache(&mut reader, &conversation, &["one", "two"]).await;
    signal_all(&processes, "CONT");
    read_from_cache_eventually(&mut reader, &conversation, &["one", "two", "three"]).await;
}

/// Server processes of the connections with an application name.
async fn processes_of(servers: &Servers, application: &str) -> Vec<i32> {
    sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE application_name = $1")
        .bind(application)
        .fetch_all(&mut servers.postgres.connect().await)
        .await
        .unwrap()
}

fn signal_all(processes: &[i32], name: &str) {
    for process in processes {
        try_signal(process.cast_unsigned(), name);
    }
}

async fn read_from_cache_eventually(memory: &mut Memory, conversation: &str, expected: &[&str]) {
    eventually("the history comes from Redis and is complete", async || {
        let answer = read(memory, conversation).await;
        contents(&answer.messages) == expected && answer.source() == Source::Cache
    })
    .await;
}
