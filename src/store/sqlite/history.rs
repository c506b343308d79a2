use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::fmt::Hyphenated;

use super::{Pool, connection};
use crate::store::reads::reads;

reads!(SqliteConnection, SqliteRow, key);

pub(super) async fn newest(
    readers: &Pool,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<(Conversation, Vec<Message>), Trouble> {
    let mut reader = connection::reader(readers).await?;
    read_newest(&mut reader, conversation, limit, contexts).await
}

pub(super) async fn messages(
    readers: &Pool,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, Trouble> {
    let mut reader = connection::reader(readers).await?;
    read_side(&mut reader, conversation, from, limit, contexts).await
}

fn key(conversation: ConversationId) -> Hyphenated {
    conversation.as_uuid().hyphenated()
}
