use std::io::{self, Read, Seek, SeekFrom};

use flate2::{Crc, read::DeflateDecoder};

use super::records::{
    CENTRAL_HEADER, CENTRAL_HEADER_BYTES, COUNT_IN_ZIP64, DEFLATED, ENCRYPTED, END, END_BYTES,
    Fields, IN_ZIP64, LOCAL_HEADER, LOCAL_HEADER_BYTES, STORED, ZIP64_END, ZIP64_END_BYTES,
    ZIP64_EXTRA, ZIP64_LOCATOR, ZIP64_LOCATOR_BYTES,
};

/// Upper bound on the list of entries, in bytes.
const MAX_DIRECTORY_BYTES: u64 = 256 << 20;

/// Upper bound on the comment at the end of a file.
const MAX_COMMENT_BYTES: usize = u16::MAX as usize;

/// Error of a zip file.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// The file could not be read.
    #[error("the zip file cannot be read")]
    Io(#[from] io::Error),
    /// The file is not a valid zip file, or was cut off.
    #[error("the zip file is damaged or was cut off")]
    Invalid,
    /// The entry is encrypted, or compressed by another method than deflate.
    #[error("the zip file is encrypted, or compressed by an unknown method")]
    Unsupported,
}

/// Zip file that is read.
#[derive(Debug)]
pub struct ZipReader<R> {
    file: R,
    length: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    offset: u64,
}

impl<R: Read + Seek> ZipReader<R> {
    /// Reads the list of entries.
    ///
    /// # Errors
    /// Fails with [`ZipError`] if the file is invalid, or its list has more than 256 MiB.
    pub fn open(mut file: R) -> Result<Self, ZipError> {
        let length = file.seek(SeekFrom::End(0))?;
        let (offset, size) = find_directory(&mut file, length)?;
        if size > MAX_DIRECTORY_BYTES || offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(ZipError::Invalid);
        }
        let directory = read_at(&mut file, offset, size)?;
        Ok(Self {
            file,
            length,
            entries: parse_directory(&directory)?,
        })
    }

    /// Names of the entries, in their order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Opens the entry at `index`.
    ///
    /// # Errors
    /// Fails with [`ZipError`] if there is no such entry, or it cannot be read.
    pub fn entry(&mut self, index: usize) -> Result<EntryReader<'_, R>, ZipError> {
        let entry = self.entries.get(index).ok_or(ZipError::Invalid)?;
        if entry.flags & ENCRYPTED != 0 || ![STORED, DEFLATED].contains(&entry.method) {
            return Err(ZipError::Unsupported);
        }
        let header = read_at(&mut self.file, entry.offset, LOCAL_HEADER_BYTES as u64)?;
        let mut fields = Fields(&header);
        if fields.u32() != LOCAL_HEADER {
            return Err(ZipError::Invalid);
        }
        fields.skip(22);
        let lengths = u64::from(fields.u16()) + u64::from(fields.u16());
        let start = entry.offset + LOCAL_HEADER_BYTES as u64 + lengths;
        let is_inside = start
            .checked_add(entry.compressed)
            .is_some_and(|end| end <= self.length);
        if !is_inside {
            return Err(ZipError::Invalid);
        }
        self.file.seek(SeekFrom::Start(start))?;
        let data = self.file.by_ref().take(entry.compressed);
        Ok(EntryReader {
            data: match entry.method {
                STORED => Data::Stored(data),
                _ => Data::Deflated(DeflateDecoder::new(data)),
            },
            crc: Crc::new(),
            expected_crc: entry.crc,
            left: entry.size,
        })
    }
}

/// Content of an entry. Reading fails if it differs from its checksum or its size.
#[derive(Debug)]
pub struct EntryReader<'a, R> {
    data: Data<'a, R>,
    crc: Crc,
    expected_crc: u32,
    left: u64,
}

#[derive(Debug)]
enum Data<'a, R> {
    Stored(io::Take<&'a mut R>),
    Deflated(DeflateDecoder<io::Take<&'a mut R>>),
}

impl<R: Read> Read for EntryReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.data {
            Data::Stored(data) => data.read(buffer)?,
            Data::Deflated(data) => data.read(buffer)?,
        };
        self.crc.update(&buffer[..read]);
        let left = self.left.checked_sub(read as u64);
        let is_end = read == 0 && !buffer.is_empty();
        let is_complete = self.left == 0 && self.crc.sum() == self.expected_crc;
        match left {
            Some(left) if !is_end || is_complete => self.left = left,
            _ => {
                let reason = "the entry of the zip file is damaged";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
        }
        Ok(read)
    }
}

fn read_at(file: &mut (impl Read + Seek), offset: u64, count: u64) -> Result<Vec<u8>, ZipError> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == count {
        Ok(bytes)
    } else {
        Err(ZipError::Invalid)
    }
}

/// Returns the position and the size of the list of entries.
fn find_directory(file: &mut (impl Read + Seek), length: u64) -> Result<(u64, u64), ZipError> {
    let tail_bytes = length.min((END_BYTES + MAX_COMMENT_BYTES) as u64);
    let tail_at = length - tail_bytes;
    let tail = read_at(file, tail_at, tail_bytes)?;
    let is_end = |at: &usize| Fields(&tail[*at..]).u32() == END;
    let last = tail.len().checked_sub(END_BYTES).ok_or(ZipError::Invalid)?;
    let at = (0..=last).rev().find(is_end).ok_or(ZipError::Invalid)?;
    let mut fields = Fields(&tail[at..]);
    fields.skip(10);
    let (count, size, offset) = (fields.u16(), fields.u32(), fields.u32());
    if count != COUNT_IN_ZIP64 && size != IN_ZIP64 && offset != IN_ZIP64 {
        return Ok((offset.into(), size.into()));
    }
    let locator = (tail_at + at as u64).checked_sub(ZIP64_LOCATOR_BYTES as u64);
    let Some(locator) = locator else {
        return Ok((offset.into(), size.into()));
    };
    let locator = read_at(file, locator, ZIP64_LOCATOR_BYTES as u64)?;
    let mut fields = Fields(&locator);
    if fields.u32() != ZIP64_LOCATOR {
        return Ok((offset.into(), size.into()));
    }
    fields.skip(4);
    let record = read_at(file, fields.u64(), ZIP64_END_BYTES as u64)?;
    let mut fields = Fields(&record);
    if fields.u32() != ZIP64_END {
        return Err(ZipError::Invalid);
    }
    fields.skip(36);
    let (size, offset) = (fields.u64(), fields.u64());
    Ok((offset, size))
}

fn parse_directory(directory: &[u8]) -> Result<Vec<Entry>, ZipError> {
    let (mut entries, mut rest) = (Vec::new(), directory);
    while rest.len() >= CENTRAL_HEADER_BYTES {
        let mut fields = Fields(rest);
        if fields.u32() != CENTRAL_HEADER {
            return Err(ZipError::Invalid);
        }
        fields.skip(4);
        let (flags, method) = (fields.u16(), fields.u16());
        fields.skip(4);
        let crc = fields.u32();
        let (compressed, size) = (fields.u32(), fields.u32());
        let [name, extra, comment] = [fields.u16(), fields.u16(), fields.u16()];
        fields.skip(8);
        let offset = fields.u32();
        let name = String::from_utf8_lossy(fields.bytes(name.into())).into_owned();
        let mut extra = Fields(fields.bytes(extra.into()));
        fields.skip(comment.into());
        rest = fields.0;
        let mut zip64 = Fields(&[]);
        while extra.0.len() >= 4 {
            let (id, length) = (extra.u16(), extra.u16());
            let data = extra.bytes(length.into());
            if id == ZIP64_EXTRA {
                zip64 = Fields(data);
            }
        }
        // The extra field has only those numbers that do not fit, in this order.
        let mut wide = |number: u32| match number {
            IN_ZIP64 => zip64.u64(),
            number => number.into(),
        };
        entries.push(Entry {
            name,
            flags,
            method,
            crc,
            size: wide(size),
            compressed: wide(compressed),
            offset: wide(offset),
        });
    }
    Ok(entries)
}
