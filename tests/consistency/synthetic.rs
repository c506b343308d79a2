//! Histories that tests write by hand, one call after the other.

use std::time::Duration;

use crate::history::{
    Action, Call, Consistency, ConversationIndex, Fault, FinalState, History, Moment, Outcome,
    Process, Row, Shown, StoredConversation, Token, WriteNumber,
};

/// History whose calls do not overlap, 10 ms apart.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) history: History,
    tick: u64,
    at: Duration,
}

pub(crate) fn row(seq: i64, save: WriteNumber, index: u32) -> Row {
    let token = Some(Token { save, index });
    Row { seq, token }
}

/// The rows of a saved turn.
pub(crate) fn turn(first_seq: i64, save: WriteNumber, count: u32) -> Vec<Row> {
    let rows = (0..count).map(|index| row(first_seq + i64::from(index), save, index));
    rows.collect()
}

pub(crate) fn acknowledged_save(first_seq: i64, save: WriteNumber, count: u32) -> Action {
    failed_save(
        save,
        count,
        Outcome::Acknowledged(turn(first_seq, save, count)),
    )
}

pub(crate) fn failed_save(save: WriteNumber, count: u32, outcome: Outcome<Vec<Row>>) -> Action {
    Action::Save {
        save,
        count,
        outcome,
    }
}

pub(crate) fn truncation(removal: WriteNumber, after: i64, outcome: Outcome<i64>) -> Action {
    Action::Truncate {
        removal,
        after,
        outcome,
    }
}

pub(crate) fn read(consistency: Consistency, last_seq: i64, rows: Vec<Row>) -> Action {
    Action::Read {
        consistency,
        limit: 6,
        shown: Shown::Messages {
            last_seq: Some(last_seq),
            rows,
            from_window: consistency == Consistency::Cached,
        },
    }
}

impl Script {
    pub(crate) fn new(conversations: usize) -> Self {
        let mut script = Self::default();
        for conversation in 0..conversations {
            script.history.conversations.push(conversation.to_string());
        }
        script
    }

    pub(crate) fn now(&mut self) -> Moment {
        self.tick += 1;
        self.at += Duration::from_millis(5);
        Moment {
            tick: self.tick,
            at: self.at,
        }
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.at += time;
    }

    /// Adds a call on conversation 0.
    pub(crate) fn call(&mut self, sidecar: usize, action: Action) {
        self.call_on(0, sidecar, action);
    }

    pub(crate) fn call_on(
        &mut self,
        conversation: ConversationIndex,
        sidecar: usize,
        action: Action,
    ) {
        let invoked = self.now();
        let call = Call {
            process: Process {
                sidecar,
                generation: 0,
            },
            conversation,
            invoked,
            completed: self.now(),
            action,
        };
        self.history.calls.push(call);
    }

    /// Adds a fault from now on that separates a sidecar from Redis.
    pub(crate) fn cut(&mut self, sidecar: usize, duration: Duration) {
        self.history.faults.push(Fault {
            name: "connection is refused".to_owned(),
            cuts_redis: true,
            cuts_postgres: false,
            sidecar: Some(sidecar),
            from: self.at,
            until: self.at + duration,
        });
    }

    /// Ends the history with the rows of each conversation.
    pub(crate) fn end(mut self, stored: Vec<(i64, Vec<Row>)>) -> History {
        let stored = stored.into_iter().enumerate();
        let conversations = stored.map(|(conversation, (last_seq, rows))| StoredConversation {
            conversation,
            last_seq,
            rows,
        });
        self.history.final_state = FinalState {
            conversations: conversations.collect(),
            removals: std::mem::take(&mut self.history.final_state.removals),
            moment: self.now(),
        };
        self.history
    }
}
