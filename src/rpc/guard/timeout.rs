use std::time::Duration;

use http::HeaderMap;

/// Time limit of a call: its `grpc-timeout`, and at most `max`. A header that cannot be parsed
/// is ignored.
pub(super) fn of(headers: &HeaderMap, max: Duration) -> Duration {
    headers
        .get("grpc-timeout")
        .and_then(|value| parse(value.to_str().ok()?))
        .map_or(max, |timeout| timeout.min(max))
}

/// Parses at most eight digits and a unit, the format of gRPC over HTTP/2.
fn parse(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().last()?;
    let digits = &text[..unit_at];
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_format_of_grpc() {
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("1H"), Some(Duration::from_hours(1)));
        assert_eq!(parse("99999999S"), Some(Duration::from_secs(99_999_999)));
        for invalid in ["", "m", "1", "-1S", "1.5S", "123456789S", "1é", "1s"] {
            assert_eq!(parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn the_shorter_limit_applies() {
        let mut headers = HeaderMap::new();
        let max = Duration::from_secs(30);
        assert_eq!(of(&headers, max), max);
        headers.insert("grpc-timeout", "100m".parse().unwrap());
        assert_eq!(of(&headers, max), Duration::from_millis(100));
        headers.insert("grpc-timeout", "1M".parse().unwrap());
        assert_eq!(of(&headers, max), max);
    }
}
