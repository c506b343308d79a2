use std::io::{self, Write};

use serde_json::ser::{CompactFormatter, Formatter};

/// Limit below which a floating-point number represents every whole number exactly.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Formatter that writes whole numbers without ".0": JSON has only one number type, and a
/// caller expects the number 1 in its metadata to be returned as 1.
pub(super) struct PlainNumbers;

impl Formatter for PlainNumbers {
    #[expect(clippy::cast_possible_truncation, reason = "exact below 2^53")]
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let is_whole = value.fract() == 0.0 && value.abs() < MAX_EXACT;
        if is_whole && (value != 0.0 || value.is_sign_positive()) {
            CompactFormatter.write_i64(writer, value as i64)
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}
