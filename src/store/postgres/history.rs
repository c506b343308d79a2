use sqlx::{PgConnection, postgres::PgRow};

use super::{Pool, connection::Lease};
use crate::store::reads::reads;

reads!(PgConnection, PgRow, ConversationId::as_uuid);

pub(super) async fn newest(
    pool: &Pool,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<(Conversation, Vec<Message>), Trouble> {
    let mut lease = Lease::take(pool).await?;
    let read = read_newest(&mut lease, conversation, limit, contexts).await;
    lease.release(read)
}

pub(super) async fn messages(
    pool: &Pool,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, Trouble> {
    let mut lease = Lease::take(pool).await?;
    let read = read_side(&mut lease, conversation, from, limit, contexts).await;
    lease.release(read)
}
