use std::io::{self, Write};

use flate2::{Compression, Crc, write::DeflateEncoder};

use super::records::{
    CENTRAL_HEADER, COUNT_IN_ZIP64, DATA_DESCRIPTOR, DEFLATED, END, HAS_DESCRIPTOR, IN_ZIP64,
    LOCAL_HEADER, UTF8_NAME, ZIP64_END, ZIP64_END_BYTES, ZIP64_EXTRA, ZIP64_LOCATOR,
};

/// Version of the format that readers need: 4.5, for Zip64.
const VERSION: u16 = 45;
/// 1980-01-01 in the form of MS-DOS: the entries have no time.
const DATE: u16 = 0x21;
const FLAGS: u16 = HAS_DESCRIPTOR | UTF8_NAME;

/// Zip file that is written from its beginning to its end, so that it can be a pipe. A file without
/// [`Self::finish`] is invalid.
#[derive(Debug)]
pub struct ZipWriter<W: Write> {
    output: Counted<W>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    crc: u32,
    compressed: u64,
    size: u64,
    offset: u64,
}

#[derive(Debug)]
struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Entry that is written: [`Self::write`] for its content, then [`Self::finish`].
#[derive(Debug)]
pub struct EntryWriter<'a, W: Write> {
    encoder: DeflateEncoder<&'a mut Counted<W>>,
    entries: &'a mut Vec<Entry>,
    entry: Entry,
    start: u64,
    crc: Crc,
}

impl<W: Write> ZipWriter<W> {
    /// Begins a file in the archive, whose content follows.
    pub fn new(output: W) -> Self {
        Self {
            output: Counted {
                inner: output,
                written: 0,
            },
            entries: Vec::new(),
        }
    }

    /// Begins an entry. `name` has at most 65,535 bytes.
    ///
    /// # Errors
    /// Fails if the output cannot be written.
    pub fn begin(&mut self, name: &str) -> io::Result<EntryWriter<'_, W>> {
        let offset = self.output.written;
        let mut header = Vec::new();
        put(&mut header, LOCAL_HEADER);
        put16(&mut header, &[VERSION, FLAGS, DEFLATED, 0, DATE]);
        // The sizes and the checksum follow the data. The empty Zip64 field announces their width.
        put(&mut header, 0);
        put(&mut header, IN_ZIP64);
        put(&mut header, IN_ZIP64);
        put16(&mut header, &[length(name)?, 20]);
        header.extend_from_slice(name.as_bytes());
        put16(&mut header, &[ZIP64_EXTRA, 16]);
        header.extend_from_slice(&[0; 16]);
        self.output.write_all(&header)?;
        let start = self.output.written;
        Ok(EntryWriter {
            encoder: DeflateEncoder::new(&mut self.output, Compression::default()),
            entries: &mut self.entries,
            entry: Entry {
                name: name.to_owned(),
                crc: 0,
                compressed: 0,
                size: 0,
                offset,
            },
            start,
            crc: Crc::new(),
        })
    }

    /// Writes the list of entries, and returns the output.
    ///
    /// # Errors
    /// Fails if the output cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let start = self.output.written;
        for entry in &self.entries {
            self.output.write_all(&central_header(entry)?)?;
        }
        let end = self.output.written;
        let count = self.entries.len() as u64;
        let mut records = Vec::new();
        put(&mut records, ZIP64_END);
        put64(&mut records, &[ZIP64_END_BYTES as u64 - 12]);
        put16(&mut records, &[VERSION, VERSION]);
        records.extend_from_slice(&[0; 8]);
        put64(&mut records, &[count, count, end - start, start]);
        put(&mut records, ZIP64_LOCATOR);
        put(&mut records, 0);
        put64(&mut records, &[end]);
        put(&mut records, 1);
        put(&mut records, END);
        let short_count = u16::try_from(count).unwrap_or(COUNT_IN_ZIP64);
        put16(&mut records, &[0, 0, short_count, short_count]);
        put(&mut records, u32::try_from(end - start).unwrap_or(IN_ZIP64));
        put(&mut records, u32::try_from(start).unwrap_or(IN_ZIP64));
        put16(&mut records, &[0]);
        self.output.write_all(&records)?;
        self.output.flush()?;
        Ok(self.output.inner)
    }
}

impl<W: Write> EntryWriter<'_, W> {
    /// Adds content to the file that was begun last.
    ///
    /// # Errors
    /// Fails if the output cannot be written.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.crc.update(content);
        self.entry.size += content.len() as u64;
        self.encoder.write_all(content)
    }

    /// Ends the entry.
    ///
    /// # Errors
    /// Fails if the output cannot be written.
    pub fn finish(self) -> io::Result<()> {
        let mut entry = self.entry;
        let output = self.encoder.finish()?;
        entry.crc = self.crc.sum();
        entry.compressed = output.written - self.start;
        let mut descriptor = Vec::new();
        put(&mut descriptor, DATA_DESCRIPTOR);
        put(&mut descriptor, entry.crc);
        put64(&mut descriptor, &[entry.compressed, entry.size]);
        output.write_all(&descriptor)?;
        self.entries.push(entry);
        Ok(())
    }
}

fn central_header(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    put(&mut header, CENTRAL_HEADER);
    put16(&mut header, &[VERSION, VERSION, FLAGS, DEFLATED, 0, DATE]);
    put(&mut header, entry.crc);
    put(&mut header, IN_ZIP64);
    put(&mut header, IN_ZIP64);
    put16(&mut header, &[length(&entry.name)?, 28, 0, 0, 0]);
    put(&mut header, 0);
    put(&mut header, IN_ZIP64);
    header.extend_from_slice(entry.name.as_bytes());
    put16(&mut header, &[ZIP64_EXTRA, 24]);
    put64(&mut header, &[entry.size, entry.compressed, entry.offset]);
    Ok(header)
}

fn length(name: &str) -> io::Result<u16> {
    u16::try_from(name.len()).map_err(|_| io::Error::other("the name of an entry is too long"))
}

fn put(record: &mut Vec<u8>, number: u32) {
    record.extend_from_slice(&number.to_le_bytes());
}

fn put16(record: &mut Vec<u8>, numbers: &[u16]) {
    record.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn put64(record: &mut Vec<u8>, numbers: &[u64]) {
    record.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}
