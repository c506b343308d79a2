//! What a history proves about each conversation: which saves have which numbers, what was removed,
//! and from which moment on a read must show it.

use std::collections::{BTreeMap, HashMap};

use crate::{
    history::{
        Action, ConversationIndex, History, Moment, Outcome, Row, Shown, Token, WriteNumber,
    },
    report::{Report, ViolationKind::*},
    writes::{Attempts, Removal, Save},
};

/// Branch from another conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) parent: ConversationIndex,
    pub(crate) at: i64,
    invoked: Moment,
    completed: Moment,
}

/// What the recorded calls say about the messages of one conversation.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) origin: Option<Origin>,
    /// Saved turns by their first number.
    pub(crate) saves: BTreeMap<i64, WriteNumber>,
    pub(crate) tokens: BTreeMap<i64, Token>,
    pub(crate) removals: Vec<Removal>,
    pub(crate) deletions: Attempts,
    /// Moments at which the conversation had provably reached a number; both ascend.
    reached: Vec<(Moment, i64)>,
}

impl Timeline {
    /// The number that the conversation had provably reached before a moment.
    pub(crate) fn reached_before(&self, moment: Moment) -> i64 {
        let end = self.reached.partition_point(|(at, _)| *at < moment);
        end.checked_sub(1).map_or(0, |last| self.reached[last].1)
    }

    /// The moment from which on the conversation had provably reached a number.
    pub(crate) fn reached_at(&self, seq: i64) -> Option<Moment> {
        let first = self.reached.partition_point(|(_, reached)| *reached < seq);
        self.reached.get(first).map(|(at, _)| *at)
    }

    /// The turn whose numbers include `seq`.
    pub(crate) fn save_at(&self, seq: i64) -> Option<WriteNumber> {
        let token = self.tokens.get(&seq)?;
        Some(token.save)
    }
}

/// Everything that a history proves.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) saves: HashMap<WriteNumber, Save>,
    pub(crate) timelines: Vec<Timeline>,
}

impl Model {
    /// Collects the facts of a history, and reports those that contradict each other.
    pub(crate) fn new(history: &History, report: &mut Report) -> Self {
        let mut model = Self {
            saves: HashMap::new(),
            timelines: Vec::new(),
        };
        let timelines = || Timeline::default();
        model
            .timelines
            .resize_with(history.conversations.len(), timelines);
        model.add_writes(history);
        model.add_truncations(history);
        model.inherit_truncations();
        model.add_rows(history, report);
        model.number_saves(report);
        model.add_evidence(history);
        model
    }

    fn add_writes(&mut self, history: &History) {
        for call in &history.calls {
            match &call.action {
                Action::Save {
                    save,
                    count,
                    outcome,
                } => {
                    let save = self.saves.entry(*save).or_insert_with(|| Save {
                        conversation: call.conversation,
                        count: *count,
                        attempts: Attempts::default(),
                        first_seq: None,
                    });
                    save.attempts.add(call, outcome);
                }
                Action::Delete { outcome } => {
                    let deletions = &mut self.timelines[call.conversation].deletions;
                    deletions.add(call, outcome);
                }
                Action::Branch {
                    at,
                    outcome: Outcome::Acknowledged(branch),
                } => {
                    self.timelines[*branch].origin = Some(Origin {
                        parent: call.conversation,
                        at: *at,
                        invoked: call.invoked,
                        completed: call.completed,
                    });
                }
                _ => (),
            }
        }
    }

    fn add_truncations(&mut self, history: &History) {
        let mut removals: BTreeMap<WriteNumber, (ConversationIndex, Removal)> = BTreeMap::new();
        for call in &history.calls {
            let Action::Truncate {
                removal,
                after,
                outcome,
            } = &call.action
            else {
                continue;
            };
            let (_, removal) = removals.entry(*removal).or_insert_with(|| {
                let removal = Removal {
                    after: *after,
                    upto: None,
                    cap: i64::MAX,
                    attempts: Attempts::default(),
                    is_inherited: false,
                    precedes_branch: false,
                };
                (call.conversation, removal)
            });
            removal.attempts.add(call, outcome);
            if let Outcome::Acknowledged(last_seq) = outcome {
                removal.upto = Some(*last_seq);
            }
        }
        let last_state = &history.final_state;
        for (number, last_seq) in &last_state.removals {
            if let Some((_, removal)) = removals.get_mut(number) {
                removal.upto = Some(*last_seq);
            }
        }
        for (conversation, removal) in removals.into_values() {
            // The store has a record of each truncation of a conversation that still exists.
            let mut stored = last_state.conversations.iter();
            let is_recorded = stored.any(|stored| stored.conversation == conversation);
            let is_absent = is_recorded && removal.upto.is_none();
            if removal.attempts.started().is_some() && !is_absent {
                self.timelines[conversation].removals.push(removal);
            }
        }
    }

    /// Adds the truncations of parents to their branches, which have higher indexes.
    fn inherit_truncations(&mut self) {
        for branch in 0..self.timelines.len() {
            let Some(origin) = self.timelines[branch].origin else {
                continue;
            };
            let parent = &self.timelines[origin.parent].removals;
            let inherited: Vec<Removal> = parent
                .iter()
                .filter(|removal| removal.can_precede(origin.completed))
                .map(|removal| Removal {
                    upto: removal.upto.map(|upto| upto.min(origin.at)),
                    cap: removal.cap.min(origin.at),
                    is_inherited: true,
                    precedes_branch: removal.precedes_branch
                        || !removal.is_inherited && removal.attempts.precede(origin.invoked),
                    ..removal.clone()
                })
                .collect();
            self.timelines[branch].removals.extend(inherited);
        }
    }

    fn add_rows(&mut self, history: &History, report: &mut Report) {
        let mut seqs: HashMap<(ConversationIndex, Token), i64> = HashMap::new();
        for call in &history.calls {
            let (Action::Save {
                outcome: Outcome::Acknowledged(rows),
                ..
            }
            | Action::Read {
                shown: Shown::Messages { rows, .. },
                ..
            }) = &call.action
            else {
                continue;
            };
            for row in rows {
                self.add_row(call.conversation, *row, &mut seqs, report);
            }
        }
        for stored in &history.final_state.conversations {
            for row in &stored.rows {
                self.add_row(stored.conversation, *row, &mut seqs, report);
            }
        }
    }

    /// Conversation that a message was saved to: a branch shares those of its ancestors.
    fn owner(&self, conversation: ConversationIndex, seq: i64) -> ConversationIndex {
        match self.timelines[conversation].origin {
            Some(origin) if seq <= origin.at => self.owner(origin.parent, seq),
            _ => conversation,
        }
    }

    fn add_row(
        &mut self,
        conversation: ConversationIndex,
        row: Row,
        seqs: &mut HashMap<(ConversationIndex, Token), i64>,
        report: &mut Report,
    ) {
        let owner = self.owner(conversation, row.seq);
        let save = row.token.and_then(|token| self.saves.get(&token.save));
        let (Some(token), Some(save)) = (row.token, save) else {
            report.add(Leaked, conversation, format!("an unknown text: {row:?}"));
            return;
        };
        if save.conversation != owner || token.index >= save.count {
            let detail = format!("a message of another conversation: {row:?}");
            report.add(Leaked, conversation, detail);
            return;
        }
        if save.attempts.started().is_none() {
            let detail = format!("a save that failed is visible: {row:?}");
            report.add(Partial, conversation, detail);
        }
        let seq = *seqs.entry((owner, token)).or_insert(row.seq);
        if seq != row.seq {
            let detail = format!("a message has two numbers: {seq} and {row:?}");
            report.add(Duplicated, conversation, detail);
            return;
        }
        let tokens = &mut self.timelines[owner].tokens;
        let known = *tokens.entry(row.seq).or_insert(token);
        if known != token {
            let detail = format!("two messages have one number: {known:?} and {row:?}");
            report.add(Reordered, conversation, detail);
        }
    }

    /// Derives the numbers of turns from those of their messages.
    fn number_saves(&mut self, report: &mut Report) {
        for (conversation, timeline) in self.timelines.iter_mut().enumerate() {
            for (seq, token) in &timeline.tokens {
                let Some(save) = self.saves.get_mut(&token.save) else {
                    continue;
                };
                let first = seq - i64::from(token.index);
                if *save.first_seq.get_or_insert(first) != first {
                    let detail = format!("the messages of a turn are separated: {seq} {token:?}");
                    report.add(Reordered, conversation, detail);
                }
                timeline.saves.insert(first, token.save);
            }
            // Every number of a saved turn is taken, also those that no call has shown.
            for number in timeline.saves.values() {
                let save = &self.saves[number];
                for index in 0..save.count {
                    let seq = save.first_seq.unwrap_or_default() + i64::from(index);
                    let token = Token {
                        save: *number,
                        index,
                    };
                    let known = *timeline.tokens.entry(seq).or_insert(token);
                    if known != token {
                        let detail = format!("{seq} belongs to {known:?} and {token:?}");
                        report.add(Reordered, conversation, detail);
                    }
                }
            }
        }
    }

    /// Collects the moments at which conversations had provably reached a number.
    fn add_evidence(&mut self, history: &History) {
        for call in &history.calls {
            let timeline = &mut self.timelines[call.conversation];
            let seq = match &call.action {
                Action::Save {
                    save,
                    outcome: Outcome::Acknowledged(_),
                    ..
                } => self.saves[save].last_seq(),
                Action::Truncate {
                    outcome: Outcome::Acknowledged(last_seq),
                    ..
                } => Some(*last_seq),
                Action::Read { shown, .. } => match shown {
                    Shown::Messages { last_seq, rows, .. } => {
                        last_seq.or_else(|| rows.last().map(|row| row.seq))
                    }
                    Shown::EndsAt(seq) => Some(*seq),
                    Shown::NotFound | Shown::Failed => None,
                },
                _ => None,
            };
            if let Some(seq) = seq {
                timeline.reached.push((call.completed, seq));
            }
        }
        for timeline in &mut self.timelines {
            timeline.reached.sort_unstable();
            let mut highest = 0;
            timeline.reached.retain(|(_, seq)| {
                let is_higher = *seq > highest;
                highest = highest.max(*seq);
                is_higher
            });
        }
    }
}
