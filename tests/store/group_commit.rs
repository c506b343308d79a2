//! Saves that PostgreSQL writes together.

use std::sync::Arc;

use conversation_memory::{
    domain::{ConversationRef, IdSource, UuidV7},
    store::{Append, Appended, Bound, Invalidation, Store, StoreError, postgres::PostgresStore},
};
use futures_util::future::join_all;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions,
    query, query_scalar, raw_sql,
};
use test_support::{
    eventually,
    postgres_server::PostgresServer,
    random::Random,
    rounds,
    sidecar::send_signal,
    store_fixture::{at, context, retry_of, server_options, session, title, turn, with_request_id},
    tcp_proxy::TcpProxy,
};
use tokio::task::JoinSet;

use crate::batches::{Exception, Outcome, append_all, conversations, is_saved_at, texts};

/// Number of batches that a store writes at the same time.
const BATCHES: usize = 2;

/// Creates a database whose tables a test can lock without affecting others.
async fn private_database() -> PgConnectOptions {
    let name = format!("group_{}", UuidV7.uuid().simple());
    let mut admin = server_options().connect().await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    raw_sql(create).execute(&mut admin).await.unwrap();
    server_options().database(&name)
}

async fn prepared(options: PgConnectOptions, connections: u32) -> PostgresStore {
    let store = PostgresStore::new(options, connections);
    store.prepare(true).await.unwrap();
    store
}

/// Calls `append` for all saves, so that they are written in one batch after those that are in
/// progress first. `admin` is a connection to the same database.
async fn write_together(
    store: &PostgresStore,
    admin: &mut PgConnection,
    saves: &[Append],
) -> Vec<Outcome> {
    let first: Vec<_> = conversations(store, BATCHES).await;
    let first: Vec<_> = first.iter().map(|one| turn(one, &["first"])).collect();
    let mut lock = admin.begin().await.unwrap();
    query("LOCK TABLE messages IN SHARE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let saves = first.iter().chain(saves);
    let mut outcomes = append_all(store, saves, async { lock.commit().await.unwrap() }).await;
    outcomes.split_off(BATCHES)
}

/// Number of the transactions that saved the messages of these conversations.
async fn transactions(admin: &mut PgConnection, conversations: &[ConversationRef]) -> i64 {
    let ids: Vec<_> = conversations.iter().map(|one| one.id.as_uuid()).collect();
    query_scalar("SELECT count(DISTINCT xmin::text) FROM messages WHERE conversation_id = ANY($1)")
        .bind(ids)
        .fetch_one(admin)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_save_fails_alone_at_each_position_of_a_batch() {
    let database = private_database().await;
    let store = prepared(database.clone(), 10).await;
    let mut admin = database.connect().await.unwrap();
    for exception in Exception::COMMON
        .into_iter()
        .chain([Exception::InvalidText])
    {
        for position in 0..4 {
            let all = conversations(&store, 4).await;
            let mut saves = Vec::new();
            for (index, conversation) in all.iter().enumerate() {
                saves.push(if index == position {
                    exception.prepare(&store, conversation, false).await
                } else {
                    let mut save = with_request_id(turn(conversation, &["a", "b"]), "key");
                    save.messages[1].contexts = vec![context("document", "c")];
                    save
                });
            }
            let outcomes = write_together(&store, &mut admin, &saves).await;
            let mut others = Vec::new();
            for (index, outcome) in outcomes.iter().enumerate() {
                if index == position {
                    exception.check(outcome);
                } else {
                    assert!(is_saved_at(outcome, 1), "{exception:?}: {outcome:?}");
                    assert_eq!(texts(&store, &all[index]).await, ["a", "b"]);
                    others.push(all[index].clone());
                }
            }
            if exception != Exception::Deleted {
                assert_eq!(texts(&store, &all[position]).await, ["one"]);
            }
            // An error of the statement ends the batch, and its saves are written one by one.
            let batches = if exception == Exception::InvalidText {
                3
            } else {
                1
            };
            assert_eq!(transactions(&mut admin, &others).await, batches);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_conversation_does_not_delay_other_saves() {
    let database = private_database().await;
    let store = Arc::new(prepared(database.clone(), 10).await);
    let all = conversations(&*store, 16).await;
    let mut other = database.connect().await.unwrap();
    let mut removal = other.begin().await.unwrap();
    query("SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE")
        .bind(all[0].id.as_uuid())
        .execute(&mut *removal)
        .await
        .unwrap();
    let mut late = JoinSet::new();
    for _ in 0..2 {
        let (store, save) = (Arc::clone(&store), turn(&all[0], &["late"]));
        late.spawn(async move { store.append(&save).await });
    }
    // More than the batches in progress, all of which a wait for the lock would occupy.
    for seq in 1..=3 {
        let saves: Vec<_> = all[1..].iter().map(|one| turn(one, &["text"])).collect();
        let outcomes = join_all(saves.iter().map(|save| store.append(save))).await;
        assert!(
            outcomes.iter().all(|outcome| is_saved_at(outcome, seq)),
            "{outcomes:?}"
        );
    }
    assert!(late.try_join_next().is_none());
    removal.rollback().await.unwrap();
    for outcome in late.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(texts(&*store, &all[0]).await, ["late", "late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_fields_of_batched_saves_are_stored() {
    let database = private_database().await;
    let store = prepared(database.clone(), 10).await;
    let mut admin = database.connect().await.unwrap();
    let all = conversations(&store, 4).await;
    let mut saves = Vec::new();
    for (index, conversation) in all.iter().enumerate() {
        let mut save = turn(conversation, &["one", "two", "three"]);
        save.messages.truncate(index % 3 + 1);
        save.at = at(index.try_into().unwrap());
        save.title = Some((title("title"), 0));
        save.session_id = Some(session());
        for (number, message) in (0..).zip(&mut save.messages) {
            message.token_count = Some(number + 1);
            message.pinned = index == 2;
            message.contexts = vec![context(&format!("{index}-{number}"), "context"); index];
        }
        if index == 3 {
            save.invalidation = Invalidation::Always;
        }
        saves.push(save);
    }
    let outcomes = write_together(&store, &mut admin, &saves).await;
    for ((outcome, save), conversation) in outcomes.iter().zip(&saves).zip(&all) {
        let tokens = save.tokens();
        assert!(
            matches!(outcome, Ok(Appended::Saved { first_seq: 1, uncompacted_tokens, owner })
                if *uncompacted_tokens == tokens && Some(owner) == conversation.user_id.as_ref()),
            "{outcome:?}"
        );
        let page = store.messages(conversation, Bound::After(0), 100, true);
        let stored = page.await.unwrap();
        assert_eq!(stored.len(), save.messages.len());
        for (new, stored) in save.messages.iter().zip(&stored) {
            assert!(new.is_saved_as(stored), "{stored:?}");
            assert_eq!(stored.created_at, save.at);
        }
        let found = store.get(conversation).await.unwrap();
        assert_eq!(
            found.title,
            save.title.as_ref().map(|(title, _)| title.clone())
        );
        let session = save.session_id.unwrap();
        let user = conversation.user_id.as_ref().unwrap();
        let current = store.conversation_of_session(session, user).await.unwrap();
        assert_eq!(current.map(|one| one.id), Some(conversation.id));
    }
    assert_eq!(transactions(&mut admin, &all).await, 1);
    let pending = store.pending_invalidations(None, 10).await.unwrap();
    let pending: Vec<_> = pending.iter().map(|one| one.conversation).collect();
    assert_eq!(pending, [all[3].id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn saves_of_a_batch_whose_response_is_lost_have_certain_outcomes() {
    let server = PostgresServer::start().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let store = prepared(url.parse().unwrap(), 10).await;
    let mut admin = server.connect().await;
    for round in 0..3 {
        let all = conversations(&store, 6).await;
        let saves: Vec<_> = (0..)
            .zip(&all)
            .map(|(index, conversation)| {
                let save = turn(conversation, &[&format!("lost {round}"), "second"]);
                // A save without an idempotency key is recognized by its message ids.
                if index % 3 == 0 {
                    save
                } else {
                    with_request_id(save, "key")
                }
            })
            .collect();
        proxy.lose_response_to(&format!("lost {round}"));
        let outcomes = write_together(&store, &mut admin, &saves).await;
        assert!(
            outcomes.iter().all(|outcome| is_saved_at(outcome, 1)),
            "{outcomes:?}"
        );
        assert_eq!(transactions(&mut admin, &all).await, 1);
        for save in saves.iter().filter(|save| save.request.is_some()) {
            let replayed = store.append(&retry_of(save)).await.unwrap();
            assert!(matches!(replayed, Appended::Replayed { last_seq: 2, .. }));
        }
        for conversation in &all {
            assert_eq!(texts(&store, conversation).await.len(), 2);
        }
    }
}

/// Makes commits of messages with this text wait for a standby that does not exist. The commit is
/// durable then, and its response is not sent.
const WAIT_FOR_STANDBY: &str = "
    ALTER SYSTEM SET synchronous_standby_names = 'none';
    ALTER DATABASE postgres SET synchronous_commit = 'local';
    CREATE FUNCTION wait_for_standby() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('synchronous_commit', 'on', true); RETURN NULL; END $$;
    CREATE TRIGGER wait_for_standby AFTER INSERT ON messages FOR EACH ROW
        WHEN (new.content = 'committed') EXECUTE FUNCTION wait_for_standby()";

#[tokio::test(flavor = "multi_thread")]
async fn saves_of_a_batch_whose_server_process_is_killed_after_the_commit_are_replayed() {
    let mut server = PostgresServer::start().await;
    let options: PgConnectOptions = server.url().parse().unwrap();
    drop(prepared(options.clone(), 2).await);
    let mut admin = server.connect().await;
    for statement in WAIT_FOR_STANDBY.split_inclusive(";\n") {
        raw_sql(statement).execute(&mut admin).await.unwrap();
    }
    server.stop();
    server.run().await;
    let mut admin = server.connect().await;
    let store = prepared(options.clone(), 10).await;
    let all = conversations(&store, 6).await;
    let saves: Vec<_> = all
        .iter()
        .map(|one| with_request_id(turn(one, &["committed", "second"]), "key"))
        .collect();
    let kill = async {
        let mut observer = options.clone().connect().await.unwrap();
        let mut process = None;
        eventually("the batch is committed", async || {
            process = query_scalar::<_, i32>(
                "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
            )
            .fetch_optional(&mut observer)
            .await
            .unwrap();
            process.is_some()
        })
        .await;
        send_signal(process.unwrap().unsigned_abs(), "KILL");
    };
    let (outcomes, ()) = tokio::join!(write_together(&store, &mut admin, &saves), kill);
    for outcome in &outcomes {
        assert!(
            is_saved_at(outcome, 1)
                || matches!(
                    outcome,
                    Err(StoreError::OutcomeUnknown(_) | StoreError::Unavailable(_))
                ),
            "{outcome:?}"
        );
    }
    for save in &saves {
        let retry = retry_of(save);
        let mut replayed = None;
        eventually("the server has recovered", async || {
            replayed = store.append(&retry).await.ok();
            replayed.is_some()
        })
        .await;
        let replayed = replayed.unwrap();
        assert!(
            matches!(&replayed, Appended::Replayed { last_seq: 2, messages } if messages.len() == 2),
            "{replayed:?}"
        );
    }
    for conversation in &all {
        assert_eq!(texts(&store, conversation).await, ["committed", "second"]);
    }
    let mut admin = server.connect().await;
    assert_eq!(transactions(&mut admin, &all).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sidecars_that_save_to_the_same_conversations_do_not_deadlock() {
    let database = private_database().await;
    let writers = 64;
    let saves = rounds("CONTENDED_SAVES", 6);
    let stores = [
        Arc::new(prepared(database.clone(), 10).await),
        Arc::new(prepared(database.clone(), 10).await),
    ];
    let all = Arc::new(conversations(&*stores[0], 20).await);
    let mut tasks = JoinSet::new();
    for (store, writer) in stores
        .iter()
        .flat_map(|it| (0..writers).map(move |n| (it, n)))
    {
        let (store, all) = (Arc::clone(store), Arc::clone(&all));
        tasks.spawn(async move {
            let mut random = Random::new(writer);
            for _ in 0..saves {
                let conversation = &all[random.below(all.len())];
                let key = UuidV7.uuid().to_string();
                let save = with_request_id(turn(conversation, &["one", "two"]), &key);
                // A machine that is busy may exceed a time limit. Nothing was written then.
                while let Err(error) = store.append(&save).await {
                    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                }
            }
        });
    }
    tasks.join_all().await;
    let mut stored = 0;
    for conversation in &*all {
        let seqs = stores[0].get(conversation).await.unwrap().last_seq;
        let page = stores[0].messages(conversation, Bound::After(0), 1_000, false);
        let read = page.await.unwrap();
        // A page may end early, but has no gap.
        assert!((1..).zip(&read).all(|(seq, message)| message.seq == seq));
        stored += seqs;
    }
    assert_eq!(stored, 2 * 64 * 2 * i64::from(saves));
    let mut admin = database.connect().await.unwrap();
    // Statistics of a process are reported when it ends, at the latest.
    for store in &stores {
        store.close().await;
    }
    let deadlocks: i64 =
        query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(&mut admin)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_saves_of_batches_are_complete_or_absent_and_change_no_others() {
    let store = Arc::new(prepared(server_options(), 4).await);
    let callers = 32;
    let saves = rounds("CANCELLED_SAVES", 640) / callers;
    let all = conversations(&*store, callers.try_into().unwrap()).await;
    let mut tasks = JoinSet::new();
    for (conversation, caller) in all.into_iter().zip(0..) {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut random = Random::new(caller);
            let mut dropped = 0;
            for number in 0..saves {
                let save = with_request_id(turn(&conversation, &["a", "b"]), &number.to_string());
                let polls = random.below(6);
                let polled = crate::cancelled::poll_limited(store.append(&save), polls).await;
                dropped += u32::from(polled.is_none());
                while let Err(error) = store.append(&retry_of(&save)).await {
                    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                }
                let stored = loop {
                    match store.get(&conversation).await {
                        Ok(stored) => break stored,
                        Err(error) => {
                            assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                        }
                    }
                };
                assert_eq!(stored.last_seq, i64::from(number + 1) * 2);
            }
            dropped
        });
    }
    let dropped: u32 = tasks.join_all().await.iter().sum();
    assert!(dropped > saves * callers / 4, "only {dropped} were dropped");
}
