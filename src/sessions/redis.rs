//! Sessions in Redis: a hash for each session, and a set of ids for each user.
//!
//! A script accesses one key, so that a cluster needs no hash tags; where two keys
//! change, both scripts are sent concurrently. The set can therefore contain
//! sessions that have ended or belong to another user: they are removed when the
//! set is read, and a live session that is missing is added at its next use.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::try_join_all;

use super::{Sessions, SessionsUnavailable};
use crate::{
    domain::{ConversationId, DeptId, NewSession, Session, SessionId, UserId},
    patience::with_patience,
    redis::{Redis, RedisError, Reply, Script},
};

/// Number of sessions that are read at a time, and of ended sessions that are removed at a
/// time.
const BATCH: usize = 64;
/// Time limit for reading all sessions of a user. Each call on Redis has its own, short limit.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// TTL of a session after its last use, in milliseconds.
    ttl: Bytes,
    scripts: Arc<SessionScripts>,
}

#[derive(Debug)]
struct SessionScripts {
    start: Script,
    get: Script,
    touch: Script,
    end: Script,
    user_add: Script,
    user_list: Script,
    user_remove: Script,
}

impl RedisSessions {
    /// Creates storage for sessions that expire `ttl` after their last use.
    pub fn new(redis: Redis, ttl: Duration) -> Self {
        Self {
            redis,
            ttl: Bytes::from(ttl.as_millis().to_string()),
            scripts: Arc::new(SessionScripts {
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

    async fn run_on_session(
        &self,
        script: &Script,
        id: SessionId,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let key = self.redis.key(format_args!("session:{id}"));
        self.redis.run(script, &key, args).await
    }

    async fn run_on_user(
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

    /// Adds a session to its user's set. If the set is large, a sample is checked,
    /// so that ended sessions do not accumulate in a set that is never listed.
    async fn add_to_user(&self, user: &UserId, id: SessionId) -> Result<(), RedisError> {
        let args = [self.ttl.clone(), Bytes::from(id.to_string())];
        let added = self
            .run_on_user(&self.scripts.user_add, user, &args)
            .await?;
        let sample = added.list()?;
        if !sample.is_empty() {
            let (sessions, user) = (self.clone(), user.clone());
            self.redis.spawn(async move {
                // A failure needs no handling: a later sample is checked instead.
                let _ = sessions.read_members(&user, &sample).await;
            });
        }
        Ok(())
    }

    /// Decodes a session that a script returned. An invalid one is removed.
    async fn decode(&self, id: SessionId, reply: Reply) -> Result<Option<Session>, RedisError> {
        if reply.is_nil() {
            return Ok(None);
        }
        let session = decode_session(id, reply);
        if session.is_none() {
            self.run_on_session(&self.scripts.end, id, &[]).await?;
        }
        Ok(session)
    }

    /// Renews a session and, concurrently, its user's set.
    async fn touch_of_user(
        &self,
        id: SessionId,
        user: &UserId,
    ) -> Result<Option<Session>, RedisError> {
        let args = [self.ttl.clone(), text(user.as_str())];
        let (touched, added) = tokio::join!(
            self.run_on_session(&self.scripts.touch, id, &args),
            self.add_to_user(user, id)
        );
        added?;
        self.decode(id, touched?).await
    }

    /// Renews a session of an unknown user, and then that user's set.
    async fn touch_of_any_user(&self, id: SessionId) -> Result<Option<Session>, RedisError> {
        let args = [self.ttl.clone(), Bytes::new()];
        let touched = self.run_on_session(&self.scripts.touch, id, &args).await?;
        let session = self.decode(id, touched).await?;
        if let Some(session) = &session {
            self.add_to_user(&session.user_id, id).await?;
        }
        Ok(session)
    }

    async fn read(&self, id: SessionId) -> Result<Option<Session>, RedisError> {
        let read = self.run_on_session(&self.scripts.get, id, &[]).await?;
        self.decode(id, read).await
    }

    /// Reads all sessions of a user, a page at a time, so that no script keeps Redis busy.
    async fn read_all(&self, user: &UserId) -> Result<Vec<Session>, RedisError> {
        let mut sessions = HashMap::new();
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let args = [cursor, Bytes::from(BATCH.to_string())];
            let page = self
                .run_on_user(&self.scripts.user_list, user, &args)
                .await?;
            let Ok([Reply::Bytes(next), Reply::List(members)]) =
                <[Reply; 2]>::try_from(page.list()?)
            else {
                return Err(RedisError::UnexpectedReply);
            };
            for members in members.chunks(BATCH) {
                let read = self.read_members(user, members).await?;
                sessions.extend(read.into_iter().map(|session| (session.id, session)));
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        let mut sessions: Vec<Session> = sessions.into_values().collect();
        sessions.sort_by_key(|session| Reverse((session.last_active_at, session.id)));
        Ok(sessions)
    }

    /// Reads some members of a user's set, and removes those that have ended or
    /// belong to another user.
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
        let (mut sessions, mut stale) = (Vec::new(), Vec::new());
        for (member, session) in members.iter().zip(found.await?) {
            match (member, session) {
                (_, Some(session)) if session.user_id == *user => sessions.push(session),
                (Reply::Bytes(id), _) => stale.push(id.clone()),
                _ => {}
            }
        }
        if !stale.is_empty() {
            self.run_on_user(&self.scripts.user_remove, user, &stale)
                .await?;
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
            self.run_on_session(&self.scripts.start, new.id, &args),
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
            Some(user) => self.touch_of_user(id, user).await?,
            None => self.touch_of_any_user(id).await?,
        })
    }

    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable> {
        let ended = self.run_on_session(&self.scripts.end, id, &[]).await?;
        let Ok(user) = ended.text() else {
            return Ok(false);
        };
        if let Ok(user) = UserId::parse(user) {
            let args = [Bytes::from(id.to_string())];
            // If this fails, the id is removed when the set is read.
            let _ = self
                .run_on_user(&self.scripts.user_remove, &user, &args)
                .await;
        }
        Ok(true)
    }

    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable> {
        match with_patience(LIST_TIMEOUT, Box::pin(self.read_all(user))).await {
            Ok(sessions) => Ok(sessions?),
            Err(elapsed) => Err(SessionsUnavailable(Box::new(elapsed))),
        }
    }
}

impl From<RedisError> for SessionsUnavailable {
    fn from(error: RedisError) -> Self {
        Self(Box::new(error))
    }
}

/// Decodes the list that the scripts on a session return. `None` if it is invalid.
pub fn decode_session(id: SessionId, reply: Reply) -> Option<Session> {
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
