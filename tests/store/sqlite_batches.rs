//! Saves that the store on SQLite writes together.

mod equality;

use std::{path::PathBuf, sync::Arc};

use conversation_memory::{
    domain::ConversationRef,
    store::{Append, Appended, Bound, Store, sqlite::SqliteStore},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, SqliteConnection, raw_sql, sqlite::SqliteConnectOptions,
};
use test_support::store_fixture::{
    append_of, at, context, message, new_conversation, owned_ref, retry_of, title, turn, user,
    with_request_id,
};
use tokio::task::JoinSet;

use crate::batches::{self, Exception, Outcome, append_all, is_saved_at};

/// Store in a file, with a connection that does not belong to it.
struct Fixture {
    store: Arc<SqliteStore>,
    other: SqliteConnection,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("memory.db");
        let store = SqliteStore::open(&file).unwrap();
        store.prepare(true).await.unwrap();
        let options = SqliteConnectOptions::new().filename(file);
        let other = options.connect().await.unwrap();
        Self {
            store: Arc::new(store),
            other,
            _folder: folder,
        }
    }

    async fn execute(&mut self, statement: &str) {
        let statement = raw_sql(AssertSqlSafe(statement.to_owned()));
        statement.execute(&mut self.other).await.unwrap();
    }

    async fn conversations(&self, number: usize) -> Vec<ConversationRef> {
        batches::conversations(&*self.store, number).await
    }

    /// Calls `append` for all saves, so that they wait for another one and are then written
    /// together in one batch.
    async fn write_together(&mut self, saves: &[Append]) -> Vec<Outcome> {
        let first = self.conversations(1).await;
        self.write_after(&turn(&first[0], &["first"]), saves).await
    }

    /// See [`Self::write_together`]; `first` is the save that the others wait for.
    async fn write_after(&mut self, first: &Append, saves: &[Append]) -> Vec<Outcome> {
        self.execute("BEGIN IMMEDIATE").await;
        let store = Arc::clone(&self.store);
        let all = std::iter::once(first).chain(saves);
        let mut outcomes = append_all(&*store, all, self.execute("ROLLBACK")).await;
        outcomes.split_off(1)
    }

    async fn texts(&self, conversation: &ConversationRef) -> Vec<String> {
        batches::texts(&*self.store, conversation).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_save_fails_alone_at_each_position_of_a_batch() {
    let mut fixture = Fixture::new().await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON messages WHEN new.content = 'refused' \
                  BEGIN SELECT RAISE(ABORT, 'refused'); END";
    fixture.execute(refuse).await;
    let own = [Exception::RepeatedMessageId, Exception::RefusedText];
    for exception in Exception::COMMON.into_iter().chain(own) {
        for position in 0..4 {
            let all = fixture.conversations(4).await;
            let mut saves = Vec::new();
            for (index, conversation) in all.iter().enumerate() {
                saves.push(if index == position {
                    exception.prepare(&*fixture.store, conversation, true).await
                } else {
                    with_request_id(turn(conversation, &["a", "b"]), "key")
                });
            }
            let outcomes = fixture.write_together(&saves).await;
            for (index, outcome) in outcomes.iter().enumerate() {
                if index == position {
                    exception.check(outcome);
                } else {
                    assert!(is_saved_at(outcome, 1), "{exception:?}: {outcome:?}");
                    assert_eq!(fixture.texts(&all[index]).await, ["a", "b"]);
                }
            }
            if exception != Exception::Deleted {
                assert_eq!(fixture.texts(&all[position]).await, ["one"]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn saves_of_a_batch_with_the_same_message_id_are_saved() {
    let mut fixture = Fixture::new().await;
    let all = fixture.conversations(4).await;
    let mut saves: Vec<_> = all.iter().map(|one| turn(one, &["a", "b"])).collect();
    for at in [1, 2] {
        saves[at].messages[1].id = saves[1].messages[1].id;
        saves[at].messages[1].id_chosen = true;
    }
    let outcomes = fixture.write_together(&saves).await;
    assert!(outcomes.iter().all(|outcome| is_saved_at(outcome, 1)));
    for conversation in &all {
        assert_eq!(fixture.texts(conversation).await, ["a", "b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn saves_of_a_batch_keep_all_their_fields() {
    let mut fixture = Fixture::new().await;
    let all = fixture.conversations(4).await;
    let mut saves = Vec::new();
    for (index, conversation) in (0..).zip(&all) {
        // The last one has more messages than are inserted by one statement.
        let texts = [
            "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
        ];
        let mut save = turn(conversation, &texts);
        save.messages
            .truncate([1, 2, 8, 9][usize::try_from(index).unwrap()]);
        save.at = at(index);
        save.title = Some((title("title"), 0));
        save.session_id = Some(test_support::store_fixture::session());
        for (number, message) in (0..).zip(&mut save.messages) {
            message.token_count = Some(number + 1);
            message.pinned = index == 2;
            if index == 1 {
                message.contexts = vec![context(&format!("{number}"), "context"); 2];
            }
        }
        saves.push(if index % 2 == 0 {
            save
        } else {
            with_request_id(save, "key")
        });
    }
    let outcomes = fixture.write_together(&saves).await;
    for ((outcome, save), conversation) in outcomes.iter().zip(&saves).zip(&all) {
        let tokens = save.tokens();
        assert!(
            matches!(outcome, Ok(Appended::Saved { first_seq: 1, uncompacted_tokens, owner })
                if *uncompacted_tokens == tokens && Some(owner) == conversation.user_id.as_ref()),
            "{outcome:?}"
        );
        let page = fixture
            .store
            .messages(conversation, Bound::After(0), 100, true);
        let stored = page.await.unwrap();
        assert_eq!(stored.len(), save.messages.len());
        for (new, stored) in save.messages.iter().zip(&stored) {
            assert!(new.is_saved_as(stored), "{stored:?}");
            assert_eq!(stored.created_at, save.at);
        }
        let found = fixture.store.get(conversation).await.unwrap();
        assert_eq!(found.title, Some(title("title")));
        assert_eq!(found.uncompacted_tokens, tokens);
        let (session, user) = (save.session_id.unwrap(), conversation.user_id.as_ref());
        let current = fixture
            .store
            .conversation_of_session(session, user.unwrap());
        assert_eq!(
            current.await.unwrap().map(|one| one.id),
            Some(conversation.id)
        );
        let replayed = fixture.store.append(&retry_of(save)).await.unwrap();
        let is_replayed = matches!(replayed, Appended::Replayed { .. });
        assert_eq!(is_replayed, save.request.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_are_served_without_rejections() {
    const CALLERS: usize = 256;
    const SAVES: i64 = 4;
    let fixture = Fixture::new().await;
    let mut callers = JoinSet::new();
    for conversation in fixture.conversations(CALLERS).await {
        let store = Arc::clone(&fixture.store);
        callers.spawn(async move {
            for number in 0..SAVES {
                let save = turn(&conversation, &["question", "answer"]);
                let outcome = store.append(&save).await;
                assert!(is_saved_at(&outcome, 2 * number + 1), "{outcome:?}");
            }
        });
    }
    callers.join_all().await;
}
