//! Zip files, read and written entry by entry, so that memory does not grow with an entry. Files and
//! entries of more than 4 GiB are supported (Zip64); encryption and other compressions than deflate
//! are not.

mod reader;
mod records;
mod writer;

pub use self::{
    reader::{EntryReader, ZipError, ZipReader},
    writer::ZipWriter,
};

#[cfg(test)]
mod tests;
