use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    domain::{ConversationId, UserId},
    recent::Claim,
};

/// Number of remembered owners, a power of two.
const CAPACITY: usize = 8192;

/// Owners of conversations that this process has seen as such.
///
/// A window is read without a script only for such an owner: the time that the reply takes depends
/// on the size of the window, and the read resets its TTL, so that another user's call must not read it.
/// If an owner was forgotten, the script checks the claim before it reads the window.
#[derive(Debug)]
pub(super) struct KnownOwners {
    random: RandomState,
    /// Hashes of the conversations with their owners. A later one with the same index replaces an
    /// earlier one.
    hashes: Box<[AtomicU64]>,
}

impl Default for KnownOwners {
    fn default() -> Self {
        Self {
            random: RandomState::new(),
            hashes: (0..CAPACITY).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl KnownOwners {
    /// Whether a claim is that of a known owner, or claims nothing.
    pub(super) fn admits(&self, conversation: ConversationId, claim: Claim<'_>) -> bool {
        match claim {
            Claim::Unclaimed => true,
            Claim::Unconfirmed(user) | Claim::Confirmed(user) => {
                let (hash, known) = self.find(conversation, user);
                known.load(Ordering::Relaxed) == hash
            }
        }
    }

    pub(super) fn add(&self, conversation: ConversationId, owner: &UserId) {
        let (hash, known) = self.find(conversation, owner);
        if known.load(Ordering::Relaxed) != hash {
            known.store(hash, Ordering::Relaxed);
        }
    }

    pub(super) fn remove(&self, conversation: ConversationId, user: &UserId) {
        let (hash, known) = self.find(conversation, user);
        let _ = known.compare_exchange(hash, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn find(&self, conversation: ConversationId, user: &UserId) -> (u64, &AtomicU64) {
        let id = conversation.as_uuid().as_u128();
        let hash = self.random.hash_one((id, user.as_str()));
        // The hash is never 0, which no owner has.
        let hash = hash.max(1);
        let index = (hash >> 32) as usize % CAPACITY;
        (hash, &self.hashes[index])
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_the_owner_that_was_added_is_admitted() {
        let owners = KnownOwners::default();
        let conversation = |number| ConversationId::from_uuid(Uuid::from_u128(number));
        let [ann, bob] = ["ann", "bob"].map(|name| UserId::parse(name).unwrap());
        let (one, claim) = (conversation(1), Claim::Unconfirmed(&ann));
        assert!(owners.admits(one, Claim::Unclaimed));
        assert!(!owners.admits(one, claim));
        owners.add(one, &ann);
        assert!(owners.admits(one, claim));
        assert!(!owners.admits(one, Claim::Unconfirmed(&bob)));
        assert!(!owners.admits(conversation(2), claim));
        owners.remove(one, &bob);
        assert!(owners.admits(one, claim));
        owners.remove(one, &ann);
        assert!(!owners.admits(one, claim));
    }
}
