#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{fmt, path::PathBuf, str::FromStr};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use http::Uri;
use import_formats::Format;

use crate::{domain::UserId, transport::Address};

/// How a command connects to a running sidecar.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ConnectionArgs {
    /// Address of the sidecar: https://HOST:PORT with TLS, or without TLS an IP address and port, or
    /// a Unix socket such as unix:/run/memory.sock. [default: the first of LISTEN_ADDR, without TLS]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<Target>,

    /// File with the authorities, in PEM, that may have signed the sidecar's certificate, besides
    /// the public ones.
    #[arg(long, value_name = "FILE", requires = "address")]
    pub ca_file: Option<PathBuf>,

    /// File with a certificate, in PEM, if the sidecar requires one of its callers.
    #[arg(long, value_name = "FILE", requires = "key_file", requires = "address")]
    pub cert_file: Option<PathBuf>,

    /// File with the private key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,

    /// File with the bearer token, if the sidecar requires one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Where a command reaches a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A listener that is reached without TLS.
    Plain(Address),
    /// A host that is reached with TLS.
    Tls {
        /// Name or IP address, which the certificate must have.
        host: String,
        /// TCP port on which the host accepts connections with TLS.
        port: u16,
    },
}

/// Error of a text that is not a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an address such as 127.0.0.1:50051, unix:/run/memory.sock or https://memory.example:50051"
)]
pub struct InvalidTarget;

impl FromStr for Target {
    type Err = InvalidTarget;

    /// Parses an [`Address`], or `https://host:port`, where the port is 443 if it is absent.
    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        if !text.starts_with("https://") {
            return text.parse().map(Self::Plain).map_err(|_| InvalidTarget);
        }
        let uri: Uri = text.parse().map_err(|_| InvalidTarget)?;
        let authority = uri.authority().ok_or(InvalidTarget)?;
        if authority.host().is_empty()
            || authority.as_str().contains('@')
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(InvalidTarget);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 443,
            Some(_) => authority.port_u16().ok_or(InvalidTarget)?,
            None => return Err(InvalidTarget),
        };
        Ok(Self::Tls {
            host: authority.host().to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => address.fmt(f),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_addresses_with_and_without_tls() {
        for (text, displayed) in [
            ("127.0.0.1:50051", "127.0.0.1:50051"),
            ("unix:/run/memory.sock", "unix:/run/memory.sock"),
            ("https://memory.example", "https://memory.example:443"),
            (
                "https://memory.example:50051/",
                "https://memory.example:50051",
            ),
            ("https://[::1]:50051", "https://[::1]:50051"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), displayed);
        }
        for text in [
            "memory.example",
            "http://memory.example:50051",
            "https://",
            "https://:50051",
            "https://memory.example:",
            "https://memory.example:99999",
            "https://memory.example:50051/path",
            "https://memory.example:50051?query",
            "https://name@memory.example:50051",
        ] {
            assert_eq!(text.parse::<Target>(), Err(InvalidTarget), "{text}");
        }
    }
}
