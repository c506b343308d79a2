use std::{collections::HashMap, panic, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::Memory;
use crate::{
    domain::{ConversationId, ConversationRef, Message, UserId},
    recent::{Announcement, Claim},
    store::{Invalidation, REMOVAL_LIMIT, StoreError},
};

/// Upper bound on the windows that one write updates at the same time.
pub(super) const MAX_CONCURRENT_WINDOWS: usize = 32;

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
    /// Nothing that the window contains was changed.
    Unchanged,
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
    /// Fails with the error of `write`, and before it with [`StoreError::NotFound`] if there is no
    /// such conversation.
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
        conversation: &ConversationRef,
        limit: Duration,
        write: impl AsyncFnOnce(Invalidation) -> Result<T, StoreError>,
        update: impl FnOnce(&T) -> WindowUpdate<'_>,
        afterwards: impl AsyncFnOnce(&T),
    ) -> Result<T, StoreError> {
        let announcement = self.announce(conversation, limit).await?;
        let write = write(self.invalidation([&announcement]));
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

    /// Runs a write after which the conversation's window cannot be updated, and drops the window.
    ///
    /// # Errors
    ///
    /// Fails with the error of `write`.
    ///
    /// # Panics
    ///
    /// Panics where [`Self::write_through`] does.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe, as [`Self::write_through`] is not.
    pub(super) async fn retire_through<T>(
        &self,
        conversation: &ConversationRef,
        write: impl AsyncFnOnce(Invalidation) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write_through(
            conversation,
            REMOVAL_LIMIT,
            write,
            |_| WindowUpdate::Removal,
            async |_| {},
        )
        .await
    }

    /// Runs a removal from several conversations, and drops their recent windows. `affected` returns
    /// the conversations that the removal has changed: one that is not among `conversations` was
    /// created after these were read. The store has confirmed the owner of all of them.
    ///
    /// # Errors
    ///
    /// Fails with the error of `write`.
    ///
    /// # Panics
    ///
    /// Panics where [`Self::write_through`] does.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe, as [`Self::write_through`] is not.
    pub(super) async fn remove_through<T>(
        &self,
        conversations: Vec<ConversationId>,
        limit: Duration,
        write: impl AsyncFnOnce(Vec<ConversationId>, Invalidation) -> Result<T, StoreError>,
        affected: impl FnOnce(&T) -> &[ConversationId],
    ) -> Result<T, StoreError> {
        let mut announcements = self.announce_all(conversations, limit).await;
        let announced = announcements.keys().copied().collect();
        let write = write(announced, self.invalidation(announcements.values()));
        let recent = &self.0.recent;
        match AssertUnwindSafe(write).catch_unwind().await {
            Ok(Ok(committed)) => {
                let affected = affected(&committed).iter().copied();
                let unannounced = affected.filter(|id| !announcements.contains_key(id));
                let unannounced = unannounced.collect();
                announcements.extend(self.announce_all(unannounced, limit).await);
                settle_all(announcements, |one| recent.retire(one)).await;
                Ok(committed)
            }
            Ok(Err(error)) => {
                let settle = |one| self.settle_failure(one, &error);
                settle_all(announcements, settle).await;
                Err(error)
            }
            Err(panic) => {
                settle_all(announcements, |one| recent.leave(one)).await;
                panic::resume_unwind(panic)
            }
        }
    }

    /// Announces a write. If the window does not know the claimed user as the owner, the store
    /// confirms the claim first, so that no other user's call changes the window.
    async fn announce(
        &self,
        conversation: &ConversationRef,
        limit: Duration,
    ) -> Result<Announcement, StoreError> {
        let (recent, id) = (&self.0.recent, conversation.id);
        let claim = Claim::of(conversation);
        if let Some(announcement) = recent.announce(id, claim, limit).await {
            return Ok(announcement);
        }
        self.0.store.get(conversation).await?;
        Ok(self.announce_confirmed(id, claim.confirmed(), limit).await)
    }

    async fn announce_confirmed(
        &self,
        id: ConversationId,
        claim: Claim<'_>,
        limit: Duration,
    ) -> Announcement {
        let announced = self.0.recent.announce(id, claim, limit).await;
        announced.unwrap_or_else(|| Announcement::unannounced(id))
    }

    async fn announce_all(
        &self,
        conversations: Vec<ConversationId>,
        limit: Duration,
    ) -> HashMap<ConversationId, Announcement> {
        stream::iter(conversations)
            .map(async |id| {
                let announcement = self.announce_confirmed(id, Claim::Unclaimed, limit);
                (id, announcement.await)
            })
            .buffer_unordered(MAX_CONCURRENT_WINDOWS)
            .collect()
            .await
    }

    /// Returns when a write with these announcements records pending invalidations.
    fn invalidation<'a>(
        &self,
        announcements: impl IntoIterator<Item = &'a Announcement>,
    ) -> Invalidation {
        if !self.0.recent.is_shared() {
            return Invalidation::Never;
        }
        // The minimum is `None` if any write is not announced.
        let until = announcements.into_iter().map(Announcement::announced_until);
        until
            .min()
            .flatten()
            .map_or(Invalidation::Always, Invalidation::After)
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
            WindowUpdate::Unchanged => recent.abort(announcement).await,
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

async fn settle_all<F: Future<Output = ()>>(
    announcements: HashMap<ConversationId, Announcement>,
    settle: impl Fn(Announcement) -> F,
) {
    stream::iter(announcements.into_values())
        .for_each_concurrent(MAX_CONCURRENT_WINDOWS, settle)
        .await;
}
