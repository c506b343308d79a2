//! The file of an import: JSON, a zip file with JSON, or an archive of this service.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read, Write as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use import_formats::{
    ConversationReader, FileKind, Format, ImportOptions, ImportedConversation, Outcome, Rejection,
    START_BYTES, copy_as_utf8, detect,
};
use tokio::sync::mpsc;
use zip_files::{ZipError, ZipReader};

use crate::{commands::Failure, os_error};

const EXPECTED: &str = "expected a JSON or JSON Lines file of ChatGPT, Claude, ShareGPT, OpenAI, \
    LibreChat, Open WebUI or this service, or a zip file with one";

/// Name of the content of a file that is no zip file.
const THE_FILE: &str = "the file";

/// Conversation that has been read.
pub(super) struct Item {
    /// Position in the file, from 1.
    pub(super) number: u64,
    /// Name of the entry of a zip file that has it among others.
    pub(super) entry: Option<String>,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// From another product.
    Conversation(Box<ImportedConversation>),
    /// From this service. The file can be read repeatedly.
    Archive {
        name: String,
        file: File,
    },
    Rejected(Rejection),
}

pub(super) enum OpenError {
    /// The file is no export.
    Rejected(String),
    Failed(Failure),
}

type Input = BufReader<Box<dyn Read + Send>>;

/// File to be imported.
pub(super) struct Source {
    form: Form,
    format: Option<Format>,
    length: Option<u64>,
}

enum Form {
    Zip(ZipReader<File>),
    Json(Input),
    Archive(Input),
}

impl Source {
    /// Opens a file; `-` is standard input.
    pub(super) fn open(path: &Path, format: Option<Format>) -> Result<Self, OpenError> {
        let failed = |error: io::Error| {
            let cause = os_error::describe(&error);
            OpenError::Failed(format!("cannot read {}: {cause}", path.display()).into())
        };
        let (mut input, length): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            let length = metadata.is_file().then_some(metadata.len());
            (Box::new(file), length)
        };
        let mut start = Vec::new();
        input
            .by_ref()
            .take(START_BYTES)
            .read_to_end(&mut start)
            .map_err(failed)?;
        let kind = detect(&start);
        let input: Input = BufReader::new(Box::new(Cursor::new(start).chain(input)));
        let form = match kind {
            FileKind::Zip => {
                open_zip(length.map(|_| path), input).map_err(|error| match error {
                    ZipError::Io(error) => failed(error),
                    error => OpenError::Rejected(format!("{error}; {EXPECTED}")),
                })?
            }
            FileKind::Archive => Form::Archive(input),
            FileKind::Json => Form::Json(input),
            FileKind::Empty => {
                return Err(OpenError::Rejected(format!(
                    "the file is empty; {EXPECTED}"
                )));
            }
            FileKind::Other(what) => {
                let reason = format!("the file appears to be {what}; {EXPECTED}");
                return Err(OpenError::Rejected(reason));
            }
        };
        Ok(Self {
            form,
            format,
            length,
        })
    }

    /// Bytes of the file, if they are known.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Reads all conversations. Ends early if the import has failed.
    ///
    /// # Errors
    /// Fails with the reason if the file cannot be read.
    pub(super) fn read_all(
        self,
        options: &ImportOptions,
        counter: &AtomicU64,
        items: &mpsc::Sender<Item>,
    ) -> Result<(), String> {
        let mut reader = ItemReader {
            format: self.format,
            options,
            items,
            number: 0,
        };
        match self.form {
            Form::Json(input) => reader.json(None, Counted { input, counter }),
            Form::Archive(input) => reader.archive(THE_FILE, Counted { input, counter }),
            Form::Zip(mut zip) => {
                let wanted = conversation_entries(&zip);
                if wanted.is_empty() {
                    let reason = format!(
                        "the zip file contains no conversations.json, .json or .jsonl file; {EXPECTED}"
                    );
                    reader.reject(reason);
                }
                for (index, name) in wanted {
                    reader.entry(&mut zip, index, &name)?;
                }
                Ok(())
            }
        }
    }
}

/// Opens a zip file, which is read from its end. The content of a pipe, which has no path here, is
/// copied to a temporary file first.
fn open_zip(path: Option<&Path>, mut input: Input) -> Result<Form, ZipError> {
    let file = if let Some(path) = path {
        File::open(path)?
    } else {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut input, &mut file)?;
        file
    };
    ZipReader::open(file).map(Form::Zip)
}

/// Entries with conversations: those named `conversations.json`, which ChatGPT and Claude write beside
/// other files, else all JSON files. Large exports are divided into numbered files.
fn conversation_entries(zip: &ZipReader<File>) -> Vec<(usize, String)> {
    let base = |name: &str| name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let is_json = |name: &str| {
        let endings = [".json", ".jsonl", ".ndjson"];
        endings.iter().any(|ending| name.ends_with(ending)) && !name.starts_with('.')
    };
    let entries = zip
        .names()
        .enumerate()
        .map(|(index, name)| (index, name.to_owned()));
    let entries: Vec<_> = entries.filter(|(_, name)| is_json(&base(name))).collect();
    let is_export = |name: &str| base(name).starts_with("conversations");
    if entries.iter().any(|(_, name)| is_export(name)) {
        return entries
            .into_iter()
            .filter(|(_, name)| is_export(name))
            .collect();
    }
    entries
}

struct ItemReader<'a> {
    format: Option<Format>,
    options: &'a ImportOptions,
    items: &'a mpsc::Sender<Item>,
    number: u64,
}

impl ItemReader<'_> {
    fn entry(&mut self, zip: &mut ZipReader<File>, index: usize, name: &str) -> Result<(), String> {
        let mut entry = match zip.entry(index) {
            Ok(entry) => entry,
            Err(ZipError::Io(error)) => return Err(format!("{name}: {}", describe(&error))),
            Err(error) => {
                self.reject(format!("{name}: {error}"));
                return Ok(());
            }
        };
        let mut start = Vec::new();
        if entry
            .by_ref()
            .take(START_BYTES)
            .read_to_end(&mut start)
            .is_err()
        {
            self.reject(format!("{name}: the entry of the zip file is damaged"));
            return Ok(());
        }
        let kind = detect(&start);
        let content = Cursor::new(start).chain(entry);
        match kind {
            FileKind::Archive => self.archive(name, content),
            FileKind::Json => self.json(Some(name), content),
            FileKind::Empty => {
                self.reject(format!("{name} is empty; {EXPECTED}"));
                Ok(())
            }
            FileKind::Zip => {
                self.reject(format!("{name} appears to be a zip file; {EXPECTED}"));
                Ok(())
            }
            FileKind::Other(what) => {
                self.reject(format!("{name} appears to be {what}; {EXPECTED}"));
                Ok(())
            }
        }
    }

    /// Reads the conversations of a file, or of an entry of a zip file.
    fn json(&mut self, entry: Option<&str>, input: impl Read) -> Result<(), String> {
        for outcome in ConversationReader::new(input, self.format, self.options.clone()) {
            let content = match outcome {
                Ok(Outcome::Converted(imported)) => Content::Conversation(imported),
                Ok(Outcome::Rejected(rejection)) => Content::Rejected(rejection),
                Ok(Outcome::Archive(content)) => {
                    let mut file = tempfile::tempfile().map_err(|error| describe(&error))?;
                    file.write_all(&content).map_err(|error| describe(&error))?;
                    let name = entry.unwrap_or(THE_FILE).to_owned();
                    Content::Archive { name, file }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.reject(format!(
                        "{}: {}",
                        entry.unwrap_or(THE_FILE),
                        describe(&error)
                    ));
                    break;
                }
                Err(error) => {
                    let entry = entry.map_or_else(String::new, |entry| format!("{entry}: "));
                    return Err(format!("{entry}{}", describe(&error)));
                }
            };
            if !self.send(entry, content) {
                break;
            }
        }
        Ok(())
    }

    /// Copies an archive to a temporary file, from which it can be sent again.
    fn archive(&mut self, name: &str, input: impl Read) -> Result<(), String> {
        let mut file = tempfile::tempfile().map_err(|error| describe(&error))?;
        if let Err(error) = copy_as_utf8(input, &mut file) {
            let reason = format!("{name}: {}", describe(&error));
            if error.kind() != io::ErrorKind::InvalidData {
                return Err(reason);
            }
            self.reject(reason);
            return Ok(());
        }
        let name = name.to_owned();
        self.send(None, Content::Archive { name, file });
        Ok(())
    }

    fn reject(&mut self, reason: String) {
        let source_id = None;
        self.send(None, Content::Rejected(Rejection { source_id, reason }));
    }

    /// Returns whether there is a receiver. If there is none, the import has failed, which its end
    /// reports together with the cause.
    fn send(&mut self, entry: Option<&str>, content: Content) -> bool {
        self.number += 1;
        let item = Item {
            number: self.number,
            entry: entry.map(str::to_owned),
            content,
        };
        self.items.blocking_send(item).is_ok()
    }
}

fn describe(error: &io::Error) -> String {
    os_error::describe(error)
}

/// Counts the bytes that are read, for the progress.
struct Counted<'a> {
    input: Input,
    counter: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.counter.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
