use std::{fmt, sync::Arc};

use super::window_fields::HitConditions;
use crate::{domain::ConversationId, redis::Script};

macro_rules! script {
    ($name:literal after $($prefix:literal)*) => {
        Script::new(
            $name,
            concat!(
                include_str!("../common.lua"),
                $(include_str!(concat!("../", $prefix, ".lua")),)*
                include_str!(concat!("../", $name, ".lua"))
            ),
        )
    };
}

/// Scripts by which processes agree on who completes the pending invalidations.
#[derive(Debug)]
pub(super) struct CompletionScripts {
    pub(super) claim: Script,
    pub(super) record: Script,
}

impl Default for CompletionScripts {
    fn default() -> Self {
        Self {
            claim: Script::new("claim_completion", include_str!("../claim_completion.lua")),
            record: Script::new(
                "record_completion",
                include_str!("../record_completion.lua"),
            ),
        }
    }
}

/// Condition on which a window is read without a script.
#[derive(Clone, Copy, Debug)]
pub enum HitCondition {
    /// No write is announced.
    NoAnnouncement,
    /// The window belongs to the present histories of the servers.
    SameEpoch,
    /// The caller is the owner of the window.
    SameOwner,
}

/// Returns the identity of the server's data for a conversation.
type ServerOf = dyn Fn(ConversationId) -> String + Send + Sync;

/// Scripts of the window, and the conditions on which it is read without one. Every other access runs
/// one of them.
#[derive(Clone)]
pub struct WindowScripts {
    pub(super) conditions: HitConditions,
    /// Replaces the identity of the server, for tests.
    pub(super) server_of: Option<Arc<ServerOf>>,
    pub(super) announce: Script,
    pub(super) publish: Script,
    pub(super) publish_replay: Script,
    pub(super) abort: Script,
    pub(super) newest: Script,
    pub(super) fill: Script,
    pub(super) drop: Script,
}

impl WindowScripts {
    /// Returns the scripts with `edit` applied to every source, so that a test can
    /// remove a guard and verify that it detects the consequence.
    #[must_use]
    pub fn with_edited_sources(&self, mut edit: impl FnMut(&str) -> String) -> Self {
        let mut edited = |script: &Script| Script::new(script.name(), edit(script.source()));
        Self {
            conditions: self.conditions,
            server_of: self.server_of.clone(),
            announce: edited(&self.announce),
            publish: edited(&self.publish),
            publish_replay: edited(&self.publish_replay),
            abort: edited(&self.abort),
            newest: edited(&self.newest),
            fill: edited(&self.fill),
            drop: edited(&self.drop),
        }
    }

    /// Removes a condition of reads without a script, like [`Self::with_edited_sources`].
    #[must_use]
    pub fn without(mut self, condition: HitCondition) -> Self {
        match condition {
            HitCondition::NoAnnouncement => self.conditions.no_announcement = false,
            HitCondition::SameEpoch => self.conditions.same_epoch = false,
            HitCondition::SameOwner => self.conditions.same_owner = false,
        }
        self
    }

    /// Replaces the identity of the server's data where windows are read without a script, so that a
    /// test can change it together with an edited script.
    #[must_use]
    pub fn with_server_of(
        mut self,
        server_of: impl Fn(ConversationId) -> String + Send + Sync + 'static,
    ) -> Self {
        self.server_of = Some(Arc::new(server_of));
        self
    }
}

impl fmt::Debug for WindowScripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowScripts").finish_non_exhaustive()
    }
}

impl Default for WindowScripts {
    fn default() -> Self {
        Self {
            conditions: HitConditions::ALL,
            server_of: None,
            announce: script!("announce" after "owner"),
            publish: script!("publish" after "state"),
            publish_replay: script!("publish_replay" after "state"),
            abort: script!("abort" after "state"),
            newest: script!("newest" after "owner" "state"),
            fill: script!("fill" after "state"),
            drop: script!("drop" after "state"),
        }
    }
}
