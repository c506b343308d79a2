//! Metrics and log lines that show an outage of a server to operators.

use bytes::Bytes;
use conversation_memory::proto::{Consistency, ExportFormat, import_conversation_request::Options};
use tonic::Code;

use crate::metrics::Scrape;
use test_support::{
    eventually, new_user,
    postgres_server::PostgresServer,
    requests::{self, history, new_conversation, save, save_text, turn},
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    imported_messages_count_as_saved,
    the_process_has_the_metrics_of_prometheus_clients,
    counters_of_failures_exist_from_the_start,
);

async fn imported_messages_count_as_saved(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let header = "{\"format\":\"conversation-memory\",\"version\":1,\"conversation\":{}}\n";
    let message = "{\"role\":\"user\",\"content\":\"Hello\"}\n";
    import(&mut memory, format!("{header}{}", message.repeat(2_500)))
        .await
        .unwrap();
    let saved = "conversation_memory_messages_saved_total";
    let scrape = Scrape::of(&mut sidecar).await;
    assert_eq!(scrape.count(saved, &[]), 2_500);
    // A rejected import stores nothing, also if parts of it were written before.
    let rejected = format!("{header}{}no message", message.repeat(2_500));
    import(&mut memory, rejected).await.unwrap_err();
    let scrape = Scrape::of(&mut sidecar).await;
    assert_eq!(scrape.count(saved, &[]), 2_500);
}

async fn import(memory: &mut Memory, file: String) -> Result<(), tonic::Status> {
    let options = Options {
        user_id: new_user(),
        format: ExportFormat::Jsonl.into(),
        ..Options::default()
    };
    let requests = requests::import(options, [Bytes::from(file)]);
    let imported = memory
        .import_conversation(tokio_stream::iter(requests))
        .await;
    imported.map(drop)
}

async fn the_process_has_the_metrics_of_prometheus_clients(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let scrape = Scrape::of(&mut sidecar).await;
    let resident = scrape.count("process_resident_memory_bytes", &[]) / 1024;
    let actual = sidecar.resident_kib();
    assert!(
        resident > actual / 2 && resident < actual * 2,
        "{resident} KiB, {actual} KiB"
    );
    for name in [
        "process_cpu_seconds_total",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "process_threads",
    ] {
        assert!(scrape.sum(name, &[]) > 0.0, "{name}");
    }
}

async fn counters_of_failures_exist_from_the_start(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let scrape = Scrape::of(&mut sidecar).await;
    let mut names = vec![
        "conversation_memory_messages_saved_total",
        "conversation_memory_saves_replayed_total",
        "conversation_memory_connections_refused_total",
        "db_client_connection_timeouts_total",
    ];
    if let Form::Servers { .. } = form {
        names.extend([
            "conversation_memory_recent_window_lookups_total",
            "conversation_memory_recent_window_fills_total",
            "conversation_memory_recent_window_drops_total",
            "conversation_memory_redis_outages_total",
        ]);
    }
    for name in names {
        assert!(scrape.has(name), "{name}: {scrape:?}");
    }
}

/// What the metric reports about reads and writes.
async fn store_available(sidecar: &mut Sidecar) -> [u64; 2] {
    let scrape = Scrape::of(sidecar).await;
    ["read", "write"].map(|operation| {
        let labels = [("operation", operation)];
        scrape.count("conversation_memory_store_available", &labels)
    })
}

fn without_redis(postgres: &PostgresServer) -> Form {
    Form::Servers {
        database_url: postgres.url(),
        redis_url: "redis://127.0.0.1:1/0".to_owned(),
    }
}

#[tokio::test]
async fn an_outage_of_postgresql_is_visible_after_one_failed_call() {
    let mut postgres = PostgresServer::start().await;
    let mut sidecar = Sidecar::start(&without_redis(&postgres)).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    // Many calls that succeeded shortly before do not hide the outage.
    for _ in 0..300 {
        save_text(&mut memory, &conversation, "text").await;
    }
    let mut strong = history(&conversation);
    strong.set_consistency(Consistency::Strong);
    assert_eq!(store_available(&mut sidecar).await, [1, 1]);
    postgres.stop();
    let failed = eventually("the outage is visible", async || {
        let (mut reader, mut writer) = (memory.clone(), memory.clone());
        let (read, saved) = tokio::join!(
            reader.get_history(strong.clone()),
            writer.save_messages(save(&conversation, turn("one", "two")))
        );
        let codes = [read.unwrap_err().code(), saved.unwrap_err().code()];
        assert_eq!(codes, [Code::Unavailable; 2]);
        store_available(&mut sidecar).await == [0, 0]
    });
    failed.await;
    postgres.run().await;
    eventually("the recovery is visible", async || {
        let _ = memory.get_history(strong.clone()).await;
        let _ = memory
            .save_messages(save(&conversation, turn("one", "two")))
            .await;
        store_available(&mut sidecar).await == [1, 1]
    })
    .await;
}

#[tokio::test]
async fn a_read_only_server_is_visible_while_reads_succeed() {
    let postgres = PostgresServer::start().await;
    let mut sidecar = Sidecar::start(&without_redis(&postgres)).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    postgres
        .execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await;
    postgres.execute("SELECT pg_reload_conf()").await;
    postgres
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .await;
    let mut strong = history(&conversation);
    strong.set_consistency(Consistency::Strong);
    eventually("only the failed writes are visible", async || {
        let _ = memory.get_history(strong.clone()).await;
        let saved = memory.save_messages(save(&conversation, turn("one", "two")));
        saved.await.unwrap_err();
        store_available(&mut sidecar).await == [1, 0]
    })
    .await;
}

#[tokio::test]
async fn each_cause_of_failed_calls_is_logged_once_and_a_new_one_at_once() {
    let mut postgres = PostgresServer::start().await;
    let sidecar = Sidecar::start(&without_redis(&postgres)).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let lines = || {
        let log = sidecar.log();
        let failed = log.into_iter().filter(|line| line.contains("call failed"));
        failed.collect::<Vec<_>>()
    };
    let fail_calls = async || {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (mut memory, mut strong) = (memory.clone(), history(&conversation));
            strong.set_consistency(Consistency::Strong);
            calls.spawn(async move { memory.get_history(strong).await.is_err() });
        }
        assert!(calls.join_all().await.into_iter().all(|failed| failed));
    };
    postgres.stop();
    fail_calls().await;
    fail_calls().await;
    let outage = lines();
    // The connections that were lost, waits for one, and what a probe of the server reports.
    assert!((1..10).contains(&outage.len()), "{outage:#?}");
    postgres.run().await;
    eventually("the sidecar reads again", async || {
        let mut strong = history(&conversation);
        strong.set_consistency(Consistency::Strong);
        memory.clone().get_history(strong).await.is_ok()
    })
    .await;
    postgres
        .execute("ALTER TABLE messages RENAME TO hidden")
        .await;
    fail_calls().await;
    let renamed = lines().split_off(outage.len());
    let errors = renamed.iter().filter(|line| line.contains("42P01"));
    assert_eq!(errors.count(), 1, "{renamed:#?}");
}
