use std::path::PathBuf;

use super::{
    InvalidSetting,
    parse::{boolean, integer},
    postgres::{PostgresArgs, PostgresConfig},
    replica::ReplicaArgs,
};

/// The largest size of the recent windows in memory.
const MAX_WINDOW_BYTES: usize = u32::MAX as usize;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
pub(super) struct StoreArgs {
    /// Directory of the embedded store, which is used if PostgreSQL is not configured.
    #[arg(
        long,
        env,
        global = true,
        default_value = "./data",
        value_name = "DIRECTORY"
    )]
    data_dir: PathBuf,

    /// Maximum size of the newest messages of conversations that the embedded store keeps in memory.
    /// Beyond it, those of the conversations that were not used for the longest time are read from
    /// the file. 0 keeps none.
    #[arg(
        long,
        env,
        global = true,
        default_value = "33554432",
        value_parser = integer(0..=MAX_WINDOW_BYTES),
        value_name = "BYTES"
    )]
    recent_window_bytes: usize,

    /// Migrate the database schema to this program's version on start. With false, run
    /// `conversation-memory migrate` first.
    #[arg(
        long,
        env,
        global = true,
        default_value = "true",
        value_parser = boolean,
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    migrate_on_start: bool,
}

/// Durable store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Backend that stores conversations.
    pub backend: StoreBackend,
    /// Whether `serve` migrates the schema to this program's version.
    pub migrate_on_start: bool,
}

/// Backend that stores conversations.
#[derive(Clone, Debug)]
pub enum StoreBackend {
    /// SQLite file in a directory.
    Embedded {
        /// Directory of the file.
        data_dir: PathBuf,
        /// Upper bound on the recent windows in memory, in bytes; 0 disables them.
        recent_window_bytes: usize,
    },
    /// PostgreSQL server.
    Postgres(PostgresConfig),
}

impl StoreConfig {
    pub(super) fn from_args(
        args: StoreArgs,
        postgres: &PostgresArgs,
        replica: &ReplicaArgs,
    ) -> Result<Self, InvalidSetting> {
        let backend = match PostgresConfig::from_args(postgres, replica)? {
            Some(postgres) => StoreBackend::Postgres(postgres),
            None => StoreBackend::Embedded {
                data_dir: args.data_dir,
                recent_window_bytes: args.recent_window_bytes,
            },
        };
        Ok(Self {
            backend,
            migrate_on_start: args.migrate_on_start,
        })
    }
}
