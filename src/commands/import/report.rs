//! What became of each conversation of an import.

use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde_json::{Map, Value};

use super::progress::Progress;
use crate::{
    commands::{Completion, Failure},
    domain::ConversationId,
    os_error,
};

/// Outcome of one conversation.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Position in the file, from 1; 0 for the file itself.
    pub(super) number: u64,
    /// Id in the file, or the name of its entry in a zip file.
    pub(super) source_id: Option<String>,
    /// Name of the entry of a zip file that has the conversation among others.
    pub(super) entry: Option<String>,
    pub(super) result: Result,
}

#[derive(Debug)]
pub(super) enum Result {
    Imported {
        id: ConversationId,
        messages: u64,
        branches: u64,
    },
    /// It was there already, and had fewer messages or branches.
    Continued {
        id: ConversationId,
        messages: u64,
        branches: u64,
        changed: u64,
    },
    /// It was there already.
    Skipped {
        id: ConversationId,
        /// Messages whose content in the file differs from the stored one, which remains.
        changed: u64,
    },
    Rejected {
        reason: String,
    },
}

impl Outcome {
    pub(super) fn rejected(source_id: Option<String>, number: u64, reason: String) -> Self {
        Self {
            number,
            source_id,
            entry: None,
            result: Result::Rejected { reason },
        }
    }
}

/// Numbers of conversations and messages.
#[derive(Debug, Default)]
pub(super) struct Counts {
    imported: u64,
    continued: u64,
    messages: u64,
    branches: u64,
    skipped: u64,
    rejected: u64,
    /// Those of the continued and skipped ones with messages that differ from the stored ones.
    changed: u64,
}

impl Counts {
    pub(super) fn conversations(&self) -> u64 {
        self.imported + self.continued + self.skipped + self.rejected
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            imported,
            continued,
            messages,
            branches,
            skipped,
            rejected,
            changed,
        } = self;
        write!(
            f,
            "{imported} imported, {continued} continued ({messages} messages, {branches} branches), \
             {skipped} skipped because they are there already, {rejected} rejected"
        )?;
        match changed {
            0 => Ok(()),
            _ => write!(f, ", {changed} with messages that were changed in the file"),
        }
    }
}

/// Report of an import: the rejected conversations and the numbers as lines, and a file with every
/// outcome if it was requested.
#[derive(Debug)]
pub(super) struct Report {
    counts: Counts,
    file: Option<BufWriter<File>>,
}

impl Report {
    pub(super) fn create(path: Option<&Path>) -> std::result::Result<Self, Failure> {
        let file = path.map(|path| {
            File::create(path).map(BufWriter::new).map_err(|error| {
                let cause = os_error::describe(&error);
                format!("cannot write the report {}: {cause}", path.display())
            })
        });
        Ok(Self {
            counts: Counts::default(),
            file: file.transpose()?,
        })
    }

    pub(super) fn add(
        &mut self,
        outcome: &Outcome,
        progress: &Progress,
    ) -> std::result::Result<(), Failure> {
        match &outcome.result {
            Result::Imported {
                messages, branches, ..
            } => {
                self.counts.imported += 1;
                self.counts.messages += messages;
                self.counts.branches += branches;
            }
            Result::Continued {
                messages, branches, ..
            } => {
                self.counts.continued += 1;
                self.counts.messages += messages;
                self.counts.branches += branches;
            }
            Result::Skipped { .. } => self.counts.skipped += 1,
            Result::Rejected { reason } => {
                self.counts.rejected += 1;
                progress.clear();
                let what = describe(outcome);
                let _ = writeln!(io::stderr(), "rejected: {what}{reason}");
            }
        }
        if let Result::Continued { changed, .. } | Result::Skipped { changed, .. } = outcome.result
            && changed > 0
        {
            self.counts.changed += 1;
            progress.clear();
            let what = describe(outcome);
            let _ = writeln!(
                io::stderr(),
                "changed: {what}{changed} of its messages differ from the stored ones, which remain"
            );
        }
        if let Some(file) = &mut self.file {
            let line = Value::Object(line(outcome));
            writeln!(file, "{line}").map_err(|error| cannot_write(&error))?;
        }
        progress.show(&self.counts);
        Ok(())
    }

    /// Prints the numbers.
    pub(super) fn finish(mut self) -> std::result::Result<Completion, Failure> {
        if let Some(file) = &mut self.file {
            file.flush().map_err(|error| cannot_write(&error))?;
        }
        writeln!(io::stdout(), "{}", self.counts).map_err(|error| cannot_write(&error))?;
        Ok(match self.counts.rejected {
            0 => Completion::Complete,
            _ => Completion::Partial,
        })
    }
}

fn cannot_write(error: &io::Error) -> Failure {
    format!("cannot write the report: {}", os_error::describe(error)).into()
}

/// Names the conversation, so that it is found in the file.
fn describe(outcome: &Outcome) -> String {
    // Names are from the file: they must not change the terminal.
    let printable = |name: &str| {
        let characters = name.chars().filter(|char| !char.is_control());
        characters.take(100).collect::<String>()
    };
    let number = outcome.number;
    let id = outcome.source_id.as_deref().map(printable);
    let id = id.map_or_else(String::new, |id| format!(" ({id})"));
    let entry = outcome.entry.as_deref().map(printable);
    let entry = entry.map_or_else(String::new, |entry| format!(" in {entry}"));
    match number {
        0 => String::new(),
        _ => format!("conversation {number}{id}{entry}: "),
    }
}

fn line(outcome: &Outcome) -> Map<String, Value> {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    put("number", outcome.number.into());
    if let Some(id) = &outcome.source_id {
        put("source_id", id.as_str().into());
    }
    if let Some(entry) = &outcome.entry {
        put("entry", entry.as_str().into());
    }
    match &outcome.result {
        Result::Imported {
            id,
            messages,
            branches,
        } => {
            put("outcome", "imported".into());
            put("conversation_id", id.to_string().into());
            put("messages", (*messages).into());
            put("branches", (*branches).into());
        }
        Result::Continued {
            id,
            messages,
            branches,
            changed,
        } => {
            put("outcome", "continued".into());
            put("conversation_id", id.to_string().into());
            put("messages", (*messages).into());
            put("branches", (*branches).into());
            put("changed_messages", (*changed).into());
        }
        Result::Skipped { id, changed } => {
            put("outcome", "skipped".into());
            put("conversation_id", id.to_string().into());
            put("changed_messages", (*changed).into());
        }
        Result::Rejected { reason } => {
            put("outcome", "rejected".into());
            put("reason", reason.as_str().into());
        }
    }
    line
}
