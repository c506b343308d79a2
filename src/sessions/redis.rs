//! Sessions in Redis: a hash for each session, and a sorted set of ids for each user.
//!
//! A script accesses one key, so that a cluster needs no hash tags; where two keys
//! change, both scripts are sent concurrently. The set can therefore contain
//! sessions that have ended: they are removed when the set is read, and a live session that is
//! missing is added at its next use.
//!
//! The hash of a session is `session:<id>`. If that has another user's session, it is
//! `session:<id>:<user>`. A look-up that does not find the user's session under the first key uses
//! the second one, whether the first one has another user's session or none.

mod earlier_sets;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::try_join_all;
use uuid::Uuid;

use super::{SessionKey, SessionPage, SessionQuery, Sessions, SessionsUnavailable};
use crate::{
    domain::{ConversationId, DeptId, NewSession, Session, SessionId, UserId},
    patience::with_patience,
    redis::{Redis, RedisError, Reply, Script},
    rejections::Limit,
};

/// Number of sessions that are read or ended at a time.
const BATCH: usize = 32;
/// Number of times that a page is read on, if sessions of it have ended.
const PAGE_READS: usize = 4;
/// Time limit for a page of sessions. Each call on Redis has its own, short limit.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Key before that of every session. The largest integer that a script represents exactly.
const BEFORE_ALL: SessionKey = SessionKey {
    last_use: (1 << 53) - 1,
    id: SessionId::from_uuid(Uuid::max()),
};

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
    /// Upper bound on the live sessions of a user.
    max_per_user: Bytes,
    scripts: Arc<SessionScripts>,
}

#[derive(Debug)]
struct SessionScripts {
    start: Script,
    get: Script,
    touch: Script,
    end: Script,
    user_add: Script,
    user_renew: Script,
    user_page: Script,
    user_import: Script,
    user_remove: Script,
    earlier_read: Script,
    earlier_remove: Script,
}

/// Key of a session.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// Key of the first user's session with an id.
    First,
    /// Key of this user's session, if the first user is another one.
    Further(&'a UserId),
}

impl RedisSessions {
    /// Creates storage for sessions that expire `ttl` after their last use, and of which a user has
    /// at most `max_per_user`.
    pub fn new(redis: Redis, ttl: Duration, max_per_user: u32) -> Self {
        Self {
            redis,
            ttl: Bytes::from(ttl.as_millis().to_string()),
            max_per_user: Bytes::from(max_per_user.to_string()),
            scripts: Arc::new(SessionScripts {
                start: script!("session", "session_start"),
                get: script!("session", "session_get"),
                touch: Script::new("session_touch", include_str!("session_touch.lua")),
                end: script!("session", "session_end"),
                user_add: script!("user", "user_add"),
                user_renew: Script::new("user_renew", include_str!("user_renew.lua")),
                user_page: script!("user", "user_page"),
                user_import: script!("user", "user_import"),
                user_remove: script!("user", "user_remove"),
                earlier_read: Script::new("earlier_read", include_str!("earlier_read.lua")),
                earlier_remove: Script::new("earlier_remove", include_str!("earlier_remove.lua")),
            }),
        }
    }

    /// Runs a script on the session of a user, or of any user.
    async fn run_on_session(
        &self,
        script: &Script,
        (id, place): (SessionId, Place<'_>),
        user: Option<&UserId>,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let key = match place {
            Place::First => self.redis.key(format_args!("session:{id}")),
            Place::Further(user) => self
                .redis
                .key(format_args!("session:{id}:{}", user.as_str())),
        };
        let claimed = text(user.map_or("", UserId::as_str));
        let args = [&[claimed], args].concat();
        self.redis.run(script, &key, &args).await
    }

    async fn run_on_user(
        &self,
        script: &Script,
        user: &UserId,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let key = self.redis.key(format_args!("user:{}:live", user.as_str()));
        let args = [std::slice::from_ref(&self.ttl), args].concat();
        self.redis.run(script, &key, &args).await
    }

    /// Runs a script that reads or renews a session, under the second key if the first one does not
    /// have it.
    async fn find(
        &self,
        script: &Script,
        id: SessionId,
        user: Option<&UserId>,
        args: &[Bytes],
    ) -> Result<Option<Session>, RedisError> {
        let first = (id, Place::First);
        let reply = self.run_on_session(script, first, user, args).await?;
        let found = self.decode(first, reply).await?;
        match user {
            Some(owner) if found.is_none() => {
                let further = (id, Place::Further(owner));
                let reply = self.run_on_session(script, further, user, args).await?;
                self.decode(further, reply).await
            }
            _ => Ok(found),
        }
    }

    /// Decodes a session that a script returned. An invalid one is removed.
    async fn decode(
        &self,
        (id, place): (SessionId, Place<'_>),
        reply: Reply,
    ) -> Result<Option<Session>, RedisError> {
        if reply.is_nil() {
            return Ok(None);
        }
        let session = decode_session(id, reply);
        if session.is_none() {
            let end = &self.scripts.end;
            self.run_on_session(end, (id, place), None, &[]).await?;
        }
        Ok(session)
    }

    async fn read(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, RedisError> {
        self.find(&self.scripts.get, id, user, &[]).await
    }

    /// Adds a session to its user's set, and ends the sessions beyond the maximum.
    async fn add_to_user(&self, user: &UserId, id: SessionId) -> Result<(), RedisError> {
        let args = [Bytes::from(id.to_string()), self.max_per_user.clone()];
        let excess = self
            .run_on_user(&self.scripts.user_add, user, &args)
            .await?;
        self.end_excess(user, &excess.list()?).await
    }

    /// Records a use of a session in its user's set. Returns whether the set has the session.
    async fn renew_of_user(&self, user: &UserId, id: SessionId) -> Result<bool, RedisError> {
        let args = [Bytes::from(id.to_string())];
        let renewed = self
            .run_on_user(&self.scripts.user_renew, user, &args)
            .await?;
        Ok(renewed.integer()? == 1)
    }

    /// Ends sessions of a user beyond the maximum, and removes them from the user's set.
    async fn end_excess(&self, user: &UserId, members: &[Reply]) -> Result<(), RedisError> {
        for members in members.chunks(BATCH) {
            let ids = members.iter().filter_map(parse_id);
            let ended = try_join_all(ids.map(|id| self.end_of_user(id, user))).await?;
            let ended = ended.into_iter().filter(|was_live| *was_live).count();
            Limit::SessionsPerUser.record_rejections(ended as u64);
            self.remove_from_user(user, members).await?;
        }
        Ok(())
    }

    /// Ends a session of a user under both keys.
    async fn end_of_user(&self, id: SessionId, user: &UserId) -> Result<bool, RedisError> {
        let end = async |place| {
            let ended = self.run_on_session(&self.scripts.end, (id, place), Some(user), &[]);
            Ok::<_, RedisError>(!ended.await?.is_nil())
        };
        let (first, further) = tokio::join!(end(Place::First), end(Place::Further(user)));
        Ok(first? | further?)
    }

    async fn remove_from_user(&self, user: &UserId, members: &[Reply]) -> Result<(), RedisError> {
        let members: Vec<Bytes> = members.iter().filter_map(bytes).collect();
        if !members.is_empty() {
            self.run_on_user(&self.scripts.user_remove, user, &members)
                .await?;
        }
        Ok(())
    }

    /// Starts a session under the first key, or, if that has another user's session, under the
    /// second one. The number of calls is the same.
    async fn start_of_user(&self, new: &NewSession) -> Result<Option<Session>, RedisError> {
        let user = &new.user_id;
        let args = [
            self.ttl.clone(),
            text(new.dept_id.as_ref().map_or("", DeptId::as_str)),
            optional(new.conversation_id),
        ];
        let (start, end) = (&self.scripts.start, &self.scripts.end);
        let (first, further) = ((new.id, Place::First), (new.id, Place::Further(user)));
        let started = self.run_on_session(start, first, Some(user), &args).await?;
        if started.is_nil() {
            let started = self.run_on_session(start, further, Some(user), &args);
            return self.decode(further, started.await?).await;
        }
        self.run_on_session(end, further, Some(user), &[]).await?;
        self.decode(first, started).await
    }

    /// Reads a page, a few sessions at a time, so that no script keeps Redis busy.
    async fn read_page(&self, query: &SessionQuery) -> Result<SessionPage, RedisError> {
        let user = &query.user_id;
        let mut after = query.after.unwrap_or(BEFORE_ALL);
        let mut sessions = Vec::new();
        if after == BEFORE_ALL && !self.import_earlier(user).await? {
            return Ok(SessionPage {
                sessions,
                next: Some(after),
            });
        }
        let limit = query.limit as usize;
        for _ in 0..PAGE_READS {
            let wanted = limit - sessions.len();
            let args = [
                decimal(&after.last_use),
                Bytes::from(after.id.to_string()),
                decimal(&(wanted + 1)),
            ];
            let page = self
                .run_on_user(&self.scripts.user_page, user, &args)
                .await?;
            let page = page.list()?;
            let has_more = page.len() > 2 * wanted;
            let mut members = Vec::with_capacity(wanted);
            for pair in page.chunks_exact(2).take(wanted) {
                if let (Some(id), Ok(last_use)) = (parse_id(&pair[0]), pair[1].integer()) {
                    after = SessionKey { last_use, id };
                }
                members.push(pair[0].clone());
            }
            for members in members.chunks(BATCH) {
                sessions.extend(self.read_members(user, members).await?);
            }
            if !has_more {
                return Ok(SessionPage {
                    sessions,
                    next: None,
                });
            }
            if sessions.len() == limit {
                break;
            }
        }
        Ok(SessionPage {
            sessions,
            next: Some(after),
        })
    }

    /// Reads some members of a user's set, and removes those that have ended.
    async fn read_members(
        &self,
        user: &UserId,
        members: &[Reply],
    ) -> Result<Vec<Session>, RedisError> {
        let found = members.iter().map(async |member| match parse_id(member) {
            Some(id) => self.read(id, Some(user)).await,
            None => Ok(None),
        });
        let found = try_join_all(found).await?;
        let ended = members.iter().zip(&found);
        let ended = ended.filter(|(_, session)| session.is_none());
        let ended: Vec<_> = ended.map(|(member, _)| member.clone()).collect();
        self.remove_from_user(user, &ended).await?;
        Ok(found.into_iter().flatten().collect())
    }
}

#[async_trait]
impl Sessions for RedisSessions {
    async fn start(&self, new: &NewSession) -> Result<Session, SessionsUnavailable> {
        let (started, added) = tokio::join!(
            self.start_of_user(new),
            self.add_to_user(&new.user_id, new.id)
        );
        added?;
        Ok(started?.ok_or(RedisError::UnexpectedReply)?)
    }

    async fn get(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(self.read(id, user).await?)
    }

    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        let args = [self.ttl.clone()];
        let touch = self.find(&self.scripts.touch, id, user, &args);
        let (session, is_listed) = if let Some(user) = user {
            let (touched, renewed) = tokio::join!(touch, self.renew_of_user(user, id));
            (touched?, renewed?)
        } else {
            let session = touch.await?;
            let is_listed = match &session {
                Some(session) => self.renew_of_user(&session.user_id, id).await?,
                None => true,
            };
            (session, is_listed)
        };
        if let Some(session) = &session
            && !is_listed
        {
            self.add_to_user(&session.user_id, id).await?;
        }
        Ok(session)
    }

    async fn end(&self, id: SessionId, user: Option<&UserId>) -> Result<bool, SessionsUnavailable> {
        if let Some(user) = user {
            let member = [Reply::Bytes(Bytes::from(id.to_string()))];
            let (ended, removed) = tokio::join!(
                self.end_of_user(id, user),
                self.remove_from_user(user, &member)
            );
            removed?;
            return Ok(ended?);
        }
        let end = &self.scripts.end;
        let ended = self.run_on_session(end, (id, Place::First), None, &[]);
        let ended = ended.await?;
        let Ok(user) = ended.text() else {
            return Ok(false);
        };
        if let Ok(user) = UserId::parse(user) {
            let member = [Reply::Bytes(Bytes::from(id.to_string()))];
            // If this fails, the id is removed when the set is read.
            let _ = self.remove_from_user(&user, &member).await;
        }
        Ok(true)
    }

    async fn list(&self, query: &SessionQuery) -> Result<SessionPage, SessionsUnavailable> {
        match with_patience(LIST_TIMEOUT, Box::pin(self.read_page(query))).await {
            Ok(page) => Ok(page?),
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

fn decimal(number: &impl ToString) -> Bytes {
    Bytes::from(number.to_string())
}

fn bytes(reply: &Reply) -> Option<Bytes> {
    match reply {
        Reply::Bytes(bytes) => Some(bytes.clone()),
        _ => None,
    }
}

fn parse_id(member: &Reply) -> Option<SessionId> {
    SessionId::parse(member.text().ok()?).ok()
}
