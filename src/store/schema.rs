use std::collections::HashMap;

use sqlx::migrate::{AppliedMigration, MigrateError, Migrator};

use super::{
    SchemaError,
    failure::{Cause, ErrorKind, Failure},
};

/// Whether the schema that these migrations made is the one that this program
/// needs.
pub(super) fn compare(
    migrator: &Migrator,
    applied: &[AppliedMigration],
) -> Result<(), SchemaError> {
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

/// What a failure means while the schema is looked at or changed.
pub(super) fn failed(failure: Failure) -> SchemaError {
    match failure.class {
        ErrorKind::Unavailable | ErrorKind::Lost | ErrorKind::Retry => {
            SchemaError::Unavailable(failure.cause.into())
        }
        ErrorKind::Taken | ErrorKind::Internal => SchemaError::Failed(failure.cause.into()),
    }
}

/// What the migrator's error means.
pub(super) fn migration_failed(error: MigrateError) -> SchemaError {
    match error {
        MigrateError::VersionMismatch(version) | MigrateError::VersionMissing(version) => {
            SchemaError::Changed { version }
        }
        // What a migration's own statement did wrong is no matter of reaching
        // the store.
        MigrateError::ExecuteMigration(error, _) => {
            SchemaError::Failed(Failure::from(error).cause.into())
        }
        MigrateError::Execute(error) => failed(error.into()),
        other => SchemaError::Failed(Box::new(other)),
    }
}

/// The rows of the migrations' table: version, checksum, success.
pub(super) fn applied(
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
                let cause = Cause::new(format!("migration {version} was left half done"));
                Err(SchemaError::Failed(cause.into()))
            }
        })
        .collect()
}
