use super::{
    Error, HistoryLimits, Memory, Resource, Source,
    history::History,
    newest::{NewestMessages, NewestQuery},
};
use crate::domain::{
    Conversation, ConversationId, ConversationRef, DeptId, NewConversation, NewSession, Session,
    SessionId, UserId,
};

/// Turn to begin.
#[derive(Clone, Debug)]
pub struct BeginTurn {
    /// User of the turn.
    pub user_id: UserId,
    /// Department of the user.
    pub dept_id: Option<DeptId>,
    /// Session to continue; `None` starts a new one.
    pub session_id: Option<SessionId>,
    /// Conversation to continue; `None` selects the current one of the session, or creates one.
    pub conversation_id: Option<ConversationId>,
    /// Limits on the history.
    pub limits: HistoryLimits,
}

/// Session, conversation and newest messages of a turn that has begun.
#[derive(Debug)]
pub struct BeginTurnOutcome {
    /// Session; `None` if the session tier is unavailable.
    pub session: Option<Session>,
    /// State in which the session was found.
    pub session_state: SessionState,
    /// Id of the conversation.
    pub conversation_id: ConversationId,
    /// Owner of the conversation.
    pub user_id: UserId,
    /// Highest number that the conversation has assigned to a message.
    pub last_seq: i64,
    /// Whole conversation; `None` if the messages came from the recent window, which does
    /// not contain it.
    pub conversation: Option<Conversation>,
    /// Messages that the limits allow.
    pub history: History,
    /// Whether the conversation should be compacted.
    pub compaction_due: bool,
    /// Origin of the messages.
    pub source: Source,
}

/// State in which a turn's session was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No session was given, and one was started.
    Started,
    /// The session was live.
    Continued,
    /// The session had expired and was restored.
    Resumed,
    /// The session tier is unavailable.
    Unavailable,
}

/// Result of looking up the session of a turn.
#[derive(Debug)]
enum SessionLookup {
    /// No session was given; the id is that of a new one.
    New(SessionId),
    /// The session is live.
    Live(Session),
    /// The session has expired.
    Expired {
        id: SessionId,
        /// Conversation that the store last recorded for the session.
        last_conversation: Option<Conversation>,
    },
    /// The session tier is unavailable.
    Unavailable {
        id: SessionId,
        /// Conversation that the store last recorded for the session.
        last_conversation: Option<Conversation>,
    },
}

/// Conversation of a turn.
#[derive(Debug)]
struct TurnConversation {
    id: ConversationId,
    newest: NewestMessages,
    /// Whether this turn created the conversation, and thereby recorded its session.
    is_created: bool,
}

impl Memory {
    /// Begins a turn: finds or starts its session, finds or creates its conversation, and
    /// reads the newest messages.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if the session or the conversation does not exist; with
    /// [`Error::Unavailable`] if the store is needed and cannot be reached. An unavailable session
    /// tier is not an error.
    pub async fn begin_turn(&self, turn: BeginTurn) -> Result<BeginTurnOutcome, Error> {
        // Neither needs the other if the caller names the conversation, so that both take one round
        // trip.
        let (lookup, named) = tokio::join!(
            self.find_session(&turn),
            self.find_named_conversation(&turn)
        );
        let lookup = lookup?;
        let conversation = match named {
            Some(named) => named?,
            None => self.find_current_conversation(&turn, &lookup).await?,
        };
        let (session, session_state) = self
            .start_turn_session(&turn, lookup, &conversation)
            .await?;
        let TurnConversation { id, mut newest, .. } = conversation;
        self.attach_history_blobs(id, &mut newest.history.messages)
            .await;
        Ok(BeginTurnOutcome {
            session,
            session_state,
            conversation_id: id,
            user_id: newest.owner,
            last_seq: newest.last_seq,
            conversation: newest.conversation,
            history: newest.history,
            compaction_due: self.is_compaction_due(newest.uncompacted_tokens),
            source: newest.source,
        })
    }

    async fn find_session(&self, turn: &BeginTurn) -> Result<SessionLookup, Error> {
        let Some(id) = turn.session_id else {
            return Ok(SessionLookup::New(SessionId::from_uuid(self.new_id())));
        };
        let touched = self.0.sessions.touch(id, Some(&turn.user_id)).await;
        if let Ok(Some(session)) = touched {
            return Ok(SessionLookup::Live(session));
        }
        let is_unavailable = touched.is_err();
        if is_unavailable && turn.conversation_id.is_some() {
            return Ok(SessionLookup::Unavailable {
                id,
                last_conversation: None,
            });
        }
        let last_conversation = self
            .0
            .store
            .conversation_of_session(id, &turn.user_id)
            .await
            .map_err(Error::from_query)?;
        match last_conversation {
            None if turn.conversation_id.is_none() && !is_unavailable => session_not_found(id),
            last_conversation if is_unavailable => Ok(SessionLookup::Unavailable {
                id,
                last_conversation,
            }),
            last_conversation => Ok(SessionLookup::Expired {
                id,
                last_conversation,
            }),
        }
    }

    /// Reads the conversation that the caller names. `None` if the caller names none.
    async fn find_named_conversation(
        &self,
        turn: &BeginTurn,
    ) -> Option<Result<TurnConversation, Error>> {
        Some(self.read_conversation(turn, turn.conversation_id?).await)
    }

    /// Reads the current conversation of the session, or creates one.
    async fn find_current_conversation(
        &self,
        turn: &BeginTurn,
        lookup: &SessionLookup,
    ) -> Result<TurnConversation, Error> {
        let (session_id, of_session) = match lookup {
            SessionLookup::New(id) => (*id, None),
            SessionLookup::Live(session) => (session.id, session.conversation_id),
            SessionLookup::Expired {
                id,
                last_conversation,
            }
            | SessionLookup::Unavailable {
                id,
                last_conversation,
            } => (
                *id,
                last_conversation
                    .as_ref()
                    .map(|last_conversation| last_conversation.id),
            ),
        };
        if let Some(id) = of_session {
            match self.read_conversation(turn, id).await {
                // The session outlived its conversation, which was deleted: the turn
                // begins a new one.
                Err(Error::NotFound(_)) => {}
                found => return found,
            }
        }
        self.create_turn_conversation(turn, session_id).await
    }

    async fn read_conversation(
        &self,
        turn: &BeginTurn,
        id: ConversationId,
    ) -> Result<TurnConversation, Error> {
        let conversation = ConversationRef {
            id,
            user_id: Some(turn.user_id.clone()),
        };
        let query = NewestQuery {
            history: self.history_query(turn.limits),
            min_seq: 0,
            strong: false,
            contexts: false,
        };
        Ok(TurnConversation {
            id,
            newest: self.newest(&conversation, query).await?,
            is_created: false,
        })
    }

    async fn create_turn_conversation(
        &self,
        turn: &BeginTurn,
        session_id: SessionId,
    ) -> Result<TurnConversation, Error> {
        let new = NewConversation {
            id: ConversationId::from_uuid(self.new_id()),
            user_id: turn.user_id.clone(),
            dept_id: turn.dept_id.clone(),
            title: None,
            metadata: None,
            session_id: Some(session_id),
            // A turn that is abandoned before its first save leaves no entry in the list.
            is_listed: false,
            reuses_id: false,
        };
        // A retry is safe: a conversation that an earlier attempt created stays empty and has
        // no effect.
        let conversation = self.create(new, true).await?;
        Ok(TurnConversation {
            id: conversation.id,
            newest: NewestMessages::of_new(conversation),
            is_created: true,
        })
    }

    /// Starts or restores the session with this conversation as its current one, and records
    /// that in the store unless the store has recorded it. A live session whose current
    /// conversation is this one needs neither.
    async fn start_turn_session(
        &self,
        turn: &BeginTurn,
        lookup: SessionLookup,
        conversation: &TurnConversation,
    ) -> Result<(Option<Session>, SessionState), Error> {
        let (id, dept, state, recorded) = match lookup {
            SessionLookup::Unavailable { .. } => return Ok((None, SessionState::Unavailable)),
            SessionLookup::Live(session) if session.conversation_id == Some(conversation.id) => {
                return Ok((Some(session), SessionState::Continued));
            }
            SessionLookup::Live(session) => {
                (session.id, session.dept_id, SessionState::Continued, None)
            }
            SessionLookup::Expired {
                id,
                last_conversation,
            } => {
                let recorded = last_conversation
                    .as_ref()
                    .map(|last_conversation| last_conversation.id);
                let dept =
                    last_conversation.and_then(|last_conversation| last_conversation.dept_id);
                (id, dept, SessionState::Resumed, recorded)
            }
            SessionLookup::New(id) => (id, None, SessionState::Started, None),
        };
        let new = NewSession {
            id,
            user_id: turn.user_id.clone(),
            dept_id: turn.dept_id.clone().or(dept),
            conversation_id: Some(conversation.id),
        };
        let session = match self.0.sessions.start(&new).await {
            Ok(session) => session,
            Err(error) => {
                tracing::debug!(error = %error, "the turn continues without a session");
                return Ok((None, SessionState::Unavailable));
            }
        };
        // Recorded only now: a session that did not start must not replace a live one.
        if !conversation.is_created && recorded != Some(conversation.id) {
            self.record_session(turn, id, conversation.id).await?;
        }
        Ok((Some(session), state))
    }

    async fn record_session(
        &self,
        turn: &BeginTurn,
        session: SessionId,
        conversation: ConversationId,
    ) -> Result<(), Error> {
        let conversation = ConversationRef {
            id: conversation,
            user_id: Some(turn.user_id.clone()),
        };
        match self.attach_session(conversation, session).await {
            // The turn continues; its save records the session again.
            Err(Error::Unavailable(_) | Error::StoreFull(_) | Error::OutcomeUnknown { .. }) => {
                Ok(())
            }
            recorded => recorded,
        }
    }
}

fn session_not_found<T>(id: SessionId) -> Result<T, Error> {
    Err(Error::NotFound(Resource::Session(id)))
}
