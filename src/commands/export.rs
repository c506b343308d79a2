//! `export`: all conversations of a user as a zip file.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tonic::{Code, Status, Streaming};
use zip_files::ZipWriter;

use super::{
    Completion, Failure,
    connection::{self, Client},
    retries::Retries,
};
use crate::{
    config::{ExportArgs, ExportFileFormat},
    domain::UserId,
    os_error,
    proto::{
        ExportConversationRequest, ExportConversationResponse, ExportFormat,
        ListConversationsRequest,
    },
    transport::Address,
};

/// Conversations of a page of the list.
const PAGE_SIZE: i32 = 100;

/// Exports all conversations of a user. The file appears under its name when it is complete.
///
/// # Errors
/// Fails if the sidecar cannot be reached or the file cannot be written.
pub async fn export(args: &ExportArgs, listen: &[Address]) -> Result<Completion, Failure> {
    let client = connection::connect(&args.connection, listen).await?;
    let cannot_write = |error: io::Error| -> Failure {
        let (file, cause) = (args.file.display(), os_error::describe(&error));
        format!("cannot write {file}: {cause}").into()
    };
    // A symbolic link remains, and its target is replaced.
    let target = fs::canonicalize(&args.file).unwrap_or_else(|_| args.file.clone());
    if let Some(stream) = open_stream(args, &target).map_err(cannot_write)? {
        let count = write(client, args, stream).await?;
        report(args, count);
        return Ok(Completion::Complete);
    }
    let partial = partial_name(&target);
    let file = create(&partial).map_err(cannot_write)?;
    let written = write(client, args, io::BufWriter::new(file)).await;
    let count = match written {
        Ok(count) => count,
        Err(error) => {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
    };
    fs::rename(&partial, &target).map_err(cannot_write)?;
    report(args, count);
    Ok(Completion::Complete)
}

/// Opens the output if it is standard output, or a pipe or a device, which are written to directly.
fn open_stream(args: &ExportArgs, target: &Path) -> io::Result<Option<Box<dyn Write>>> {
    if args.file == Path::new("-") {
        return Ok(Some(Box::new(io::BufWriter::new(io::stdout()))));
    }
    if !fs::metadata(target).is_ok_and(|it| !it.is_file() && !it.is_dir()) {
        return Ok(None);
    }
    let file = OpenOptions::new().write(true).open(target)?;
    Ok(Some(Box::new(io::BufWriter::new(file))))
}

fn report(args: &ExportArgs, count: usize) {
    let file = args.file.display();
    // The report may be closed; the file is what counts.
    let _ = writeln!(io::stderr(), "exported {count} conversations to {file}");
}

fn partial_name(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Creates a file that only its owner may read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

async fn write(client: Client, args: &ExportArgs, output: impl Write) -> Result<usize, Failure> {
    let mut export = Export {
        client,
        user: args.user.clone(),
        format: contract_format(args.format),
        extension: extension(args.format),
        zip: ZipWriter::new(output),
        seen: HashSet::new(),
        count: 0,
    };
    // A conversation that is continued meanwhile moves to the front of the list, to a page that has
    // been read already. The second list contains it.
    loop {
        let new = export.list().await?;
        if new.is_empty() {
            break;
        }
        for id in new {
            export.add(&id).await?;
        }
    }
    let mut output = export.zip.finish().map_err(write_error)?;
    output.flush().map_err(write_error)?;
    Ok(export.count)
}

fn contract_format(format: ExportFileFormat) -> ExportFormat {
    match format {
        ExportFileFormat::Jsonl => ExportFormat::Jsonl,
        ExportFileFormat::Json => ExportFormat::Json,
        ExportFileFormat::Csv => ExportFormat::Csv,
        ExportFileFormat::Markdown => ExportFormat::Markdown,
    }
}

fn extension(format: ExportFileFormat) -> &'static str {
    match format {
        ExportFileFormat::Jsonl => "jsonl",
        ExportFileFormat::Json => "json",
        ExportFileFormat::Csv => "csv",
        ExportFileFormat::Markdown => "md",
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is an argument of map_err"
)]
fn write_error(error: io::Error) -> Failure {
    format!("cannot write the export: {}", os_error::describe(&error)).into()
}

struct Export<W: Write> {
    client: Client,
    user: UserId,
    format: ExportFormat,
    extension: &'static str,
    zip: ZipWriter<W>,
    seen: HashSet<String>,
    count: usize,
}

impl<W: Write> Export<W> {
    /// Ids that have not been listed yet, the least recently active first: an import of the file
    /// lists the conversations in the same order.
    async fn list(&mut self) -> Result<Vec<String>, Failure> {
        let (mut ids, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListConversationsRequest {
                user_id: self.user.as_str().to_owned(),
                page_size: PAGE_SIZE,
                page_token,
                ..ListConversationsRequest::default()
            };
            let mut retries = Retries::new();
            let page = loop {
                match self.client.list_conversations(request.clone()).await {
                    Ok(page) => break page.into_inner(),
                    Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
                }
            };
            for conversation in page.conversations {
                if self.seen.insert(conversation.id.clone()) {
                    ids.push((!conversation.parent_id.is_empty(), conversation.id));
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                ids.reverse();
                // An import keeps the ids of those messages that it reads first: the parent's.
                ids.sort_by_key(|(is_branch, _)| *is_branch);
                return Ok(ids.into_iter().map(|(_, id)| id).collect());
            }
        }
    }

    async fn add(&mut self, id: &str) -> Result<(), Failure> {
        let request = ExportConversationRequest {
            conversation_id: id.to_owned(),
            user_id: self.user.as_str().to_owned(),
            format: self.format.into(),
        };
        let mut retries = Retries::new();
        let mut pieces: Streaming<ExportConversationResponse> = loop {
            match self.client.export_conversation(request.clone()).await {
                Ok(pieces) => break pieces.into_inner(),
                // It was deleted meanwhile.
                Err(error) if error.code() == Code::NotFound => return Ok(()),
                Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
            }
        };
        let name = format!("{id}.{}", self.extension);
        let mut entry = self.zip.begin(&name).map_err(write_error)?;
        while let Some(piece) = pieces.message().await.map_err(|error| failed(&error))? {
            let data = piece.file.unwrap_or_default().data;
            entry.write(&data).map_err(write_error)?;
        }
        entry.finish().map_err(write_error)?;
        self.count += 1;
        Ok(())
    }
}

fn failed(error: &Status) -> Failure {
    format!("the export failed: {}", error.message()).into()
}
