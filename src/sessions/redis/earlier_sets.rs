//! Sessions that an earlier version has started. It recorded a user's sessions in a set without order,
//! `user:<user>:sessions`, of unlimited size.

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{BATCH, RedisSessions, decimal, parse_id};
use crate::{
    domain::UserId,
    redis::{RedisError, Reply, Script},
};

/// Upper bound on the batches that one call imports.
const BATCHES: usize = 32;

impl RedisSessions {
    /// Imports sessions of an earlier version in small steps, and ends those beyond the maximum.
    /// Returns whether none is left.
    pub(super) async fn import_earlier(&self, user: &UserId) -> Result<bool, RedisError> {
        for _ in 0..BATCHES {
            let read = &self.scripts.earlier_read;
            let members = self
                .run_on_earlier(read, user, &[decimal(&BATCH)])
                .await?
                .list()?;
            if members.is_empty() {
                return Ok(true);
            }
            self.import(user, &members).await?;
        }
        Ok(false)
    }

    /// Imports sessions, and removes them from the set of the earlier version only afterwards, so
    /// that a failure loses none.
    async fn import(&self, user: &UserId, members: &[Reply]) -> Result<(), RedisError> {
        let ids = members.iter().filter_map(parse_id);
        let found = try_join_all(ids.map(|id| self.read(id, Some(user)))).await?;
        let mut args = vec![self.max_per_user.clone()];
        for session in found.into_iter().flatten() {
            args.push(decimal(&session.last_active_at.timestamp_micros()));
            args.push(Bytes::from(session.id.to_string()));
        }
        if args.len() > 1 {
            let import = &self.scripts.user_import;
            let excess = self.run_on_user(import, user, &args).await?;
            self.end_excess(user, &excess.list()?).await?;
        }
        let members: Vec<Bytes> = members.iter().filter_map(super::bytes).collect();
        let remove = &self.scripts.earlier_remove;
        self.run_on_earlier(remove, user, &members).await?;
        Ok(())
    }

    async fn run_on_earlier(
        &self,
        script: &Script,
        user: &UserId,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let key = self
            .redis
            .key(format_args!("user:{}:sessions", user.as_str()));
        self.redis.run(script, &key, args).await
    }
}
