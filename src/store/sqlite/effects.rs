use serde_json::json;
use sqlx::{SqliteConnection, query};

use crate::store::{effects::RemovalEffect, operation_error::OperationError, sql};

/// Parameter: $1 the effects as a JSON array.
const APPLY: [&str; 2] = sql::apply_effects!(
    "(SELECT value ->> 'id' AS id, value ->> 'after_seq' AS after_seq, \
             value ->> 'tokens' AS tokens, value ->> 'clears_title' AS clears_title \
      FROM json_each($1)) AS e",
    "max"
);

/// Applies the effects of a removal to conversations, in a transaction.
pub(super) async fn apply_effects(
    connection: &mut SqliteConnection,
    effects: &[RemovalEffect],
) -> Result<(), OperationError> {
    let rows = effects.iter().map(|effect| {
        json!({
            "id": effect.conversation.hyphenated().to_string(),
            "after_seq": effect.after_seq,
            "tokens": effect.tokens,
            "clears_title": effect.clears_title,
        })
    });
    let effects = rows.collect::<serde_json::Value>().to_string();
    for statement in APPLY {
        query(statement)
            .bind(&effects)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
