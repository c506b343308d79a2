use std::collections::HashMap;

use sqlx::migrate::{AppliedMigration, MigrateError, Migrator};

use super::{
    SchemaError,
    operation_error::{BackendError, Cause, ErrorKind},
};

/// Checks that the applied migrations are exactly those of this program.
pub(super) fn check(migrator: &Migrator, applied: &[AppliedMigration]) -> Result<(), SchemaError> {
    let ours: HashMap<i64, &[u8]> = migrator
        .iter()
        .map(|migration| (migration.version, migration.checksum.as_ref()))
        .collect();
    let wanted = ours.keys().copied().max().unwrap_or_default();
    let found = applied
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default();
    if found > wanted {
        return Err(SchemaError::Newer { found, wanted });
    }
    for migration in applied {
        let version = migration.version;
        if ours.get(&version) != Some(&migration.checksum.as_ref()) {
            return Err(SchemaError::Changed { version });
        }
    }
    if applied.len() < ours.len() {
        return Err(SchemaError::Older { found, wanted });
    }
    Ok(())
}

/// Maps an error of reading or changing the schema.
pub(super) fn map_error(error: BackendError) -> SchemaError {
    match error.kind {
        ErrorKind::Unavailable
        | ErrorKind::TimeLimit
        | ErrorKind::ReadOnly
        | ErrorKind::Interrupted
        | ErrorKind::Full
        | ErrorKind::WriteFailed
        | ErrorKind::CommitWriteFailed
        | ErrorKind::ConnectionLost
        | ErrorKind::Retryable => SchemaError::Unavailable(error.cause.into()),
        ErrorKind::UniqueViolation | ErrorKind::Internal => SchemaError::Failed(error.cause.into()),
    }
}

/// Maps an error of the migrator.
pub(super) fn map_migration_error(error: MigrateError) -> SchemaError {
    match error {
        MigrateError::VersionMismatch(version) | MigrateError::VersionMissing(version) => {
            SchemaError::Changed { version }
        }
        // The statement of a migration failed: the store is available.
        MigrateError::ExecuteMigration(error, _) => {
            SchemaError::Failed(BackendError::from(error).cause.into())
        }
        MigrateError::Execute(error) => map_error(error.into()),
        other => SchemaError::Failed(Box::new(other)),
    }
}

/// Converts the rows of the migrations table: version, checksum, success.
pub(super) fn applied_migrations(
    rows: Vec<(i64, Vec<u8>, bool)>,
) -> Result<Vec<AppliedMigration>, SchemaError> {
    rows.into_iter()
        .map(|(version, checksum, success)| {
            if success {
                Ok(AppliedMigration {
                    version,
                    checksum: checksum.into(),
                })
            } else {
                let cause = Cause::new(format!("migration {version} was applied only in part"));
                Err(SchemaError::Failed(cause.into()))
            }
        })
        .collect()
}
