//! Faults of the process and its callers: cancelled calls, crashes between two steps, exhausted file
//! descriptors.

use std::{process::Stdio, time::Duration};

use conversation_memory::proto::{Consistency, Role};
use tokio::{net::TcpStream, task::JoinSet};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{Servers, unless_timed_out};
use test_support::{
    eventually, new_user,
    requests::{contents, history, message, new_conversation, save, save_text, seqs},
    sidecar::{Form, Memory, Sidecar},
};

#[tokio::test]
async fn cancelled_save_is_complete_or_absent() {
    let servers = Servers::start().await;
    for form in [servers.form(), Form::embedded()] {
        // With few connections, one that a cancelled call left in a bad state is soon used again.
        let settings = [("POSTGRES_MAX_CONNECTIONS", "2")];
        let sidecar = Sidecar::start_with(&form, &settings).await;
        let mut memory = sidecar.memory();
        let conversation = new_conversation(&mut memory, &new_user()).await;
        let rounds = 300;
        for round in 0..rounds {
            let mut request = save(
                &conversation,
                vec![message(Role::User, &format!("{round}")); 3],
            );
            request.request_id = format!("turn-{round}");
            // Each round cancels a little later: before the request is sent, at each of its steps, and
            // after its end.
            let delay = Duration::from_micros(20 * round);
            let cancelled = memory.save_messages(request.clone());
            let _ = tokio::time::timeout(delay, cancelled).await;
            let saved =
                unless_timed_out(async || memory.save_messages(request.clone()).await).await;
            let saved = saved.into_inner();
            let last = i64::try_from(3 * (round + 1)).unwrap();
            assert_eq!(seqs(&saved.messages), [last - 2, last - 1, last]);
        }
        let mut strong = history(&conversation);
        strong.set_consistency(Consistency::Strong);
        strong.limit = 1000;
        let stored = memory.get_history(strong).await.unwrap().into_inner();
        let expected: Vec<String> = (0..3 * rounds).map(|at| (at / 3).to_string()).collect();
        assert_eq!(contents(&stored.messages), expected);
        if let Form::Servers { .. } = form {
            // Counted on a connection that does not belong to the sidecar.
            let mut other = servers.postgres.connect().await;
            let durable: i64 = sqlx::query_scalar("SELECT count(*) FROM messages")
                .fetch_one(&mut other)
                .await
                .unwrap();
            assert_eq!(durable, i64::try_from(3 * rounds).unwrap());
        }
    }
}

#[tokio::test]
async fn crash_between_commit_and_publish_causes_no_stale_read() {
    let servers = Servers::start().await;
    let survivor = Sidecar::start(&servers.form()).await;
    let mut memory = survivor.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;
    for _ in 0..8 {
        let doomed = Sidecar::start(&servers.form()).await;
        let mut writers = JoinSet::new();
        for _ in 0..4 {
            let (mut memory, conversation) = (doomed.memory(), conversation.clone());
            writers.spawn(async move {
                loop {
                    let request = save(&conversation, vec![message(Role::User, "x")]);
                    if memory.save_messages(request).await.is_err() {
                        break;
                    }
                }
            });
        }
        let before = newest(&servers, &conversation).await;
        eventually("the sidecar accepts a save", async || {
            newest(&servers, &conversation).await > before + 5
        })
        .await;
        doomed.kill().await;
        writers.join_all().await;
        // Committed messages are read at once, even if the save was not acknowledged.
        let committed = newest(&servers, &conversation).await;
        let mut request = history(&conversation);
        request.min_seq = committed;
        let exact = memory.get_history(request).await.unwrap().into_inner();
        assert!(exact.last_seq >= committed);
        let cached = memory.get_history(history(&conversation)).await.unwrap();
        assert!(cached.into_inner().last_seq >= committed);
    }
}

/// Makes commits of messages with the text `committed` wait for a standby that does not exist: they
/// are durable, and are not acknowledged.
const WAIT_FOR_STANDBY: [&str; 4] = [
    "ALTER SYSTEM SET synchronous_standby_names = 'none'",
    "ALTER DATABASE postgres SET synchronous_commit = 'local'",
    "CREATE FUNCTION wait_for_standby() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
       PERFORM set_config('synchronous_commit', 'on', true); RETURN NULL; END $$",
    "CREATE TRIGGER wait_for_standby AFTER INSERT ON messages FOR EACH ROW \
       WHEN (new.content = 'committed') EXECUTE FUNCTION wait_for_standby()",
];

#[tokio::test]
async fn saves_of_a_batch_are_replayed_if_the_sidecar_is_killed_after_the_commit() {
    let mut servers = Servers::start().await;
    drop(Sidecar::start(&servers.form()).await);
    for statement in WAIT_FOR_STANDBY {
        servers.postgres.execute(statement).await;
    }
    servers.postgres.stop();
    servers.postgres.run().await;
    let doomed = Sidecar::start(&servers.form()).await;
    let mut requests = Vec::new();
    for index in 0..16 {
        let conversation = new_conversation(&mut doomed.memory(), &new_user()).await;
        // The first saves are written by themselves, while the others wait.
        let text = if index < 4 { "first" } else { "committed" };
        let messages = vec![
            message(Role::User, text),
            message(Role::Assistant, "answer"),
        ];
        let mut request = save(&conversation, messages);
        request.request_id = "turn".to_owned();
        requests.push(request);
    }
    let mut admin = servers.postgres.connect().await;
    let mut lock = sqlx::Connection::begin(&mut admin).await.unwrap();
    sqlx::query("LOCK TABLE messages IN SHARE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut calls = JoinSet::new();
    let mut observer = servers.postgres.connect().await;
    for (index, request) in requests.iter().enumerate() {
        let (mut memory, request) = (doomed.memory(), request.clone());
        calls.spawn(async move { memory.save_messages(request).await });
        if index == 3 {
            eventually("saves wait for the lock", async || {
                waiting(&mut observer, "relation").await >= 1
            })
            .await;
        }
    }
    lock.commit().await.unwrap();
    eventually("saves are committed", async || {
        waiting(&mut observer, "SyncRep").await >= 1
    })
    .await;
    doomed.kill().await;
    calls.join_all().await;
    // The server makes the commits visible.
    for statement in [
        "ALTER SYSTEM RESET synchronous_standby_names",
        "SELECT pg_reload_conf()",
    ] {
        servers.postgres.execute(statement).await;
    }
    let survivor = Sidecar::start(&servers.form()).await;
    let mut memory = survivor.memory();
    for request in requests {
        let saved = unless_timed_out(async || memory.save_messages(request.clone()).await).await;
        assert_eq!(seqs(&saved.into_inner().messages), [1, 2]);
        let again = memory.save_messages(request.clone()).await.unwrap();
        assert_eq!(seqs(&again.into_inner().messages), [1, 2]);
    }
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM messages")
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(stored, 32);
}

/// Number of the server's processes that wait for an event.
async fn waiting(observer: &mut sqlx::PgConnection, event: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE wait_event = $1")
        .bind(event)
        .fetch_one(observer)
        .await
        .unwrap()
}

#[tokio::test]
async fn saves_of_an_embedded_sidecar_that_is_killed_are_replayed_with_their_numbers() {
    const CALLERS: usize = 64;
    let form = Form::embedded();
    let first = Sidecar::start(&form).await;
    let mut conversations = Vec::new();
    for _ in 0..CALLERS {
        conversations.push(new_conversation(&mut first.memory(), &new_user()).await);
    }
    first.kill().await;
    for round in 0..2 {
        let doomed = Sidecar::start(&form).await;
        let request = move |conversation: &str, turn: usize| {
            let texts = [message(Role::User, "x"), message(Role::Assistant, "y")];
            let mut request = save(conversation, texts.into());
            request.request_id = format!("{round}-{turn}");
            request
        };
        let mut callers = JoinSet::new();
        let (started, mut is_started) = tokio::sync::mpsc::unbounded_channel();
        for conversation in conversations.clone() {
            let (mut memory, started) = (doomed.memory(), started.clone());
            callers.spawn(async move {
                let mut outcomes = Vec::new();
                loop {
                    let saved = memory.save_messages(request(&conversation, outcomes.len()));
                    match saved.await {
                        Ok(saved) => outcomes.push(seqs(&saved.into_inner().messages)),
                        Err(_) => return (conversation, outcomes),
                    }
                    let _ = started.send(());
                }
            });
        }
        for _ in 0..CALLERS * (round + 2) {
            is_started.recv().await.unwrap();
        }
        doomed.kill().await;
        let survivor = Sidecar::start(&form).await;
        let mut memory = survivor.memory();
        for (conversation, outcomes) in callers.join_all().await {
            // The last save has no outcome: it is committed, or not.
            let before = newest_embedded(&mut memory, &conversation).await;
            let last = memory.save_messages(request(&conversation, outcomes.len()));
            let last = last.await.unwrap().into_inner();
            assert!(seqs(&last.messages) == [before - 1, before] || !last.replayed);
            for (turn, seqs_before) in outcomes.iter().enumerate() {
                let again = memory.save_messages(request(&conversation, turn)).await;
                let again = again.unwrap().into_inner();
                assert!(again.replayed);
                assert_eq!(seqs(&again.messages), *seqs_before);
            }
            let after = newest_embedded(&mut memory, &conversation).await;
            assert_eq!(after, last.last_seq);
        }
    }
}

/// Last number of a conversation of the embedded form.
async fn newest_embedded(memory: &mut Memory, conversation: &str) -> i64 {
    let mut request = history(conversation);
    request.set_consistency(Consistency::Strong);
    memory
        .get_history(request)
        .await
        .unwrap()
        .into_inner()
        .last_seq
}

#[tokio::test]
async fn sidecar_recovers_from_missing_file_descriptors() {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &sidecar.id().to_string(), "--nofile=64:64"])
        .stderr(Stdio::null())
        .status();
    assert!(limited.unwrap().success());
    let mut connections = Vec::new();
    // More connections than the sidecar can accept, and fewer than the kernel queues.
    for _ in 0..100 {
        connections.push(TcpStream::connect(sidecar.address).await.unwrap());
    }
    eventually("accepting fails", async || {
        sidecar
            .log()
            .iter()
            .any(|line| line.contains("cannot accept"))
    })
    .await;
    // The accept loop pauses between two attempts instead of spinning.
    let before = processor_ticks(&sidecar);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(processor_ticks(&sidecar) - before < 60);
    // Each attempt fails, and one line says so.
    let log = sidecar.log();
    let lines = log.iter().filter(|line| line.contains("cannot accept"));
    assert_eq!(lines.count(), 1, "{log:#?}");
    drop(connections);
    eventually("the sidecar responds again", async || {
        HealthClient::new(sidecar.channel())
            .check(HealthCheckRequest::default())
            .await
            .is_ok()
    })
    .await;
}

/// Processor time of the process, in hundredths of a second.
fn processor_ticks(sidecar: &Sidecar) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", sidecar.id())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn newest(servers: &Servers, conversation: &str) -> i64 {
    let mut connection = servers.postgres.connect().await;
    sqlx::query_scalar("SELECT last_seq FROM conversations WHERE id = $1::uuid")
        .bind(conversation)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}
