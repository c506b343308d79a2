//! Analysis of messages for the search, in the background. Saves write documents without terms, which
//! a search analyzes itself, so that it finds every message that was saved. A few documents are
//! analyzed in each transaction, because all writes share one writer.

use std::{future::Future, sync::Arc, time::Duration};

use sqlx::{SqliteConnection, query, query_as, query_scalar};
use tokio::{sync::Notify, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{SqlitePool, connection, pending_removals::Step};
use crate::{
    store::{Reindexed, operation_error::OperationError},
    text_analysis::{Document, Languages},
};

/// Time after a save in which others are awaited, to analyze them together.
const DELAY: Duration = Duration::from_millis(50);

/// Time between two attempts of a step that failed, for example while the disk is full.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Upper bound on the documents of a transaction.
const BATCH: i64 = 64;

/// Reads documents without terms, and the texts of their messages. Parameter: $1 limit.
const WITHOUT_TERMS: &str = "SELECT d.id, coalesce(substr(m.content, 1, 16384), '') FROM message_documents d \
    LEFT JOIN messages m ON m.conversation_id = d.conversation_id AND m.seq = d.seq \
    WHERE d.terms IS NULL ORDER BY d.id LIMIT CAST($1 AS INTEGER)";

/// Reads those of the next documents that another analysis has made. Parameters: $1 and $2 the range,
/// $3 analyzer.
const OUTDATED: &str = "SELECT d.id, coalesce(substr(m.content, 1, 16384), '') FROM message_documents d \
    LEFT JOIN messages m ON m.conversation_id = d.conversation_id AND m.seq = d.seq \
    WHERE d.id > $1 AND d.id <= $2 AND d.analyzer <> $3 ORDER BY d.id";

/// Parameters: $1 document, $2 analyzer, $3 terms.
const SET_TERMS: &str = "UPDATE message_documents SET analyzer = $2, terms = $3 WHERE id = $1";

/// Parameter: $1 analyzer.
const COUNT_OUTDATED: &str =
    "SELECT count(*), count(*) FILTER (WHERE analyzer IS NOT $1) FROM message_documents";

const LAST_DOCUMENT: &str = "SELECT coalesce(max(id), 0) FROM message_documents";

const COMPLETED: &str = "SELECT analyzer FROM completed_analysis";

/// An analysis that is interrupted leaves documents of several ones.
const RESET_COMPLETED: &str = "DELETE FROM completed_analysis";

const SET_COMPLETED: &str =
    "INSERT OR REPLACE INTO completed_analysis (only, analyzer) VALUES (1, $1)";

/// Analyzes the documents of saved messages.
#[derive(Debug)]
pub(super) struct Analysis {
    writer: Arc<SqlitePool>,
    languages: Languages,
    has_saved: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Analysis {
    /// Creates the analysis. [`Self::start`] begins it.
    pub(super) fn new(writer: Arc<SqlitePool>, languages: Languages) -> Self {
        Self {
            writer,
            languages,
            has_saved: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Begins to analyze documents in the background, unless it has begun before.
    pub(super) fn start(&self) {
        if !self.tasks.is_empty() {
            return;
        }
        let (writer, languages) = (Arc::clone(&self.writer), self.languages);
        let has_saved = Arc::clone(&self.has_saved);
        let analysis = async move {
            repeat(|| analyze_outdated(&writer, languages)).await;
            loop {
                repeat(|| analyze_new(&writer, languages)).await;
                has_saved.notified().await;
                sleep(DELAY).await;
            }
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let _: Option<()> = stop.run_until_cancelled_owned(analysis).await;
        });
    }

    /// Analyzes what has been saved. Must be called after each write.
    pub(super) fn notify(&self) {
        self.has_saved.notify_one();
    }

    /// Is notified after a write that has no access to the analysis.
    pub(super) fn notifier(&self) -> Arc<Notify> {
        Arc::clone(&self.has_saved)
    }

    /// Ends the analysis. What has not been analyzed is analyzed after the next start.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Repeats an operation until it succeeds.
async fn repeat<F: Future<Output = Result<(), OperationError>>>(operation: impl Fn() -> F) {
    while operation().await.is_err() {
        sleep(RETRY_INTERVAL).await;
    }
}

/// Analyzes all documents that need it.
pub(super) async fn reindex(
    writer: &SqlitePool,
    languages: Languages,
) -> Result<Reindexed, OperationError> {
    let mut reader = writer.acquire().await?;
    let outdated: (i64, i64) = query_as(COUNT_OUTDATED)
        .bind(languages.analyzer())
        .fetch_one(&mut *reader)
        .await?;
    drop(reader);
    analyze_outdated(writer, languages).await?;
    analyze_new(writer, languages).await?;
    let [examined, analyzed] =
        [outdated.0, outdated.1].map(|count| u64::try_from(count).unwrap_or(0));
    Ok(Reindexed {
        examined,
        analyzed,
        next: None,
    })
}

/// Analyzes all documents without terms.
async fn analyze_new(writer: &SqlitePool, languages: Languages) -> Result<(), OperationError> {
    loop {
        let mut transaction = connection::begin(writer).await?;
        let analyzed = analyze_batch(&mut transaction, languages).await;
        if connection::end(transaction, analyzed).await? {
            return Ok(());
        }
    }
}

/// Analyzes some documents without terms. Returns whether none is left.
async fn analyze_batch(
    connection: &mut SqliteConnection,
    languages: Languages,
) -> Result<bool, OperationError> {
    let documents = query_as(WITHOUT_TERMS)
        .bind(BATCH)
        .fetch_all(&mut *connection)
        .await?;
    let is_last = i64::try_from(documents.len()).is_ok_and(|count| count < BATCH);
    let all = set_terms(connection, documents, languages).await?;
    Ok(is_last && all)
}

/// Analyzes documents again that another analysis has made, unless this was completed before.
async fn analyze_outdated(writer: &SqlitePool, languages: Languages) -> Result<(), OperationError> {
    let analyzer = languages.analyzer();
    let mut reader = writer.acquire().await?;
    let completed: Option<String> = query_scalar(COMPLETED).fetch_optional(&mut *reader).await?;
    let last: i64 = query_scalar(LAST_DOCUMENT).fetch_one(&mut *reader).await?;
    drop(reader);
    if completed.as_ref() == Some(&analyzer) {
        return Ok(());
    }
    let mut transaction = connection::begin(writer).await?;
    let reset = query(RESET_COMPLETED).execute(&mut *transaction).await;
    connection::end(transaction, reset.map(drop).map_err(OperationError::from)).await?;
    let mut after = 0;
    while after < last {
        let mut transaction = connection::begin(writer).await?;
        let analyzed = analyze_range(&mut transaction, after, languages).await;
        if connection::end(transaction, analyzed).await? {
            after += BATCH;
        }
    }
    let mut transaction = connection::begin(writer).await?;
    let set = query(SET_COMPLETED)
        .bind(analyzer)
        .execute(&mut *transaction)
        .await;
    connection::end(transaction, set.map(drop).map_err(OperationError::from)).await
}

/// Analyzes outdated documents after a number. Returns whether all of the range are analyzed.
async fn analyze_range(
    connection: &mut SqliteConnection,
    after: i64,
    languages: Languages,
) -> Result<bool, OperationError> {
    let documents = query_as(OUTDATED)
        .bind(after)
        .bind(after + BATCH)
        .bind(languages.analyzer())
        .fetch_all(&mut *connection)
        .await?;
    set_terms(connection, documents, languages).await
}

/// Analyzes texts of documents until the step is over. Returns whether it was not.
async fn set_terms(
    connection: &mut SqliteConnection,
    documents: Vec<(i64, String)>,
    languages: Languages,
) -> Result<bool, OperationError> {
    let step = Step::begin();
    for (id, text) in documents {
        if step.is_over() {
            return Ok(false);
        }
        let document = Document::of(&text, languages);
        query(SET_TERMS)
            .bind(id)
            .bind(languages.analyzer())
            .bind(document.as_ref().map_or(&[][..], Document::as_bytes))
            .execute(&mut *connection)
            .await?;
    }
    Ok(true)
}
