//! Sessions in Redis: a hash for each session, and a set of ids for each user.
//!
//! A script touches one key, so that a cluster needs no hash tags; where two
//! keys change, both scripts are sent at once. The set may therefore name
//! sessions that are dead or another user's: they are pruned when it is read,
//! and a live session that is missing comes back with its next use.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::try_join_all;

use super::{Sessions, SessionsUnavailable};
use crate::{
    domain::{ConversationId, DeptId, NewSession, Session, SessionId, UserId},
    redis::{Redis, RedisError, Reply, Script},
};

/// How many sessions are read, and how many dead ones removed, at a time.
const BATCH: usize = 64;

macro_rules! script {
    ($common:literal, $name:literal) => {
        Script::new(
            $name,
            concat!(
                include_str!(concat!($common, "_common.lua")),
                include_str!(concat!($name, ".lua"))
            ),
        )
    };
}

/// Sessions in Redis.
#[derive(Clone, Debug)]
pub struct RedisSessions {
    redis: Redis,
    ttl: Bytes,
    scripts: Arc<Scripts>,
}

#[derive(Debug)]
struct Scripts {
    start: Script,
    get: Script,
    touch: Script,
    end: Script,
    user_add: Script,
    user_list: Script,
    user_remove: Script,
}

impl RedisSessions {
    /// Sessions that live for `ttl` after their last use.
    pub fn new(redis: Redis, ttl: Duration) -> Self {
        Self {
            redis,
            ttl: Bytes::from(ttl.as_millis().to_string()),
            scripts: Arc::new(Scripts {
                start: script!("session", "session_start"),
                get: script!("session", "session_get"),
                touch: script!("session", "session_touch"),
                end: script!("session", "session_end"),
                user_add: script!("user", "user_add"),
                user_list: script!("user", "user_list"),
                user_remove: script!("user", "user_remove"),
            }),
        }
    }

    async fn on_session(
        &self,
        script: &Script,
        id: SessionId,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let key = self.redis.key(format_args!("session:{id}"));
        self.redis.run(script, &key, args).await
    }

    async fn on_user(
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

    /// Adds a session to its user's. When they have become many a few of them
    /// are looked at, so that dead ones don't pile up though nobody lists them.
    async fn add_to_user(&self, user: &UserId, id: SessionId) -> Result<(), RedisError> {
        let args = [self.ttl.clone(), Bytes::from(id.to_string())];
        let added = self.on_user(&self.scripts.user_add, user, &args).await?;
        let some = added.list()?;
        if !some.is_empty() {
            let (sessions, user) = (self.clone(), user.clone());
            self.redis.spawn(async move {
                // Whatever fails is looked at another time.
                let _ = sessions.read_members(&user, &some).await;
            });
        }
        Ok(())
    }

    /// Reads a session that a script returned. One that makes no sense is removed.
    async fn decode(&self, id: SessionId, reply: Reply) -> Result<Option<Session>, RedisError> {
        if reply.is_nil() {
            return Ok(None);
        }
        let session = session(id, reply);
        if session.is_none() {
            self.on_session(&self.scripts.end, id, &[]).await?;
        }
        Ok(session)
    }

    /// Renews a session and, at the same time, its user's set.
    async fn touch_known(
        &self,
        id: SessionId,
        user: &UserId,
    ) -> Result<Option<Session>, RedisError> {
        let args = [self.ttl.clone(), text(user.as_str())];
        let (touched, added) = tokio::join!(
            self.on_session(&self.scripts.touch, id, &args),
            self.add_to_user(user, id)
        );
        added?;
        self.decode(id, touched?).await
    }

    async fn touch_unknown(&self, id: SessionId) -> Result<Option<Session>, RedisError> {
        let args = [self.ttl.clone(), Bytes::new()];
        let touched = self.on_session(&self.scripts.touch, id, &args).await?;
        let session = self.decode(id, touched).await?;
        if let Some(session) = &session {
            self.add_to_user(&session.user_id, id).await?;
        }
        Ok(session)
    }

    async fn read(&self, id: SessionId) -> Result<Option<Session>, RedisError> {
        let read = self.on_session(&self.scripts.get, id, &[]).await?;
        self.decode(id, read).await
    }

    async fn read_all(&self, user: &UserId) -> Result<Vec<Session>, RedisError> {
        let listed = self.on_user(&self.scripts.user_list, user, &[]).await?;
        let mut sessions = Vec::new();
        for members in listed.list()?.chunks(BATCH) {
            sessions.extend(self.read_members(user, members).await?);
        }
        sessions.sort_by_key(|session| Reverse((session.last_active_at, session.id)));
        Ok(sessions)
    }

    /// Reads some of a user's sessions and prunes those that are dead or
    /// another user's.
    async fn read_members(
        &self,
        user: &UserId,
        members: &[Reply],
    ) -> Result<Vec<Session>, RedisError> {
        let found =
            try_join_all(members.iter().map(
                async |member| match member.text().map(SessionId::parse) {
                    Ok(Ok(id)) => self.read(id).await,
                    _ => Ok(None),
                },
            ));
        let (mut sessions, mut dead) = (Vec::new(), Vec::new());
        for (member, session) in members.iter().zip(found.await?) {
            match (member, session) {
                (_, Some(session)) if session.user_id == *user => sessions.push(session),
                (Reply::Bytes(id), _) => dead.push(id.clone()),
                _ => {}
            }
        }
        if !dead.is_empty() {
            self.on_user(&self.scripts.user_remove, user, &dead).await?;
        }
        Ok(sessions)
    }
}

#[async_trait]
impl Sessions for RedisSessions {
    async fn start(&self, new: &NewSession) -> Result<Option<Session>, SessionsUnavailable> {
        let args = [
            self.ttl.clone(),
            text(new.user_id.as_str()),
            text(new.dept_id.as_ref().map_or("", DeptId::as_str)),
            optional(new.conversation_id),
        ];
        let (started, added) = tokio::join!(
            self.on_session(&self.scripts.start, new.id, &args),
            self.add_to_user(&new.user_id, new.id)
        );
        added?;
        Ok(self.decode(new.id, started?).await?)
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(self.read(id).await?)
    }

    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(match user {
            Some(user) => self.touch_known(id, user).await?,
            None => self.touch_unknown(id).await?,
        })
    }

    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable> {
        let ended = self.on_session(&self.scripts.end, id, &[]).await?;
        let Ok(user) = ended.text() else {
            return Ok(false);
        };
        if let Ok(user) = UserId::parse(user) {
            let args = [Bytes::from(id.to_string())];
            // The session has ended. Should its id stay listed, it is pruned.
            let _ = self.on_user(&self.scripts.user_remove, &user, &args).await;
        }
        Ok(true)
    }

    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable> {
        Ok(self.read_all(user).await?)
    }
}

impl From<RedisError> for SessionsUnavailable {
    fn from(error: RedisError) -> Self {
        Self(Box::new(error))
    }
}

/// Reads the list that the scripts on a session answer. None when it makes no sense.
fn session(id: SessionId, reply: Reply) -> Option<Session> {
    let parts = reply.list().ok()?;
    let [user, dept, conversation, created, active, expires] = parts.as_slice() else {
        return None;
    };
    let time = |part: &Reply| DateTime::from_timestamp_micros(part.integer().ok()?);
    let dept = dept.text().ok()?;
    let conversation = conversation.text().ok()?;
    Some(Session {
        id,
        user_id: UserId::parse(user.text().ok()?).ok()?,
        dept_id: match dept {
            "" => None,
            dept => Some(DeptId::parse(dept).ok()?),
        },
        conversation_id: match conversation {
            "" => None,
            id => Some(ConversationId::parse(id).ok()?),
        },
        created_at: time(created)?,
        last_active_at: time(active)?,
        expires_at: time(expires)?,
    })
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn optional(conversation: Option<ConversationId>) -> Bytes {
    conversation.map_or_else(Bytes::new, |id| Bytes::from(id.to_string()))
}
