//! Changes of owners. A search finds messages by the owner in their documents, and conversations that
//! share messages share the documents. Therefore the conversations that are connected by branches
//! always belong to one user, and get another owner together.

use super::StoreError;
use crate::domain::{Conversation, ConversationRef, UserId};

/// Maximum number of the conversations that get another owner together, including deleted ones that
/// connect them.
pub const MAX_FAMILY_CONVERSATIONS: u32 = 1_000;

/// Maximum number of the messages of these. In SQLite, where all writes share one writer, those of so
/// many messages take about a tenth of a second.
pub const MAX_FAMILY_MESSAGES: u32 = 20_000;

/// Returns the owner of a conversation that can get a new one: it has the owner that the caller names,
/// or the new one, if the same change was made before.
///
/// # Errors
///
/// Fails with [`StoreError::NotFound`] if there is no such conversation.
pub(super) fn previous_owner(
    found: Option<Conversation>,
    conversation: &ConversationRef,
    new: &UserId,
) -> Result<UserId, StoreError> {
    let owner = found.ok_or(StoreError::NotFound)?.user_id;
    let claimed = conversation.user_id.as_ref();
    if claimed.is_some_and(|claimed| *claimed != owner) && owner != *new {
        return Err(StoreError::NotFound);
    }
    Ok(owner)
}

/// Rejects more rows than a limit. At most one row more than that was read.
///
/// # Errors
///
/// Fails with [`StoreError::FamilyTooLarge`] if there are more.
pub(super) fn check_size(rows: i64, max: u32) -> Result<(), StoreError> {
    if rows > i64::from(max) {
        return Err(StoreError::FamilyTooLarge);
    }
    Ok(())
}
