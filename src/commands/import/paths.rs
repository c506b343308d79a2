//! The conversations that an imported one consists of, and how they continue those that an earlier
//! import has stored.

use import_formats::{Branch, ImportedConversation};

use super::stored::StoredMessage;
use crate::domain::{Conversation, ConversationId, Message};

/// A conversation of an import: the main one, a branch, or one that shares no message.
pub(super) struct Path {
    pub(super) id: ConversationId,
    /// Conversation that it shares its first messages with; `None` if it shares none.
    pub(super) parent: Option<ConversationId>,
    /// Number of the last message that it shares.
    pub(super) at_seq: i64,
    /// Messages that this conversation does not share with the one that it was branched from.
    pub(super) messages: Vec<Message>,
    /// What is to be written.
    pub(super) step: Step,
    /// For each of these, the id of a branch that would begin with it.
    branch_ids: Vec<ConversationId>,
}

/// What is to be written of a path.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// The conversation with all messages.
    Create,
    /// The messages from this index on.
    Append {
        from: usize,
        /// Number that the stored conversation ends at; `None` if it was just created.
        last_seq: Option<i64>,
    },
    Nothing,
}

impl Path {
    /// Messages that are to be written.
    pub(super) fn unwritten(&self) -> &[Message] {
        self.messages.get(self.written()..).unwrap_or_default()
    }

    /// The number of the first of these messages in the conversation.
    pub(super) fn first_unwritten(&self) -> usize {
        usize::try_from(self.at_seq).unwrap_or(0) + self.written() + 1
    }

    fn written(&self) -> usize {
        match self.step {
            Step::Create => 0,
            Step::Append { from, .. } => from,
            Step::Nothing => self.messages.len(),
        }
    }
}

/// Conversations of an import, each after the one that it branches from.
pub(super) struct Paths(Vec<Path>);

impl Paths {
    /// Returns the source id, the main conversation, and all conversations.
    pub(super) fn of(imported: ImportedConversation) -> (Option<String>, Conversation, Self) {
        let main = Path {
            id: imported.conversation.id,
            parent: None,
            at_seq: 0,
            messages: imported.messages,
            step: Step::Create,
            branch_ids: imported.branch_ids,
        };
        let branch = |branch: Branch| Path {
            id: branch.id,
            parent: (branch.at_seq > 0).then_some(branch.parent_id),
            at_seq: branch.at_seq,
            messages: branch.messages,
            step: Step::Create,
            branch_ids: branch.branch_ids,
        };
        let branches = imported.branches.into_iter().map(branch);
        let paths = std::iter::once(main).chain(branches).collect();
        (imported.source_id, imported.conversation, Self(paths))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Path> {
        self.0.get(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter()
    }

    pub(super) fn set_step(&mut self, index: usize, step: Step) {
        self.0[index].step = step;
    }

    /// Removes the messages that are no longer needed.
    pub(super) fn release(&mut self, index: usize) {
        self.0[index].messages = Vec::new();
    }

    /// Arranges the conversations so that the one at `index` continues `stored`, the own messages of
    /// the stored conversation with its id. Where the two differ, what the file has becomes a
    /// branch, and a branch of the file that `stored` follows takes its place. Returns the number of
    /// messages that are stored; `None` if the two have no message in common.
    pub(super) fn follow(&mut self, index: usize, stored: &[StoredMessage]) -> Option<usize> {
        loop {
            let path = &self.0[index];
            let (id, first) = (path.id, path.at_seq);
            let pairs = path.messages.iter().zip(stored);
            let is_same = |(message, stored): &(&Message, &StoredMessage)| stored.is(message);
            let common = pairs.take_while(is_same).count();
            if common == path.messages.len() || common == stored.len() {
                return Some(common);
            }
            let at_seq = first + i64::try_from(common).ok()?;
            if common == 0 || stored[common - 1].seq != at_seq {
                return None;
            }
            let followed = self.0.iter().position(|other| {
                let begins = other.messages.first();
                other.parent == Some(id)
                    && other.at_seq == at_seq
                    && begins.is_some_and(|message| stored[common].is(message))
            });
            let path = &mut self.0[index];
            let rest = Path {
                id: path.branch_ids[common],
                parent: Some(id),
                at_seq,
                messages: path.messages.split_off(common),
                step: Step::Create,
                branch_ids: path.branch_ids.split_off(common),
            };
            for other in &mut self.0 {
                if other.parent == Some(id) && other.at_seq > at_seq {
                    other.parent = Some(rest.id);
                }
            }
            let is_followed = followed.is_some();
            if let Some(followed) = followed {
                let mut followed = self.0.remove(followed);
                for other in &mut self.0 {
                    if other.parent == Some(followed.id) {
                        other.parent = Some(id);
                    }
                }
                let path = &mut self.0[index];
                path.messages.append(&mut followed.messages);
                path.branch_ids.append(&mut followed.branch_ids);
            }
            self.0.insert(index + 1, rest);
            if !is_followed {
                return Some(common);
            }
        }
    }
}
