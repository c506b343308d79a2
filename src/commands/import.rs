//! `import`: the conversations of a file, from this service or from other products.

mod archive;
mod calls;
mod paths;
mod progress;
mod report;
mod sender;
mod source;
mod stored;

use std::{path::Path, process, thread};

use futures_util::StreamExt as _;
use import_formats::ImportOptions;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::{
    calls::Calls,
    progress::Progress,
    report::{Outcome, Report},
    sender::Sender,
    source::{Content, Item, Source},
};
use super::{Completion, Failure, connection};
use crate::{
    config::ImportArgs,
    domain::{Clock as _, SystemClock},
    transport::Address,
};

/// Conversations that are looked up or imported at once.
const CONCURRENT_CONVERSATIONS: usize = 3;

/// Conversations that have been read and wait to be imported.
const QUEUE: usize = 2;

/// Imports the conversations of a file, and prints a report.
///
/// # Errors
/// Fails if the file cannot be read or the sidecar cannot be reached. What was imported until then
/// remains, and is skipped when the import is repeated.
pub async fn import(args: &ImportArgs, listen: &[Address]) -> Result<Completion, Failure> {
    let source = match Source::open(&args.file, args.format) {
        Ok(source) => source,
        Err(source::OpenError::Rejected(reason)) => {
            let mut report = Report::create(args.report.as_deref())?;
            report.add(&Outcome::rejected(None, 0, reason), &Progress::new(None))?;
            return report.finish();
        }
        Err(source::OpenError::Failed(failure)) => return Err(failure),
    };
    let client = connection::connect(&args.connection, listen).await?;
    let now = SystemClock.now();
    let run = format!("import-{}-{}", now.timestamp_micros(), process::id());
    let sender = Sender {
        calls: Calls::new(client, args.user.clone(), run),
    };
    let progress = Progress::new(source.length());
    let options = ImportOptions {
        user_id: args.user.clone(),
        now,
    };
    let (items, queue) = mpsc::channel(QUEUE);
    let counter = progress.counter();
    // Reading and converting block, and take as much time as importing.
    let reader = thread::spawn(move || source.read_all(&options, &counter, &items));
    let outcomes = ReceiverStream::new(queue).map(|item| import_item(&sender, item));
    let mut outcomes = outcomes.buffered(CONCURRENT_CONVERSATIONS);
    let mut report = Report::create(args.report.as_deref())?;
    while let Some(outcome) = outcomes.next().await {
        report.add(&outcome?, &progress)?;
    }
    drop(outcomes);
    progress.clear();
    match reader.join() {
        Ok(read) => read.map_err(|reason| failed_read(&args.file, &reason))?,
        Err(_) => return Err("reading the file failed".into()),
    }
    report.finish()
}

async fn import_item(sender: &Sender, item: Item) -> Result<Outcome, Failure> {
    let number = item.number;
    let outcome = match item.content {
        Content::Conversation(imported) => sender.import(number, *imported).await?,
        Content::Archive { name, file } => sender.restore(number, name, file).await?,
        Content::Rejected(rejection) => {
            Outcome::rejected(rejection.source_id, number, rejection.reason)
        }
    };
    Ok(Outcome {
        entry: item.entry,
        ..outcome
    })
}

fn failed_read(file: &Path, reason: &str) -> Failure {
    format!("cannot read {}: {reason}", file.display()).into()
}
