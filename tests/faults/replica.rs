//! A standby for reads that may lag, which fails, and is not needed for readiness.

use conversation_memory::proto::{
    ExportConversationRequest, ListConversationsRequest, ListMessagesRequest, Role,
    SearchMessagesRequest,
};
use test_support::{
    eventually,
    http::Http,
    new_user,
    postgres_server::PostgresServer,
    requests::{message, new_conversation, save},
    sidecar::{Form, Memory, Sidecar},
};

use crate::Servers;

/// Messages of a conversation, in pages of two.
const MESSAGES: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn pages_continue_when_the_standby_fails_in_between() {
    let servers = Servers::start().await;
    let mut standby = servers.postgres.start_standby().await;
    let url = standby.url();
    let settings = [("DATABASE_READ_URL", url.as_str())];
    let mut sidecar = Sidecar::start_with(&servers.form(), &settings).await;
    sidecar
        .wait_for_log("listing, searching and exporting from the replica")
        .await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = filled(&mut memory, &user).await;
    let replica_reads = async |sidecar: &mut Sidecar| reads(sidecar, "replica").await;
    let before = replica_reads(&mut sidecar).await;
    eventually("reads use the standby", async || {
        assert_eq!(pages(&mut memory, &conversation, None).await, MESSAGES);
        replica_reads(&mut sidecar).await >= before + 4.0
    })
    .await;
    let first = first_page(&mut memory, &conversation).await;
    standby.kill();
    let rest = pages(&mut memory, &conversation, Some(first)).await;
    assert_eq!(rest, MESSAGES - 2);
    assert_eq!(pages(&mut memory, &conversation, None).await, MESSAGES);
    assert_eq!(listed(&mut memory, &user).await, 1);
    let found = SearchMessagesRequest {
        user_id: user.clone(),
        query: "message".to_owned(),
        ..SearchMessagesRequest::default()
    };
    let found = memory.search_messages(found).await.unwrap().into_inner();
    assert_eq!(found.hits.len(), MESSAGES);
    sidecar.wait_for_log("the replica is not used").await;
    standby.run().await;
    let before = replica_reads(&mut sidecar).await;
    eventually("reads use the standby again", async || {
        assert_eq!(pages(&mut memory, &conversation, None).await, MESSAGES);
        replica_reads(&mut sidecar).await > before
    })
    .await;
}

/// An export uses the only connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_connections_are_in_use_has_not_failed() {
    let servers = Servers::start().await;
    let standby = servers.postgres.start_standby().await;
    let url = standby.url();
    let settings = [
        ("DATABASE_READ_URL", url.as_str()),
        ("POSTGRES_MAX_CONNECTIONS", "1"),
    ];
    let mut sidecar = Sidecar::start_with(&servers.form(), &settings).await;
    sidecar
        .wait_for_log("listing, searching and exporting from the replica")
        .await;
    let mut memory = sidecar.memory();
    let conversation = filled(&mut memory, &new_user()).await;
    // More than a stream holds while nothing of it is read.
    let long = "long ".repeat(100_000);
    for _ in 0..8 {
        let request = save(&conversation, vec![message(Role::User, &long)]);
        memory.save_messages(request).await.unwrap();
    }
    let exported = ExportConversationRequest {
        conversation_id: conversation.clone(),
        ..ExportConversationRequest::default()
    };
    eventually("an export uses the standby", async || {
        let before = reads(&mut sidecar, "replica").await;
        let mut export = memory.export_conversation(exported.clone()).await.unwrap();
        let is_of_standby = reads(&mut sidecar, "replica").await > before;
        let export = export.get_mut();
        export.message().await.unwrap();
        if is_of_standby {
            eventually("reads find no connection", async || {
                first_page(&mut memory, &conversation).await;
                reads(&mut sidecar, "busy").await >= 3.0
            })
            .await;
        }
        while export.message().await.unwrap().is_some() {}
        is_of_standby
    })
    .await;
    let log = sidecar.log().concat();
    assert!(!log.contains("the replica is not used"), "{log}");
}

#[tokio::test]
async fn a_sidecar_is_ready_without_its_standby() {
    let servers = Servers::start().await;
    let settings = [(
        "DATABASE_READ_URL",
        "postgres://postgres:hunter2@127.0.0.1:1/postgres",
    )];
    let mut sidecar = Sidecar::start_with(&servers.form(), &settings).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = filled(&mut memory, &user).await;
    assert_eq!(pages(&mut memory, &conversation, None).await, MESSAGES);
    assert_eq!(listed(&mut memory, &user).await, 1);
    let line = sidecar.wait_for_log("the replica is not used").await;
    assert!(line.contains("Connection refused"), "{line}");
    assert!(!sidecar.log().concat().contains("hunter2"));
}

/// An upgrade changes the schema of the primary first.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_without_the_schema_is_not_read_until_it_has_it() {
    let servers = Servers::start().await;
    let standby = servers.postgres.start_standby().await;
    standby.execute("SELECT pg_wal_replay_pause()").await;
    let url = standby.url();
    let settings = [("DATABASE_READ_URL", url.as_str())];
    let mut sidecar = Sidecar::start_with(&servers.form(), &settings).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = filled(&mut memory, &user).await;
    for _ in 0..20 {
        assert_eq!(listed(&mut memory, &user).await, 1);
        assert_eq!(pages(&mut memory, &conversation, None).await, MESSAGES);
    }
    standby.execute("SELECT pg_wal_replay_resume()").await;
    eventually("the standby is used", async || {
        assert_eq!(listed(&mut memory, &user).await, 1);
        let used = "listing, searching and exporting from the replica";
        sidecar.log().iter().any(|line| line.contains(used))
    })
    .await;
    assert_eq!(pages(&mut memory, &conversation, None).await, MESSAGES);
    sidecar.signal("TERM");
    assert!(sidecar.ended().await.success());
}

/// The two servers can be listed in both settings, whatever their roles.
#[tokio::test(flavor = "multi_thread")]
async fn both_servers_may_be_listed_in_both_urls() {
    let postgres = PostgresServer::start().await;
    let standby = postgres.start_standby().await;
    let both = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        postgres.port(),
        standby.port()
    );
    let read_url = format!("{both}?target_session_attrs=prefer-standby");
    let form = Form::Servers {
        database_url: both,
        redis_url: "redis://127.0.0.1:1".to_owned(),
    };
    let settings = [("DATABASE_READ_URL", read_url.as_str())];
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    sidecar
        .wait_for_log("listing, searching and exporting from the replica")
        .await;
    let mut memory = sidecar.memory();
    let conversation = filled(&mut memory, &new_user()).await;
    assert_eq!(pages(&mut memory, &conversation, None).await, MESSAGES);
}

/// Number of reads with an outcome.
async fn reads(sidecar: &mut Sidecar, outcome: &str) -> f64 {
    let metrics = Http::at(sidecar.operations().await);
    let metrics = metrics.get("/metrics").await;
    let sample = format!("conversation_memory_replica_reads_total{{outcome=\"{outcome}\"}} ");
    let body = String::from_utf8_lossy(&metrics.body).into_owned();
    let value = body.lines().find_map(|line| line.strip_prefix(&sample));
    value.map_or(0.0, |value| value.parse::<f64>().unwrap())
}

async fn filled(memory: &mut Memory, user: &str) -> String {
    let conversation = new_conversation(memory, user).await;
    for number in 0..MESSAGES {
        let text = format!("message {number}");
        let request = save(&conversation, vec![message(Role::User, &text)]);
        memory.save_messages(request).await.unwrap();
    }
    conversation
}

fn page_request(conversation: &str, token: String) -> ListMessagesRequest {
    ListMessagesRequest {
        conversation_id: conversation.to_owned(),
        page_size: 2,
        page_token: token,
        ..ListMessagesRequest::default()
    }
}

/// Reads a page of two messages, and returns the token of the next one.
async fn first_page(memory: &mut Memory, conversation: &str) -> String {
    let page = memory.list_messages(page_request(conversation, String::new()));
    let page = page.await.unwrap().into_inner();
    assert_eq!(page.messages.len(), 2);
    page.next_page_token
}

/// Reads all pages after a token, and returns the number of messages, whose numbers are consecutive.
async fn pages(memory: &mut Memory, conversation: &str, token: Option<String>) -> usize {
    let mut token = token.unwrap_or_default();
    let mut seqs = Vec::new();
    loop {
        let page = memory.list_messages(page_request(conversation, token));
        let page = page.await.unwrap().into_inner();
        seqs.extend(page.messages.iter().map(|found| found.seq));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let first = seqs.first().copied().unwrap_or(1);
    let expected: Vec<i64> = (first..).take(seqs.len()).collect();
    assert_eq!(seqs, expected);
    seqs.len()
}

async fn listed(memory: &mut Memory, user: &str) -> usize {
    let request = ListConversationsRequest {
        user_id: user.to_owned(),
        ..ListConversationsRequest::default()
    };
    let listed = memory.list_conversations(request).await.unwrap();
    listed.into_inner().conversations.len()
}
