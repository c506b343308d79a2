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

/// Conversation that has been read.
pub(super) enum Item {
    /// From another product.
    Conversation {
        number: u64,
        imported: Box<ImportedConversation>,
    },
    /// From this service. The file can be read repeatedly.
    Archive {
        number: u64,
        name: String,
        file: File,
    },
    Rejected {
        number: u64,
        rejection: Rejection,
    },
}

pub(super) enum OpenError {
    /// The file is no export.
    Rejected(String),
    Failed(Failure),
}

type Input = BufReader<Box<dyn Read + Send>>;

/// File to be imported.
pub(super) struct Source {
    content: Content,
    format: Option<Format>,
    length: Option<u64>,
}

enum Content {
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
        let content = match kind {
            FileKind::Zip => {
                open_zip(length.map(|_| path), input).map_err(|error| match error {
                    ZipError::Io(error) => failed(error),
                    error => OpenError::Rejected(format!("{error}; {EXPECTED}")),
                })?
            }
            FileKind::Archive => Content::Archive(input),
            FileKind::Json => Content::Json(input),
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
            content,
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
        match self.content {
            Content::Json(input) => reader.json("the file", Counted { input, counter }),
            Content::Archive(input) => reader.archive("the file", Counted { input, counter }),
            Content::Zip(mut zip) => {
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

/// A zip file is read from its end, so that the content of a pipe, which has no path here, is copied to a
/// temporary file.
fn open_zip(path: Option<&Path>, mut input: Input) -> Result<Content, ZipError> {
    let file = if let Some(path) = path {
        File::open(path)?
    } else {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut input, &mut file)?;
        file
    };
    ZipReader::open(file).map(Content::Zip)
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
            Err(ZipError::Io(error)) => return Err(os_error::describe(&error)),
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
            FileKind::Json => self.json(name, content),
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

    fn json(&mut self, name: &str, input: impl Read) -> Result<(), String> {
        for outcome in ConversationReader::new(input, self.format, self.options.clone()) {
            let outcome = outcome.map_err(|error| os_error::describe(&error))?;
            self.number += 1;
            let number = self.number;
            let item = match outcome {
                Outcome::Converted(imported) => Item::Conversation { number, imported },
                Outcome::Rejected(rejection) => Item::Rejected { number, rejection },
                Outcome::Archive(content) => {
                    let describe = |error: io::Error| os_error::describe(&error);
                    let mut file = tempfile::tempfile().map_err(describe)?;
                    file.write_all(&content).map_err(describe)?;
                    let name = name.to_owned();
                    Item::Archive { number, name, file }
                }
            };
            if self.items.blocking_send(item).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Copies an archive to a temporary file, from which it can be sent again.
    fn archive(&mut self, name: &str, input: impl Read) -> Result<(), String> {
        let describe = |error: io::Error| os_error::describe(&error);
        let mut file = tempfile::tempfile().map_err(describe)?;
        if let Err(error) = copy_as_utf8(input, &mut file) {
            if error.kind() != io::ErrorKind::InvalidData {
                return Err(describe(error));
            }
            self.reject(format!("{name}: {}", describe(error)));
            return Ok(());
        }
        self.number += 1;
        let _ = self.items.blocking_send(Item::Archive {
            number: self.number,
            name: name.to_owned(),
            file,
        });
        Ok(())
    }

    fn reject(&mut self, reason: String) {
        self.number += 1;
        // The import has failed if there is no receiver, which its end reports.
        let _ = self.items.blocking_send(Item::Rejected {
            number: self.number,
            rejection: Rejection {
                source_id: None,
                reason,
            },
        });
    }
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
