use sqlx::{SqliteConnection, query, query_as, query_scalar};
use uuid::fmt::Hyphenated;

use super::{
    Pool,
    append::{Note, add_note, find_request},
    connection::{self, Micros},
    conversations, sql,
};
use crate::{
    domain::ConversationRef,
    store::{Truncated, Truncation, failure::Trouble, replay},
};

const DELETE: &str = "DELETE FROM conversations WHERE id = $1";

const OWN_AFTER: &str = "SELECT own_after FROM conversations WHERE id = $1";

const TOUCH: &str =
    "UPDATE conversations SET updated_at = max(updated_at, $2), activity = $3 WHERE id = $1";

/// A range of the messages that are kept under an id.
type Range = (Hyphenated, i64, i64);

pub(super) async fn delete(writer: &Pool, conversation: &ConversationRef) -> Result<(), Trouble> {
    let mut transaction = connection::begin(writer).await?;
    let found = conversations::find_one(&mut transaction, conversation).await?;
    let id = found.id.as_uuid().hyphenated();
    let shown = lineage(&mut transaction, id).await?;
    query(DELETE).bind(id).execute(&mut *transaction).await?;
    release(&mut transaction, (id, 0, i64::MAX)).await?;
    for range in shown.into_iter().filter(|(source, ..)| *source != id) {
        release(&mut transaction, range).await?;
    }
    connection::commit(transaction).await
}

async fn lineage(
    connection: &mut SqliteConnection,
    conversation: Hyphenated,
) -> Result<Vec<Range>, Trouble> {
    Ok(query_as(sql::LINEAGE)
        .bind(conversation)
        .fetch_all(connection)
        .await?)
}

async fn release(
    connection: &mut SqliteConnection,
    (source, after_seq, upto_seq): Range,
) -> Result<(), Trouble> {
    query(sql::RELEASE)
        .bind(source)
        .bind(after_seq)
        .bind(upto_seq)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn truncate(writer: &Pool, truncation: &Truncation) -> Result<Truncated, Trouble> {
    let mut transaction = connection::begin(writer).await?;
    let found = conversations::find_one(&mut transaction, &truncation.conversation).await?;
    let last_seq = found.last_seq;
    if let Some(request) = &truncation.request
        && let Some(known) = find_request(&mut transaction, found.id, request).await?
    {
        return Ok(replay::of_truncation(&known, request)?);
    }
    replay::ends_at(truncation.expected_last_seq, last_seq)?;
    let id = found.id.as_uuid().hyphenated();
    let own_after: i64 = query_scalar(OWN_AFTER)
        .bind(id)
        .fetch_one(&mut *transaction)
        .await?;
    let end = End {
        conversation: id,
        after_seq: truncation.after_seq,
        last_seq,
        own_after,
    };
    let removed = end.cut(&mut transaction).await?;
    let at = Micros::from(truncation.at);
    let activity = connection::next_activity(&mut transaction).await?;
    query(TOUCH)
        .bind(id)
        .bind(at)
        .bind(activity)
        .execute(&mut *transaction)
        .await?;
    if let Some(request) = &truncation.request {
        let note = Note {
            request,
            first_seq: truncation.after_seq.saturating_add(1),
            last_seq,
            removed: Some(removed),
            at,
        };
        add_note(&mut transaction, found.id, &note).await?;
    }
    connection::commit(transaction).await?;
    Ok(Truncated { removed, last_seq })
}

/// Where a conversation is to end.
struct End {
    conversation: Hyphenated,
    after_seq: i64,
    last_seq: i64,
    own_after: i64,
}

impl End {
    /// Removes what comes after it, or hides it where a branch shows it, and gives
    /// how many messages the conversation has lost.
    async fn cut(&self, connection: &mut SqliteConnection) -> Result<i64, Trouble> {
        let shown = lineage(connection, self.conversation).await?;
        let shared = if shown.is_empty() {
            0
        } else {
            self.count(connection, sql::COUNT_SHARED, self.after_seq)
                .await?
        };
        let own_from = self.after_seq.max(self.own_after);
        let own = self.count(connection, sql::COUNT_OWN, own_from).await?;
        for statement in sql::CUT_LINEAGE {
            self.bound(query(statement), self.after_seq)
                .execute(&mut *connection)
                .await?;
        }
        self.bound(query(sql::REMOVE_OWN), self.after_seq)
            .execute(&mut *connection)
            .await?;
        if self.count(connection, sql::COUNT_OWN, own_from).await? > 0 {
            self.hide(connection).await?;
        }
        for (source, after_seq, upto_seq) in shown {
            if upto_seq > self.after_seq {
                let given_up = (source, after_seq.max(self.after_seq), upto_seq);
                release(connection, given_up).await?;
            }
        }
        Ok(shared + own)
    }

    /// Shows none of the own messages that branches keep.
    async fn hide(&self, connection: &mut SqliteConnection) -> Result<(), Trouble> {
        if self.after_seq > self.own_after {
            query(sql::ADD_LINEAGE)
                .bind(self.conversation)
                .bind(self.conversation)
                .bind(self.own_after)
                .bind(self.after_seq)
                .execute(&mut *connection)
                .await?;
        }
        self.bound(query(sql::HIDE_OWN), self.last_seq)
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn count(
        &self,
        connection: &mut SqliteConnection,
        statement: &'static str,
        after_seq: i64,
    ) -> Result<i64, Trouble> {
        Ok(query_scalar(statement)
            .bind(self.conversation)
            .bind(after_seq)
            .fetch_one(connection)
            .await?)
    }

    fn bound<'q>(&self, statement: SqliteQuery<'q>, seq: i64) -> SqliteQuery<'q> {
        statement.bind(self.conversation).bind(seq)
    }
}

type SqliteQuery<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;
