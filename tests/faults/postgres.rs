//! PostgreSQL stopped, slow, read-only or crashed: no acknowledged save is lost, and the sidecar
//! recovers without a restart.

use std::time::Duration;

use conversation_memory::proto::{Consistency, Role, Source};
use futures_util::future::join_all;
use sqlx::Connection as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{Servers, assert_retry_later, begun_with_session, read_from_cache, unless_timed_out};
use test_support::{
    eventually, new_user,
    ports::free_address,
    postgres_server::PostgresServer,
    requests::{begin, history, message, new_conversation, save, save_text},
    sidecar::{Form, Memory, Sidecar},
    within_progress,
};

#[tokio::test]
async fn cached_history_is_read_without_postgres() {
    let mut servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let begun = begun_with_session(&mut memory, &begin(&user)).await;
    let conversation = begun.conversation.unwrap().id;
    save_text(&mut memory, &conversation, "one").await;
    read_from_cache(&mut memory, &conversation, &["one"]).await;
    servers.postgres.stop();
    let mut turn = begin(&user);
    turn.session_id = begun.session.unwrap().id;
    // Redis may miss its time limit on a busy machine; then there is no store to read from.
    eventually("the history comes from Redis", async || {
        let read = memory.get_history(history(&conversation)).await;
        read.inspect_err(assert_retry_later)
            .is_ok_and(|read| read.into_inner().source() == Source::Cache)
    })
    .await;
    eventually("the turn comes from Redis", async || {
        let begun = memory.begin_turn(turn.clone()).await;
        begun
            .inspect_err(assert_retry_later)
            .is_ok_and(|begun| begun.into_inner().source() == Source::Cache)
    })
    .await;
    let mut strong = history(&conversation);
    strong.set_consistency(Consistency::Strong);
    let refused = memory.get_history(strong).await.unwrap_err();
    assert_retry_later(&refused);
    let late = save(&conversation, vec![message(Role::User, "two")]);
    let refused = memory.save_messages(late.clone()).await.unwrap_err();
    assert_retry_later(&refused);
    // The sidecar stays ready, because removing the pod from service would not help.
    let health = HealthClient::new(sidecar.channel())
        .check(HealthCheckRequest::default())
        .await;
    assert_eq!(
        health.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    servers.postgres.run().await;
    eventually("saves are accepted again", async || {
        memory.save_messages(late.clone()).await.is_ok()
    })
    .await;
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(read.into_inner().last_seq, 2);
}

#[tokio::test]
async fn save_that_was_not_sent_has_a_known_outcome() {
    let mut servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let outcomes_at_once = async |count| {
        let mut saves = JoinSet::new();
        for _ in 0..count {
            let mut memory = memory.clone();
            let request = save(&conversation, vec![message(Role::User, "x")]);
            saves.spawn(async move { memory.save_messages(request).await.map(drop) });
        }
        saves.join_all().await
    };
    // The save has no request id, so that a save that was written although it failed changes the
    // count.
    let acknowledged_at_once = async |count| {
        let saves = (0..count).map(async |_| {
            let mut memory = memory.clone();
            let request = save(&conversation, vec![message(Role::User, "x")]);
            unless_timed_out(async || memory.save_messages(request.clone()).await).await;
        });
        join_all(saves).await;
    };
    acknowledged_at_once(30).await;
    servers.postgres.stop();
    for count in [1, 1, 8] {
        for refused in outcomes_at_once(count).await {
            assert_retry_later(&refused.unwrap_err());
        }
    }
    // A restart between two saves breaks every connection, which callers do not notice.
    servers.postgres.run().await;
    acknowledged_at_once(30).await;
    servers.postgres.stop();
    servers.postgres.run().await;
    acknowledged_at_once(10).await;
    assert_eq!(last_seq(&mut memory, &conversation).await, 70);
}

#[tokio::test]
async fn postgres_crash_loses_no_acknowledged_save() {
    let mut servers = Servers::start().await;
    let sidecar = Sidecar::start(&servers.form()).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        writers.spawn(save_until_acknowledged(
            memory.clone(),
            conversation.clone(),
            writer,
            60,
        ));
    }
    for _ in 0..3 {
        let before = last_seq(&mut memory, &conversation).await;
        let current = async || last_seq(&mut memory, &conversation).await;
        within_progress("30 turns are saved", current, |last| *last > before + 30).await;
        servers.postgres.kill();
        servers.postgres.run().await;
    }
    let mut saved: Vec<i64> = writers.join_all().await.into_iter().flatten().collect();
    saved.sort_unstable();
    // Each turn was saved once, however often it was sent.
    assert_eq!(saved, (1..=480).collect::<Vec<i64>>());
    assert_eq!(last_seq(&mut memory, &conversation).await, 480);
}

#[tokio::test]
async fn busy_or_read_only_postgres_is_unavailable() {
    let servers = Servers::start().await;
    let settings = [("POSTGRES_MAX_CONNECTIONS", "2")];
    let sidecar = Sidecar::start_with(&servers.form(), &settings).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;

    // While another transaction locks the conversation, its saves occupy all connections until they
    // run into their time limit.
    let mut holder = servers.postgres.connect().await;
    let mut transaction = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM conversations FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let mut saves = JoinSet::new();
    for number in 0..6 {
        let mut memory = memory.clone();
        let text = format!("held {number}");
        let request = save(&conversation, vec![message(Role::User, &text)]);
        saves.spawn(async move { memory.save_messages(request).await.map(drop) });
    }
    for answer in saves.join_all().await {
        assert_retry_later(&answer.unwrap_err());
    }
    transaction.rollback().await.unwrap();
    recovers(&mut memory, &conversation).await;
    assert_eq!(last_seq(&mut memory, &conversation).await, 2);

    servers
        .postgres
        .execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await;
    servers.postgres.execute("SELECT pg_reload_conf()").await;
    let request = save(&conversation, vec![message(Role::User, "read only")]);
    eventually("PostgreSQL is read-only", async || {
        let saved = memory.save_messages(request.clone()).await;
        saved.is_err_and(|refused| {
            assert_retry_later(&refused);
            true
        })
    })
    .await;
    unless_timed_out(async || memory.get_history(history(&conversation)).await).await;
    let mut admin = servers.postgres.connect().await;
    for statement in [
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
        // The pool replaces connections that the server closes.
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
    ] {
        sqlx::query(statement).execute(&mut admin).await.unwrap();
    }
    recovers(&mut memory, &conversation).await;
}

#[tokio::test]
async fn sidecar_stays_alive_and_ready_without_both_servers() {
    let mut servers = Servers::start().await;
    let mut sidecar = Sidecar::start(&servers.form()).await;
    let operations = sidecar.operations().await;
    let mut memory = sidecar.memory();
    let turn = begin(&new_user());
    unless_timed_out(async || memory.begin_turn(turn.clone()).await).await;
    servers.postgres.stop();
    servers.redis.kill();
    let refused = memory.begin_turn(begin(&new_user())).await.unwrap_err();
    assert_retry_later(&refused);
    for probe in ["/livez", "/readyz"] {
        let mut stream = TcpStream::connect(operations).await.unwrap();
        let request =
            format!("GET {probe} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{probe}: {answer}");
    }
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{operations}"));
    let health = HealthClient::new(endpoint.unwrap().connect_lazy())
        .check(HealthCheckRequest::default())
        .await;
    assert_eq!(
        health.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
}

#[tokio::test]
async fn sidecar_becomes_ready_when_postgres_starts() {
    let mut servers = Servers::start().await;
    servers.postgres.stop();
    let mut sidecar = Sidecar::launch(&servers.form(), &[]);
    sidecar.wait_for_log("not serving yet").await;
    servers.postgres.run().await;
    sidecar.serving().await;
    let mut memory = sidecar.memory();
    let turn = begin(&new_user());
    unless_timed_out(async || memory.begin_turn(turn.clone()).await).await;
}

#[tokio::test]
async fn schema_of_another_version_is_not_served() {
    let postgres = PostgresServer::start().await;
    let form = Form::Servers {
        database_url: postgres.url(),
        redis_url: "redis://127.0.0.1:1".to_owned(),
    };
    let address = free_address().to_string();
    let settings = [
        ("LISTEN_ADDR", address.as_str()),
        ("MIGRATE_ON_START", "false"),
    ];
    let mut old = Sidecar::launch(&form, &settings);
    old.wait_for_log("conversation-memory migrate").await;
    old.address = address.parse().unwrap();
    let not_serving = async |sidecar: &Sidecar| {
        let health = HealthClient::new(sidecar.channel())
            .check(HealthCheckRequest::default())
            .await;
        let status = health.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing);
        let refused = sidecar.memory().begin_turn(begin("u")).await.unwrap_err();
        assert_retry_later(&refused);
    };
    not_serving(&old).await;
    // Of two concurrent migrations one applies the schema and both succeed; then the waiting sidecar
    // serves.
    let mut migrations = JoinSet::new();
    for _ in 0..2 {
        let url = postgres.url();
        migrations.spawn_blocking(move || {
            let mut command = test_support::sidecar::command();
            command.arg("migrate").env("DATABASE_URL", url).status()
        });
    }
    for migrated in migrations.join_all().await {
        assert!(migrated.unwrap().success());
    }
    old.serving().await;
    let mut memory = old.memory();
    unless_timed_out(async || memory.begin_turn(begin("u")).await).await;
    drop(old);

    postgres
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99999999, 'of the future', true, '\\x00', 0)",
        )
        .await;
    let mut newer = Sidecar::launch(&form, &settings);
    newer.wait_for_log("newer than this program").await;
    newer.address = address.parse().unwrap();
    not_serving(&newer).await;
    let mut command = test_support::sidecar::command();
    let refused = command.arg("migrate").env("DATABASE_URL", postgres.url());
    assert!(!refused.status().unwrap().success());
}

/// Saves turns one after the other, repeats each save until it is acknowledged, and returns their
/// sequence numbers.
async fn save_until_acknowledged(
    mut memory: Memory,
    conversation: String,
    writer: usize,
    turns: usize,
) -> Vec<i64> {
    let mut seqs = Vec::new();
    for turn in 0..turns {
        let mut request = save(&conversation, vec![message(Role::User, "again and again")]);
        request.request_id = format!("{writer}-{turn}");
        loop {
            match memory.save_messages(request.clone()).await {
                Ok(saved) => break seqs.push(saved.into_inner().last_seq),
                Err(failed) => {
                    assert_eq!(failed.code(), Code::Unavailable, "{failed:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
    seqs
}

async fn last_seq(memory: &mut Memory, conversation: &str) -> i64 {
    let mut strong = history(conversation);
    strong.set_consistency(Consistency::Strong);
    loop {
        match memory.get_history(strong.clone()).await {
            Ok(read) => return read.into_inner().last_seq,
            Err(failed) => assert_eq!(failed.code(), Code::Unavailable, "{failed:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn recovers(memory: &mut Memory, conversation: &str) {
    eventually("saves are accepted again", async || {
        let request = save(conversation, vec![message(Role::User, "again")]);
        memory.save_messages(request).await.is_ok()
    })
    .await;
}
