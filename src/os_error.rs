//! Error texts of the operating system, for messages to operators.

use std::io::{self, ErrorKind};

/// Describes an I/O error in lower case and without its number, as the end of a sentence:
/// "permission denied".
pub(crate) fn describe(error: &io::Error) -> String {
    if error.raw_os_error().is_some() && error.kind() == ErrorKind::AddrInUse {
        return "address in use".to_owned();
    }
    let text = error.to_string();
    let text = match text.rsplit_once(" (os error ") {
        Some((text, number)) if number.ends_with(')') => text,
        _ => &text,
    };
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_errors_without_their_number() {
        let error = |number| describe(&io::Error::from_raw_os_error(number));
        assert_eq!(error(13), "permission denied");
        assert_eq!(error(2), "no such file or directory");
        assert_eq!(error(98), "address in use");
        let custom = io::Error::new(ErrorKind::AddrInUse, "in use by a process");
        assert_eq!(describe(&custom), "in use by a process");
    }
}
