use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    StoreHistory, decimal, milliseconds,
    pending_invalidations::{PendingInvalidations, observe_pending},
    script_reply::ScriptReply,
    scripts::WindowScripts,
};
use crate::{
    domain::ConversationId,
    log_throttle::LogThrottle,
    recent::instruments::{DropReason, WindowInstruments},
    redis::{HashReply, Redis, RedisError, Script},
};

/// Number of windows that are dropped at a time once Redis is available again.
const DROP_BATCH: usize = 64;
/// Delay after Redis has replied with an error to a drop.
const DROP_RETRY_DELAY: Duration = Duration::from_millis(250);

/// Runs the window scripts, counts the windows that they drop, and keeps the invalidations that
/// could not be sent. Shared by [`super::RedisRecent`] and its background task.
pub(super) struct ScriptRunner {
    pub(super) redis: Redis,
    history: StoreHistory,
    pub(super) scripts: WindowScripts,
    /// TTL of a window after its last use, in milliseconds.
    pub(super) ttl: Bytes,
    pub(super) pending: Arc<PendingInvalidations>,
    pub(super) instruments: WindowInstruments,
    /// Throttle of the lines about error replies and about windows with invalid content.
    error_log: LogThrottle,
}

impl ScriptRunner {
    pub(super) fn new(
        redis: Redis,
        ttl: Duration,
        history: StoreHistory,
        scripts: WindowScripts,
    ) -> Self {
        let pending = Arc::default();
        observe_pending(&pending);
        Self {
            redis,
            history,
            scripts,
            ttl: milliseconds(ttl),
            instruments: WindowInstruments::new(),
            pending,
            error_log: LogThrottle::default(),
        }
    }

    /// Returns the identity of the history of the store's data.
    pub(super) fn history(&self) -> Bytes {
        (self.history)()
    }

    /// Runs a script on the window of a conversation. The first argument is the history of the
    /// store's data that the window belongs to.
    pub(super) async fn run(
        &self,
        script: &Script,
        conversation: ConversationId,
        args: &[Bytes],
    ) -> Result<ScriptReply, RedisError> {
        let key = self.key(conversation);
        let reply = self.redis.run(script, &key, args).await;
        let result = reply.and_then(ScriptReply::parse);
        match &result {
            Ok(reply) => self.count_drop(conversation, reply.drop_reason),
            // The client logs outages.
            Err(error @ (RedisError::ErrorReply(_) | RedisError::UnexpectedReply)) => {
                self.log_error(*error);
            }
            Err(_) => {}
        }
        result
    }

    /// Reads all fields of the window of a conversation, and resets its TTL.
    pub(super) async fn read(&self, conversation: ConversationId) -> Result<HashReply, RedisError> {
        // No announced write lasts longer than the TTL, which is at least a minute.
        self.redis
            .read_hash(&self.key(conversation), &self.ttl)
            .await
    }

    fn key(&self, conversation: ConversationId) -> String {
        self.redis
            .key(format_args!("history:{conversation}:recent"))
    }

    fn log_error(&self, error: RedisError) {
        let error = error.to_string();
        if let Some(suppressed) = self.error_log.admit(&error) {
            let suppressed = suppressed.count();
            tracing::warn!(
                error,
                suppressed,
                "the recent window failed; reading the store instead"
            );
        }
    }

    fn count_drop(&self, conversation: ConversationId, reason: Option<DropReason>) {
        let Some(reason) = reason else { return };
        self.instruments.count_drop(reason);
        if reason != DropReason::Unreadable {
            return;
        }
        if let Some(suppressed) = self.error_log.admit(reason.name()) {
            let suppressed = suppressed.count();
            tracing::warn!(
                conversation.id = %conversation,
                suppressed,
                "dropped a window with invalid content"
            );
        }
    }

    /// Withdraws an announcement, and drops the window if `drop` is set.
    pub(super) async fn abort(
        &self,
        conversation: ConversationId,
        history: Bytes,
        token: String,
        drop: bool,
    ) -> Result<ScriptReply, RedisError> {
        let args = [history, Bytes::from(token), decimal(u8::from(drop))];
        self.run(&self.scripts.abort, conversation, &args).await
    }

    /// Drops a window and withdraws announcements.
    pub(super) async fn drop_window(
        &self,
        conversation: ConversationId,
        history: Bytes,
        reason: DropReason,
        tokens: &[String],
    ) -> Result<ScriptReply, RedisError> {
        let mut args = vec![
            history,
            self.ttl.clone(),
            Bytes::from_static(reason.name().as_bytes()),
        ];
        args.extend(tokens.iter().cloned().map(Bytes::from));
        self.run(&self.scripts.drop, conversation, &args).await
    }
}

impl fmt::Debug for ScriptRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptRunner").finish_non_exhaustive()
    }
}

/// Drops the windows of the pending invalidations when Redis is available, until the task is
/// cancelled.
pub(super) async fn drop_pending(runner: Arc<ScriptRunner>) {
    loop {
        let batch = runner.pending.next_batch(DROP_BATCH).await;
        runner.redis.wait_until_available().await;
        let drops = batch.iter().map(async |invalidation| {
            let result = runner
                .drop_window(
                    invalidation.conversation,
                    runner.history(),
                    DropReason::Unpublished,
                    &invalidation.tokens,
                )
                .await;
            if result.is_ok() {
                runner.pending.complete(invalidation);
            }
            result.is_ok()
        });
        if join_all(drops).await.contains(&false) {
            sleep(DROP_RETRY_DELAY).await;
        }
    }
}
