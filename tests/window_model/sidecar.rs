//! Sidecars of this version and of the version before.

use std::sync::Arc;

use conversation_memory::{
    domain::{ConversationId, Message},
    recent::{Announcement, Claim, EncodedMessage, FillLease, Lookup, RecentWindow},
};

use crate::previous::{PreviousLookup, PreviousSidecar};
use test_support::window::{LIMIT, encoded_seqs, last_tokens, owner, window};

/// Sidecar that is connected to the windows.
pub(crate) enum Sidecar {
    Present(Arc<dyn RecentWindow>),
    Previous(Box<PreviousSidecar>),
}

/// Announced write.
#[derive(Debug)]
pub(crate) enum Announced {
    Present(Announcement),
    /// Token of the announcement.
    Previous(String),
}

/// Permission to fill the window.
#[derive(Debug)]
pub(crate) enum Lease {
    Present(FillLease),
    /// Id of the lease.
    Previous(String),
}

/// Result of a read.
pub(crate) enum Read {
    Hit {
        last_seq: i64,
        seqs: Vec<i64>,
        /// Messages in the format of this version; empty if the version before has read them.
        encoded: Vec<EncodedMessage>,
    },
    Miss(Option<Lease>),
    Other(String),
}

impl Sidecar {
    pub(crate) fn present(&self) -> Option<&dyn RecentWindow> {
        match self {
            Self::Present(recent) => Some(&**recent),
            Self::Previous(_) => None,
        }
    }

    pub(crate) async fn announce(&self, id: ConversationId) -> Announced {
        let owner = owner();
        match self {
            Self::Present(recent) => {
                let claim = Claim::Unconfirmed(&owner);
                let mut announced = recent.announce(id, claim, LIMIT).await;
                if announced.is_none() {
                    announced = recent.announce(id, claim.confirmed(), LIMIT).await;
                }
                Announced::Present(announced.unwrap())
            }
            Self::Previous(previous) => {
                let mut token = previous.announce(id, &owner, false).await;
                if token.is_none() {
                    token = previous.announce(id, &owner, true).await;
                }
                Announced::Previous(token.unwrap())
            }
        }
    }

    pub(crate) async fn publish(
        &self,
        id: ConversationId,
        announced: Announced,
        saved: &[Message],
    ) {
        match (self, announced) {
            (Self::Previous(previous), Announced::Previous(token)) => {
                previous.publish(id, &token, &owner(), &saved[0]).await;
            }
            (Self::Present(recent), Announced::Present(announcement)) => {
                let tokens = last_tokens(saved);
                recent.publish(announcement, &owner(), saved, tokens).await;
            }
            (sidecar, announced) => {
                sidecar.settle_unannounced(id, announced).await;
            }
        }
    }

    pub(crate) async fn publish_replay(
        &self,
        id: ConversationId,
        announced: Announced,
        last_seq: i64,
    ) {
        match (self, announced) {
            (Self::Previous(previous), Announced::Previous(token)) => {
                previous.publish_replay(id, &token, last_seq).await;
            }
            (Self::Present(recent), Announced::Present(announcement)) => {
                recent.publish_replay(announcement, last_seq).await;
            }
            (sidecar, announced) => {
                sidecar.settle_unannounced(id, announced).await;
            }
        }
    }

    pub(crate) async fn retire(&self, id: ConversationId, announced: Announced) {
        match (self, announced) {
            (Self::Previous(previous), Announced::Previous(token)) => {
                previous.retire(id, &token).await;
            }
            (Self::Present(recent), Announced::Present(announcement)) => {
                recent.retire(announcement).await;
            }
            (sidecar, announced) => {
                sidecar.settle_unannounced(id, announced).await;
            }
        }
    }

    pub(crate) async fn abort(&self, id: ConversationId, announced: Announced) {
        match (self, announced) {
            (Self::Previous(previous), Announced::Previous(token)) => {
                previous.abort(id, &token).await;
            }
            (Self::Present(recent), Announced::Present(announcement)) => {
                recent.abort(announcement).await;
            }
            // Nothing was announced in Redis.
            _ => {}
        }
    }

    /// Drops the window after a write that could not be announced: that of a disconnected sidecar,
    /// which is always of this version.
    async fn settle_unannounced(&self, id: ConversationId, announced: Announced) {
        match (self, announced) {
            (Self::Previous(previous), Announced::Present(_)) => {
                previous.retire(id, "unannounced").await;
            }
            (Self::Present(_) | Self::Previous(_), _) => unreachable!(),
        }
    }

    pub(crate) async fn newest(&self, id: ConversationId) -> Read {
        let owner = owner();
        match self {
            Self::Present(recent) => {
                let claim = Claim::Unconfirmed(&owner);
                let mut lookup = recent.newest(id, claim, 10, 0).await;
                if matches!(lookup, Lookup::OwnerUnknown) {
                    lookup = recent.newest(id, claim.confirmed(), 10, 0).await;
                }
                match lookup {
                    Lookup::Hit(window) => Read::Hit {
                        last_seq: window.last_seq,
                        seqs: encoded_seqs(&window.messages),
                        encoded: window.messages,
                    },
                    Lookup::Miss(lease) => Read::Miss(lease.map(Lease::Present)),
                    other => Read::Other(format!("{other:?}")),
                }
            }
            Self::Previous(previous) => {
                let mut lookup = previous.newest(id, &owner, false).await;
                if matches!(lookup, PreviousLookup::OwnerUnknown) {
                    lookup = previous.newest(id, &owner, true).await;
                }
                match lookup {
                    PreviousLookup::Hit { last_seq, seqs } => Read::Hit {
                        last_seq,
                        seqs,
                        encoded: Vec::new(),
                    },
                    PreviousLookup::Miss(lease) => Read::Miss(lease.map(Lease::Previous)),
                    PreviousLookup::OwnerUnknown => Read::Other("the owner is unknown".to_owned()),
                    PreviousLookup::Other(outcome) => Read::Other(outcome),
                }
            }
        }
    }

    pub(crate) async fn fill(
        &self,
        id: ConversationId,
        lease: Lease,
        (last_seq, messages, is_complete): (i64, &[Message], bool),
    ) {
        match (self, lease) {
            (Self::Present(recent), Lease::Present(lease)) => {
                let window = window(last_seq, messages.to_vec(), is_complete);
                recent.fill(lease, &window).await;
            }
            (Self::Previous(previous), Lease::Previous(lease)) => {
                let content = (last_seq, messages, is_complete);
                previous.fill(id, &lease, &owner(), content).await;
            }
            _ => unreachable!("a lease is used by the sidecar to which it was granted"),
        }
    }
}
