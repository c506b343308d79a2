use sqlx::SqliteConnection;
use uuid::fmt::Hyphenated;

use crate::store::lineage::lineage;

lineage!(SqliteConnection, Hyphenated, remove);

/// Deletes the messages of ranges.
async fn remove(
    connection: &mut SqliteConnection,
    ranges: Vec<LineageRange>,
) -> Result<Vec<LineageRange>, OperationError> {
    for (source, after_seq, upto_seq) in ranges {
        query(sql::DELETE_RANGE)
            .bind(source)
            .bind(after_seq)
            .bind(upto_seq)
            .execute(&mut *connection)
            .await?;
    }
    Ok(Vec::new())
}
