#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

use super::{
    auth::AuthArgs,
    conversations::ConversationArgs,
    limits::LimitArgs,
    logs::LogArgs,
    postgres::PostgresArgs,
    redis::RedisArgs,
    replica::ReplicaArgs,
    server::ServerArgs,
    store::StoreArgs,
    telemetry::TelemetryArgs,
    transfers::{ExportArgs, ImportArgs},
    web::WebArgs,
};
use crate::domain::ConversationId;

/// Conversation memory for agent services, over gRPC and REST.
///
/// Without configuration, conversations are stored in a SQLite file and sessions in
/// memory. Every setting is a flag and an environment variable; the flag takes precedence.
#[derive(Debug, Parser)]
#[command(
    name = "conversation-memory",
    version,
    max_term_width = 100,
    allow_negative_numbers = true
)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) server: ServerArgs,

    #[command(flatten)]
    pub(super) auth: AuthArgs,

    #[command(flatten)]
    pub(super) web: WebArgs,

    #[command(flatten)]
    pub(super) limits: LimitArgs,

    #[command(flatten)]
    pub(super) conversations: ConversationArgs,

    #[command(flatten)]
    pub(super) store: StoreArgs,

    #[command(flatten)]
    pub(super) postgres: PostgresArgs,
    #[command(flatten)]
    pub(super) replica: ReplicaArgs,

    #[command(flatten)]
    pub(super) redis: RedisArgs,

    #[command(flatten)]
    pub(super) logs: LogArgs,

    #[command(flatten)]
    pub(super) telemetry: TelemetryArgs,
}

/// Subcommand of the program.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve the API (the default).
    Serve,
    /// Migrate the database schema to this program's version and exit.
    Migrate,
    /// Analyze all messages again that were saved with other TEXT_SEARCH_LANGUAGES or by an earlier
    /// version, so that the search finds all their words, and exit. Sidecars can serve meanwhile. The
    /// command can be interrupted and repeated. The embedded store needs no such command: it does the
    /// same in the background.
    Reindex,
    /// Check whether the sidecar with these settings is serving, and exit with 0 if it is.
    /// Connects to the first address of LISTEN_ADDR without TLS, otherwise to OPS_ADDR.
    Healthcheck,
    /// Print the recent window of a conversation in Redis as JSON, and exit. The window is not changed.
    InspectWindow {
        /// Id of the conversation.
        #[arg(value_name = "ID", value_parser = conversation_id)]
        conversation: ConversationId,
    },
    /// Import the conversations of a file into a running sidecar: exports of ChatGPT, Claude, LibreChat,
    /// Open WebUI and of this program, ShareGPT, and message arrays of OpenAI. What is there already
    /// is skipped, so that an import can be repeated. Exits with 3 if something was rejected.
    Import(ImportArgs),
    /// Export all conversations of a user from a running sidecar as a zip file.
    Export(ExportArgs),
}

fn conversation_id(text: &str) -> Result<ConversationId, String> {
    ConversationId::parse(text).map_err(|error| error.to_string())
}

/// Parses the command line and the environment. An empty environment variable counts as
/// unset, because manifests often contain such variables.
pub(super) fn read() -> Result<Args, clap::Error> {
    let command = Args::command().mut_args(|arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    });
    command
        .try_get_matches()
        .and_then(|matches| Args::from_arg_matches(&matches))
}
