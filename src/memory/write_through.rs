use std::{panic, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;

use super::Memory;
use crate::{
    domain::{ConversationId, Message, UserId},
    recent::Announcement,
    store::StoreError,
};

/// Change of the recent window that a committed write requires.
pub(super) enum WindowUpdate<'a> {
    /// Messages were appended: publish them.
    Append {
        owner: &'a UserId,
        messages: &'a [Message],
        uncompacted_tokens: i64,
    },
    /// The write was a retry of one that was committed up to `last_seq`: invalidate a
    /// window that does not include it.
    Replay { last_seq: i64 },
    /// The window cannot be updated, because messages were removed, pinned or compacted: retire it.
    Removal,
}

impl Memory {
    /// Runs a write to a conversation, and keeps the recent window consistent with it:
    /// announces the write, runs it, and settles the announcement by its outcome.
    /// `limit` bounds the time until the commit. After a commit, `update` selects the
    /// change of the window, and `afterwards` runs at the same time.
    ///
    /// # Errors
    ///
    /// Fails with the error of `write`.
    ///
    /// # Panics
    ///
    /// If `write` panics. Its outcome is then unknown, and settled as such.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, the announcement stays in place until its
    /// deadline. Run it in [`Memory::uninterrupted`].
    pub(super) async fn write_through<T>(
        &self,
        conversation: ConversationId,
        limit: Duration,
        write: impl Future<Output = Result<T, StoreError>>,
        update: impl FnOnce(&T) -> WindowUpdate<'_>,
        afterwards: impl AsyncFnOnce(&T),
    ) -> Result<T, StoreError> {
        let announcement = self.0.recent.announce(conversation, limit).await;
        match AssertUnwindSafe(write).catch_unwind().await {
            Ok(Ok(committed)) => {
                let update = update(&committed);
                tokio::join!(
                    self.update_window(announcement, update),
                    afterwards(&committed)
                );
                Ok(committed)
            }
            Ok(Err(error)) => {
                self.settle_failure(announcement, &error).await;
                Err(error)
            }
            Err(panic) => {
                self.0.recent.leave(announcement).await;
                panic::resume_unwind(panic)
            }
        }
    }

    async fn update_window(&self, announcement: Announcement, update: WindowUpdate<'_>) {
        let recent = &self.0.recent;
        match update {
            WindowUpdate::Append {
                owner,
                messages,
                uncompacted_tokens,
            } => {
                recent
                    .publish(announcement, owner, messages, uncompacted_tokens)
                    .await;
            }
            WindowUpdate::Replay { last_seq } => {
                recent.publish_replay(announcement, last_seq).await;
            }
            WindowUpdate::Removal => recent.retire(announcement).await,
        }
    }

    async fn settle_failure(&self, announcement: Announcement, error: &StoreError) {
        let recent = &self.0.recent;
        match error {
            StoreError::OutcomeUnknown(_) => recent.leave(announcement).await,
            // The conversation does not exist, but a window may have outlived it.
            StoreError::NotFound => recent.forget(announcement).await,
            // Every other error means that nothing was committed.
            _ => recent.abort(announcement).await,
        }
    }
}
