//! Number literals of JSON texts.

/// Number of digits up to which every integer is a double.
const EXACT_DIGITS: usize = 15;

/// Whether a valid JSON text contains an integer that a double would round.
pub(super) fn has_rounded_integer(json: &str) -> bool {
    let mut bytes = json.bytes().enumerate();
    while let Some((start, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let length = bytes
                    .by_ref()
                    .take_while(|(_, byte)| {
                        matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
                    })
                    .count();
                if is_rounded(&json[start..=start + length]) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Whether a number literal is an integer that a double would round. An integer is also kept if it
/// is the shortest text of its double: JavaScript writes 2^60 as 1152921504606847000.
fn is_rounded(literal: &str) -> bool {
    let digits = literal.strip_prefix('-').unwrap_or(literal);
    if digits.len() <= EXACT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let double: f64 = literal.parse().unwrap_or(f64::NAN);
    double.to_string() != literal && format!("{double:.0}") != literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_that_a_double_rounds_are_found() {
        for literal in [
            "9007199254740993",
            "-9007199254740993",
            "1180000000000000123",
            "18446744073709551615",
            "100000000000000000000000000000000001",
            &format!("1{}1", "0".repeat(400)),
        ] {
            assert!(is_rounded(literal), "{literal}");
            assert!(has_rounded_integer(&format!(r#"{{"a":[1,{literal}]}}"#)));
            assert!(has_rounded_integer(&format!(r#"{{"\\\"":{literal} }}"#)));
            assert!(!has_rounded_integer(&format!(
                r#"{{"\"{literal}":"{literal}"}}"#
            )));
        }
        for literal in [
            "0",
            "-0",
            "9007199254740991",
            "9007199254740992",
            "-9007199254740992",
            "18014398509481984",
            "1152921504606846976",
            "1152921504606847000",
            "1000000000000000000000",
            "9007199254740993.0",
            "9007199254740993e0",
            "0.1000000000000000055511151231257827",
            "1e308",
        ] {
            assert!(
                !has_rounded_integer(&format!(r#"{{"a":{literal},"b":[{literal}]}}"#)),
                "{literal}"
            );
        }
    }
}
