use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    answer::Answer,
    instruments::{Instruments, Reason},
    millis, number,
    scripts::Scripts,
    unpublished::Unpublished,
};
use crate::{
    domain::ConversationId,
    log_throttle::LogThrottle,
    redis::{Redis, RedisError, Script},
};

/// How many windows are dropped at a time when Redis answers again.
const DROP_BATCH: usize = 64;
/// How long to wait when Redis answers but refuses to drop.
const DROP_RETRY: Duration = Duration::from_millis(250);

/// What the windows and the task that drops them have in common: the way to
/// Redis, and what could not be sent on it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) redis: Redis,
    pub(super) scripts: Scripts,
    /// How long a window lives after its last use, in milliseconds.
    pub(super) ttl: Bytes,
    pub(super) unpublished: Arc<Unpublished>,
    pub(super) instruments: Instruments,
    rejection_log: LogThrottle,
}

impl Shared {
    pub(super) fn new(redis: Redis, ttl: Duration, scripts: Scripts) -> Self {
        let unpublished = Arc::default();
        Self {
            redis,
            scripts,
            ttl: millis(ttl),
            instruments: Instruments::new(&unpublished),
            unpublished,
            rejection_log: LogThrottle::default(),
        }
    }

    /// Runs a script on a conversation's window.
    pub(super) async fn run(
        &self,
        script: &Script,
        conversation: ConversationId,
        args: &[Bytes],
    ) -> Result<Answer, RedisError> {
        let key = self
            .redis
            .key(format_args!("history:{conversation}:recent"));
        let reply = self.redis.run(script, &key, args).await;
        let result = reply.and_then(Answer::read);
        match &result {
            Ok(answer) => self.count(conversation, answer.dropped),
            // An outage is said by the client.
            Err(error @ (RedisError::Refused(_) | RedisError::Unexpected))
                if self.rejection_log.should_log() =>
            {
                tracing::warn!(%error, "the recent window goes on without Redis");
            }
            Err(_) => {}
        }
        result
    }

    fn count(&self, conversation: ConversationId, dropped: Option<Reason>) {
        let Some(reason) = dropped else { return };
        self.instruments.dropped(reason);
        if reason == Reason::Unreadable {
            tracing::warn!(conversation.id = %conversation, "a window made no sense and was dropped");
        }
    }

    /// Takes an announcement back, and drops the window too where that is wanted.
    pub(super) async fn abort(
        &self,
        conversation: ConversationId,
        token: String,
        drop: bool,
    ) -> Result<Answer, RedisError> {
        let args = [Bytes::from(token), number(u8::from(drop))];
        self.run(&self.scripts.abort, conversation, &args).await
    }

    /// Drops a window, and takes announcements back.
    pub(super) async fn drop_window(
        &self,
        conversation: ConversationId,
        reason: Reason,
        tokens: &[String],
    ) -> Result<Answer, RedisError> {
        let mut args = vec![
            self.ttl.clone(),
            Bytes::from_static(reason.word().as_bytes()),
        ];
        args.extend(tokens.iter().cloned().map(Bytes::from));
        self.run(&self.scripts.drop, conversation, &args).await
    }
}

/// Drops the windows that could not be dropped in time, as soon as Redis takes it.
pub(super) async fn drop_unpublished(shared: Arc<Shared>) {
    loop {
        let due = shared.unpublished.due(DROP_BATCH).await;
        shared.redis.available().await;
        let drops = due.iter().map(async |due| {
            let result = shared
                .drop_window(due.conversation, Reason::Unpublished, &due.tokens)
                .await;
            if result.is_ok() {
                shared.unpublished.dropped(due);
            }
            result.is_ok()
        });
        if join_all(drops).await.contains(&false) {
            sleep(DROP_RETRY).await;
        }
    }
}
