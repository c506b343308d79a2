//! Number literals of JSON for values that are stored as doubles.

/// Number from which doubles do not represent every integer: 2^53.
const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;

/// Number of characters up to which a literal without an exponent is below [`FIRST_INEXACT`].
const EXACT_CHARS: usize = 15;

/// Number of significant digits that identify a double.
const IDENTIFYING_DIGITS: usize = 17;

/// Whether a double would round a JSON number whose magnitude is 2^53 or more, with or without a
/// fraction or an exponent. Smaller fractions are approximate by nature and not rounded in this
/// sense. Texts that are no numbers are not rounded.
///
/// A number is kept if its digits are those of the double's exact value or of its shortest text:
/// JavaScript writes 2^60 as 1152921504606847000. One with a fraction or an exponent is also kept
/// if it has the 17 digits with which many programs write doubles.
pub fn is_rounded(literal: &str) -> bool {
    let has_exponent = || literal.bytes().any(|byte| byte.eq_ignore_ascii_case(&b'e'));
    if literal.len() <= EXACT_CHARS && !has_exponent() {
        return false;
    }
    let double: f64 = literal.parse().unwrap_or(f64::NAN);
    if !double.is_finite() || double.abs() < FIRST_INEXACT {
        return false;
    }
    let digits = significant_digits(literal);
    let has = |text: String| significant_digits(&text) == digits;
    let is_float = literal.contains(['.', 'e', 'E']);
    let is_printed_float = || {
        let after_first = IDENTIFYING_DIGITS - 1;
        is_float && has(format!("{double:.after_first$e}"))
    };
    // The exact value is the slowest to compute.
    !(has(format!("{double:e}")) || is_printed_float() || has(format!("{double:.0}")))
}

/// Digits of a number without its sign, point and exponent, and without zeros at either end.
fn significant_digits(number: &str) -> String {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.chars().filter(char::is_ascii_digit);
    let digits: String = digits.collect();
    digits.trim_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_2_53_with_digits_that_a_double_has_not_are_rounded() {
        for literal in [
            "9007199254740993",
            "-9007199254740993",
            "1180000000000000123",
            "18446744073709551615",
            "100000000000000000000000000000000001",
            &format!("1{}1", "0".repeat(300)),
            "1180000000000000123.0",
            "-1180000000000000123.000",
            "1180000000000000123e0",
            "1180000000000000123E+0",
            "118000000000000012.3e1",
            "1.180000000000000123e18",
            "0.001180000000000000123e21",
            "11800000000000001230e-1",
            "9007199254740993.0",
            "9007199254740992.5",
            "9.007199254740993e15",
        ] {
            assert!(is_rounded(literal), "{literal}");
        }
    }

    #[test]
    fn numbers_that_a_double_represents_or_approximates_are_not_rounded() {
        for literal in [
            "0",
            "-0",
            "-0.0e5",
            "9007199254740991",
            "9007199254740992",
            "-9007199254740992.0",
            "9007199254740992e0",
            "18014398509481984",
            "1152921504606846976",
            "1152921504606846976.0",
            "1152921504606847000",
            "1152921504606847000.0",
            "1.152921504606847e18",
            "1000000000000000000000",
            "0.1000000000000000055511151231257827",
            "1234567.1234567890123456789",
            "4503599627370497.3",
            "1e308",
            "1.7976931348623157e308",
            "1.7976931348623157E+308",
            "9.9999999999999992e+22",
            "1e-400",
            "true",
            "null",
            "",
        ] {
            assert!(!is_rounded(literal), "{literal}");
        }
    }

    #[test]
    fn every_form_in_which_a_program_writes_a_double_is_kept() {
        let mut bits: u64 = 0x4340_0000_0000_0001;
        for _ in 0..2_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let double = f64::from_bits(bits);
            if !double.is_finite() {
                continue;
            }
            for text in [
                format!("{double}"),
                format!("{double:e}"),
                format!("{double:.16e}"),
                format!("{double:.0}"),
                format!("{double:.3}"),
            ] {
                assert!(!is_rounded(&text), "{text}");
            }
        }
    }
}
