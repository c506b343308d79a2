//! Records of the format, as APPNOTE.TXT of PKWARE describes them. Numbers are little-endian.

pub(crate) const LOCAL_HEADER: u32 = 0x0403_4b50;
pub(crate) const DATA_DESCRIPTOR: u32 = 0x0807_4b50;
pub(crate) const CENTRAL_HEADER: u32 = 0x0201_4b50;
pub(crate) const END: u32 = 0x0605_4b50;
pub(crate) const ZIP64_END: u32 = 0x0606_4b50;
pub(crate) const ZIP64_LOCATOR: u32 = 0x0706_4b50;

pub(crate) const LOCAL_HEADER_BYTES: usize = 30;
pub(crate) const CENTRAL_HEADER_BYTES: usize = 46;
pub(crate) const END_BYTES: usize = 22;
pub(crate) const ZIP64_END_BYTES: usize = 56;
pub(crate) const ZIP64_LOCATOR_BYTES: usize = 20;

/// Id of the extra field with sizes and offsets of 64 bits.
pub(crate) const ZIP64_EXTRA: u16 = 1;
/// Stands for a number that is in the extra field.
pub(crate) const IN_ZIP64: u32 = u32::MAX;
/// Stands for a number of entries that is in the Zip64 record.
pub(crate) const COUNT_IN_ZIP64: u16 = u16::MAX;

pub(crate) const STORED: u16 = 0;
pub(crate) const DEFLATED: u16 = 8;
/// Flag of an encrypted entry.
pub(crate) const ENCRYPTED: u16 = 1;
/// Flag of an entry whose sizes follow its data.
pub(crate) const HAS_DESCRIPTOR: u16 = 8;
/// Flag of a name in UTF-8.
pub(crate) const UTF8_NAME: u16 = 0x800;

/// Reads numbers from a record. A number beyond its end is 0.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn skip(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }

    /// The next bytes; fewer at the end of the record.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }
}
