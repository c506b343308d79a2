use sqlx::query;
use uuid::Uuid;

use super::{sql, store_connection::StoreConnection};
use crate::store::{effects::RemovalEffect, operation_error::OperationError};

/// Parameters: $1 to $4 the effects, field by field.
const APPLY: [&str; 2] = sql::apply_effects!(
    "unnest($1, $2, $3, $4) AS e (id, after_seq, tokens, clears_title)",
    "greatest"
);

/// Applies the effects of a removal to conversations whose rows are locked.
pub(super) async fn apply_effects(
    connection: &mut StoreConnection,
    effects: &[RemovalEffect],
) -> Result<(), OperationError> {
    let ids: Vec<Uuid> = effects.iter().map(|effect| effect.conversation).collect();
    let after: Vec<i64> = effects.iter().map(|effect| effect.after_seq).collect();
    let tokens: Vec<i64> = effects.iter().map(|effect| effect.tokens).collect();
    let titles: Vec<bool> = effects.iter().map(|effect| effect.clears_title).collect();
    for statement in APPLY {
        query(statement)
            .bind(&ids)
            .bind(&after)
            .bind(&tokens)
            .bind(&titles)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
