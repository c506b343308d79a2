//! What the tests of saves that the stores write together have in common.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use conversation_memory::{
    domain::{Content, ConversationRef},
    store::{Append, Appended, Bound, Invalidation, ReusedKey, Store, StoreError},
};
use futures_util::future::join_all;
use test_support::store_fixture::{
    append_of, at, message, new_conversation, owned_ref, retry_of, turn, user, with_chosen_id,
    with_request_id,
};

pub(crate) type Outcome = Result<Appended, StoreError>;

/// Creates conversations of one user.
pub(crate) async fn conversations(store: &dyn Store, number: usize) -> Vec<ConversationRef> {
    let user = user();
    let mut conversations = Vec::new();
    for _ in 0..number {
        let new = new_conversation(&user);
        store.create(&new, at(0)).await.unwrap();
        conversations.push(owned_ref(&new));
    }
    conversations
}

/// Calls `append` for all saves before the store can complete one of them, which `release` permits.
pub(crate) async fn append_all(
    store: &dyn Store,
    saves: impl Iterator<Item = &Append>,
    release: impl Future,
) -> Vec<Outcome> {
    let mut calls = pin!(join_all(saves.map(|save| store.append(save))));
    // The first poll of each call adds its save to those in progress, or to the queue.
    poll_fn(|context| {
        assert!(calls.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    release.await;
    calls.await
}

/// Returns the texts of a conversation, whose numbers must have no gap.
pub(crate) async fn texts(store: &dyn Store, conversation: &ConversationRef) -> Vec<String> {
    let page = store.messages(conversation, Bound::After(0), 1_000, false);
    let messages = page.await.unwrap();
    let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
    let dense: Vec<i64> = (1..).take(seqs.len()).collect();
    assert_eq!(seqs, dense);
    let texts = messages.into_iter().map(|one| one.content.into_string());
    texts.collect()
}

pub(crate) fn is_saved_at(outcome: &Outcome, seq: i64) -> bool {
    matches!(outcome, Ok(Appended::Saved { first_seq, .. }) if *first_seq == seq)
}

/// Reason why a save of a batch is not saved with the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Exception {
    Foreign,
    Missing,
    Deleted,
    WrongLastSeq,
    KnownRequest,
    ReusedRequest,
    ReusedMessageId,
    RepeatedMessageId,
    /// A text that PostgreSQL rejects.
    InvalidText,
    /// The text "refused", which a trigger of the test rejects.
    RefusedText,
}

impl Exception {
    /// Exceptions that are tested with every store.
    pub(crate) const COMMON: [Self; 7] = [
        Self::Foreign,
        Self::Missing,
        Self::Deleted,
        Self::WrongLastSeq,
        Self::KnownRequest,
        Self::ReusedRequest,
        Self::ReusedMessageId,
    ];

    /// Saves one message to the conversation, whose id the caller chooses if `chooses_id`, and returns
    /// a further save that has this reason.
    pub(crate) async fn prepare(
        self,
        store: &dyn Store,
        conversation: &ConversationRef,
        chooses_id: bool,
    ) -> Append {
        let first = if chooses_id || self == Self::ReusedMessageId {
            append_of(conversation, vec![with_chosen_id("one")])
        } else {
            turn(conversation, &["one"])
        };
        let earlier = with_request_id(first, "key");
        store.append(&earlier).await.unwrap();
        let mut save = with_request_id(turn(conversation, &["two"]), "other key");
        match self {
            Self::Foreign => save.conversation.user_id = Some(user()),
            Self::Missing => save.conversation = owned_ref(&new_conversation(&user())),
            Self::Deleted => {
                let deleted = store.delete(conversation, Invalidation::Never).await;
                deleted.unwrap();
            }
            Self::WrongLastSeq => save.expected_last_seq = Some(0),
            Self::KnownRequest => save = retry_of(&earlier),
            Self::ReusedRequest => save = with_request_id(turn(conversation, &["two"]), "key"),
            Self::ReusedMessageId => {
                let mut reused = with_chosen_id("two");
                reused.id = earlier.messages[0].id;
                save.messages = vec![message("three"), reused];
            }
            Self::RepeatedMessageId => save.messages = vec![with_chosen_id("two"); 2],
            Self::InvalidText => {
                save.messages[0].content = Content::from_stored("nul \0".to_owned());
            }
            Self::RefusedText => save.messages = vec![message("three"), message("refused")],
        }
        save
    }

    pub(crate) fn check(self, outcome: &Outcome) {
        let is_expected = match self {
            Self::Foreign | Self::Missing | Self::Deleted => {
                matches!(outcome, Err(StoreError::NotFound))
            }
            Self::WrongLastSeq => matches!(outcome, Err(StoreError::Conflict { current_seq: 1 })),
            Self::KnownRequest => matches!(outcome, Ok(Appended::Replayed { last_seq: 1, .. })),
            Self::ReusedRequest => matches!(
                outcome,
                Err(StoreError::AlreadyExists(ReusedKey::RequestId))
            ),
            Self::ReusedMessageId | Self::RepeatedMessageId => matches!(
                outcome,
                Err(StoreError::AlreadyExists(ReusedKey::MessageId))
            ),
            Self::InvalidText | Self::RefusedText => {
                matches!(outcome, Err(StoreError::Internal(_)))
            }
        };
        assert!(is_expected, "{self:?}: {outcome:?}");
    }
}
