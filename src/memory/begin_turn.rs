use super::{
    Error, Memory, Resource, Source,
    newest::{Newest, Want},
    session_service::live,
};
use crate::domain::{
    Conversation, ConversationId, ConversationRef, DeptId, Message, NewConversation, NewSession,
    Session, SessionId, UserId,
};

/// The beginning of a turn.
#[derive(Clone, Debug)]
pub struct BeginTurn {
    /// Whose turn it is.
    pub user_id: UserId,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// The session that it is in.
    pub session_id: Option<SessionId>,
    /// The conversation that it goes on with.
    pub conversation_id: Option<ConversationId>,
    /// How many of the newest messages; None for the default.
    pub limit: Option<u32>,
}

/// A turn that has begun.
#[derive(Debug)]
pub struct Begun {
    /// The session; None when the session tier is down.
    pub session: Option<Session>,
    /// What was found of the session.
    pub session_state: SessionState,
    /// The conversation's id.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// The conversation's last number.
    pub last_seq: i64,
    /// The whole conversation, where it was read on the way.
    pub conversation: Option<Conversation>,
    /// The newest messages, oldest first.
    pub messages: Vec<Message>,
    /// Where they came from.
    pub source: Source,
}

/// What was found of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// None was given; a new one was started.
    Started,
    /// It was live.
    Continued,
    /// It had expired and was restored.
    Resumed,
    /// The session tier is down.
    Unavailable,
}

/// The session as the turn found it.
#[derive(Debug)]
enum Found {
    /// None was given; this is the id of a new one.
    None(SessionId),
    Live(Session),
    /// Expired, and last on this conversation if the store knows of one.
    Expired(SessionId, Option<Conversation>),
    /// The tier is down; the store still knows where the session was last.
    Down(SessionId, Option<Conversation>),
}

/// The conversation of a turn.
#[derive(Debug)]
struct Opened {
    id: ConversationId,
    newest: Newest,
    /// Whether this turn created it, and noted the session on it.
    created: bool,
}

impl Memory {
    /// Opens a turn: the session, the conversation, its newest messages.
    pub async fn begin_turn(&self, turn: BeginTurn) -> Result<Begun, Error> {
        let found = self.find_session(&turn).await?;
        let opened = self.find_conversation(&turn, &found).await?;
        let (session, session_state) = self.settle_session(&turn, found, &opened).await?;
        let Opened { id, newest, .. } = opened;
        Ok(Begun {
            session,
            session_state,
            conversation_id: id,
            user_id: newest.owner,
            last_seq: newest.last_seq,
            conversation: newest.conversation,
            messages: newest.messages,
            source: newest.source,
        })
    }

    async fn find_session(&self, turn: &BeginTurn) -> Result<Found, Error> {
        let Some(id) = turn.session_id else {
            return Ok(Found::None(SessionId::from_uuid(self.new_id())));
        };
        let touched = self.0.sessions.touch(id, Some(&turn.user_id)).await;
        if let Ok(Some(session)) = touched {
            return Ok(Found::Live(session));
        }
        let is_down = touched.is_err();
        if is_down && turn.conversation_id.is_some() {
            return Ok(Found::Down(id, None));
        }
        let last_on = self
            .0
            .store
            .conversation_of_session(id, &turn.user_id)
            .await
            .map_err(Error::of_list)?;
        match last_on {
            Some(conversation) if conversation.user_id != turn.user_id => unknown(id),
            None if turn.conversation_id.is_none() && !is_down => unknown(id),
            last_on if is_down => Ok(Found::Down(id, last_on)),
            last_on => Ok(Found::Expired(id, last_on)),
        }
    }

    async fn find_conversation(&self, turn: &BeginTurn, found: &Found) -> Result<Opened, Error> {
        let (session_id, of_session) = match found {
            Found::None(id) => (*id, None),
            Found::Live(session) => (session.id, session.conversation_id),
            Found::Expired(id, last_on) | Found::Down(id, last_on) => {
                (*id, last_on.as_ref().map(|last_on| last_on.id))
            }
        };
        if let Some(id) = turn.conversation_id.or(of_session) {
            let conversation = ConversationRef {
                id,
                user_id: Some(turn.user_id.clone()),
            };
            let want = Want {
                limit: turn.limit.unwrap_or(self.0.default_limit),
                min_seq: 0,
                strong: false,
                contexts: false,
            };
            match self.newest(&conversation, want).await {
                Ok(newest) => {
                    return Ok(Opened {
                        id,
                        newest,
                        created: false,
                    });
                }
                // The session outlived its conversation, which was deleted: the
                // user starts afresh.
                Err(Error::NotFound(_)) if turn.conversation_id.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        self.begin_conversation(turn, session_id).await
    }

    async fn begin_conversation(
        &self,
        turn: &BeginTurn,
        session_id: SessionId,
    ) -> Result<Opened, Error> {
        let new = NewConversation {
            id: ConversationId::from_uuid(self.new_id()),
            user_id: turn.user_id.clone(),
            dept_id: turn.dept_id.clone(),
            title: None,
            metadata: None,
            session_id: Some(session_id),
        };
        // Begun twice, the first conversation stays empty and does no harm.
        let conversation = self.create(new, true).await?;
        Ok(Opened {
            id: conversation.id,
            newest: Newest::of_new(conversation),
            created: true,
        })
    }

    /// Starts, moves or restores the session, and notes in the store where it
    /// is now unless the store knows. With a session that was on this
    /// conversation already there is nothing to do.
    async fn settle_session(
        &self,
        turn: &BeginTurn,
        found: Found,
        opened: &Opened,
    ) -> Result<(Option<Session>, SessionState), Error> {
        let (id, dept, state, noted) = match found {
            Found::Down(..) => return Ok((None, SessionState::Unavailable)),
            Found::Live(session) if session.conversation_id == Some(opened.id) => {
                return Ok((Some(session), SessionState::Continued));
            }
            Found::Live(session) => (session.id, session.dept_id, SessionState::Continued, None),
            Found::Expired(id, last_on) => {
                let noted = last_on.as_ref().map(|c| c.id);
                let dept = last_on.and_then(|c| c.dept_id);
                (id, dept, SessionState::Resumed, noted)
            }
            Found::None(id) => (id, None, SessionState::Started, None),
        };
        let new = NewSession {
            id,
            user_id: turn.user_id.clone(),
            dept_id: turn.dept_id.clone().or(dept),
            conversation_id: Some(opened.id),
        };
        let session = match self.0.sessions.start(&new).await {
            Ok(started) => live(id, started)?,
            Err(error) => {
                tracing::debug!(error = %error, "the turn goes on without a session");
                return Ok((None, SessionState::Unavailable));
            }
        };
        // Noted only now: a session that never began, or is another user's,
        // must not take the place of a live one.
        if !opened.created && noted != Some(opened.id) {
            self.note_session(turn, id, opened).await?;
        }
        Ok((Some(session), state))
    }

    async fn note_session(
        &self,
        turn: &BeginTurn,
        session: SessionId,
        opened: &Opened,
    ) -> Result<(), Error> {
        let conversation = ConversationRef {
            id: opened.id,
            user_id: Some(turn.user_id.clone()),
        };
        match self.attach_session(conversation, session).await {
            // The turn goes on; its save notes the session again.
            Err(Error::Unavailable(_) | Error::OutcomeUnknown { .. }) => Ok(()),
            noted => noted,
        }
    }
}

fn unknown<T>(id: SessionId) -> Result<T, Error> {
    Err(Error::NotFound(Resource::Session(id)))
}
