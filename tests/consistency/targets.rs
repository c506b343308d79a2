//! Conversations that the clients of a round use.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use test_support::random::Random;

use crate::history::{ConversationIndex, Recorder};

/// Number of conversations with most of the saves.
const BUSY: usize = 3;

/// Conversation that calls are sent to, with its owner.
pub(crate) struct Target {
    pub(crate) conversation: ConversationIndex,
    pub(crate) id: String,
    pub(crate) user: String,
    acknowledged: AtomicI64,
}

impl Target {
    pub(crate) fn new(recorder: &Recorder, id: String, user: String) -> Self {
        Self {
            conversation: recorder.add_conversation(id.clone()),
            id,
            user,
            acknowledged: AtomicI64::new(0),
        }
    }

    pub(crate) fn acknowledge(&self, seq: i64) {
        self.acknowledged.fetch_max(seq, Ordering::SeqCst);
    }

    /// Highest number that was acknowledged to any client.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

/// Present conversations of a round.
pub(crate) struct Targets(Mutex<Vec<Arc<Target>>>);

impl Targets {
    pub(crate) fn new(targets: Vec<Arc<Target>>) -> Self {
        Self(Mutex::new(targets))
    }

    pub(crate) fn add(&self, target: Target) {
        self.0.lock().unwrap().push(Arc::new(target));
    }

    pub(crate) fn choose(&self, random: &mut Random) -> Arc<Target> {
        let targets = self.0.lock().unwrap();
        Arc::clone(&targets[random.below(targets.len())])
    }

    /// Chooses a conversation to save to. Most saves go to a few conversations; in the others, which
    /// are written to every few seconds, a stale window is not soon replaced.
    pub(crate) fn choose_to_save(&self, random: &mut Random) -> Arc<Target> {
        let targets = self.0.lock().unwrap();
        let busy = if random.one_in(25) {
            targets.len()
        } else {
            BUSY.min(targets.len())
        };
        Arc::clone(&targets[random.below(busy)])
    }

    pub(crate) fn all(&self) -> Vec<Arc<Target>> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn remove(&self, target: &Target) {
        let mut targets = self.0.lock().unwrap();
        targets.retain(|other| other.conversation != target.conversation);
    }
}
