//! Number literals of JSON texts.

use json_numbers::is_rounded;

/// Whether a valid JSON text contains a number that [`is_rounded`].
pub(super) fn has_rounded_number(json: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_outside_of_strings() {
        for literal in [
            "9007199254740993",
            "-1180000000000000123.0",
            "1180000000000000123e0",
        ] {
            assert!(has_rounded_number(&format!(r#"{{"a":[1,{literal}]}}"#)));
            assert!(has_rounded_number(&format!(r#"{{"\\\"":{literal} }}"#)));
            assert!(!has_rounded_number(&format!(
                r#"{{"\"{literal}":"{literal}"}}"#
            )));
        }
        for literal in [
            "0",
            "1152921504606847000",
            "0.1000000000000000055511151231257827",
        ] {
            let json = format!(r#"{{"a":{literal},"b":[{literal}]}}"#);
            assert!(!has_rounded_number(&json), "{literal}");
        }
    }
}
