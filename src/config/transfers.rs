#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use import_formats::Format;

use crate::{domain::UserId, transport::Address};

/// How a command connects to a running sidecar.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ConnectionArgs {
    /// Address of the sidecar: an IP address and port, or a Unix socket such as
    /// unix:/run/memory.sock. It is reached without TLS. [default: the first of LISTEN_ADDR]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<Address>,

    /// File with the bearer token, if the sidecar requires one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Arguments of the subcommand `import`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ImportArgs {
    /// File to import: JSON, JSON Lines, or a zip file with one; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Owner of the imported conversations.
    #[arg(long, value_name = "USER", value_parser = user)]
    pub user: UserId,

    /// Format of the file, if it must not be detected.
    #[arg(long, value_name = "FORMAT", value_parser = import_format())]
    pub format: Option<Format>,

    /// File to which the outcome of each conversation is written as a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment would replace the text of --help")]
    pub connection: ConnectionArgs,
}

/// Arguments of the subcommand `export`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ExportArgs {
    /// Zip file to write, with a file for each conversation; `-` for standard output.
    #[arg(value_name = "FILE", default_value = "conversations.zip")]
    pub file: PathBuf,

    /// User whose conversations are exported.
    #[arg(long, value_name = "USER", value_parser = user)]
    pub user: UserId,

    /// Format of the files. Only jsonl and json can be imported.
    #[arg(long, value_enum, default_value = "jsonl", value_name = "FORMAT")]
    pub format: ExportFileFormat,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment would replace the text of --help")]
    pub connection: ConnectionArgs,
}

/// Format of an exported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFileFormat {
    /// JSON Lines
    Jsonl,
    /// One JSON document
    Json,
    /// A table for spreadsheets
    Csv,
    /// A text for people
    Markdown,
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|error| error.to_string())
}

fn import_format() -> impl clap::builder::TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).try_map(|name| {
        let mut formats = Format::ALL.into_iter();
        formats
            .find(|format| format.name() == name)
            .ok_or("is not a format")
    })
}
