use chrono::{DateTime, Datelike as _, Utc};

use super::InvalidValue;

/// Parses a time that is given as seconds and nanoseconds since the Unix epoch.
///
/// # Errors
///
/// Fails with [`InvalidValue`] unless the year is 1 to 9999 and `nanos` is below one second.
pub fn from_unix_time(seconds: i64, nanos: i32) -> Result<DateTime<Utc>, InvalidValue> {
    const NANOS_PER_SECOND: u32 = 1_000_000_000;
    // chrono interprets more than a second of nanoseconds as a leap second.
    let nanos = u32::try_from(nanos).ok();
    let time = nanos
        .filter(|nanos| *nanos < NANOS_PER_SECOND)
        .and_then(|nanos| DateTime::from_timestamp(seconds, nanos));
    validate_year(time)
}

/// Parses a time in the format of RFC 3339.
///
/// # Errors
///
/// Fails with [`InvalidValue`] if the text is not in this format, or the year in UTC is not 1 to
/// 9999.
pub fn from_rfc3339(text: &str) -> Result<DateTime<Utc>, InvalidValue> {
    let time = DateTime::parse_from_rfc3339(text);
    let time = time.map_err(|_| InvalidValue::new("must be a time in RFC 3339 format"))?;
    validate_year(Some(time.to_utc()))
}

/// Truncates a time to microseconds, the precision of both stores.
pub fn to_micros(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// Rejects times outside of the years that protobuf's Timestamp, RFC 3339 and both stores
/// support.
fn validate_year(time: Option<DateTime<Utc>>) -> Result<DateTime<Utc>, InvalidValue> {
    time.map(to_micros)
        .filter(|time| (1..=9999).contains(&time.year()))
        .ok_or_else(|| InvalidValue::new("must be a time of the years 1 to 9999"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_years_1_to_9999() {
        const FIRST: i64 = -62_135_596_800;
        const LAST: i64 = 253_402_300_799;
        for (seconds, nanos, is_valid) in [
            (FIRST, 0, true),
            (FIRST - 1, 999_999_999, false),
            (LAST, 999_999_999, true),
            (LAST + 1, 0, false),
            (0, -1, false),
            (0, 1_000_000_000, false),
            (59, 1_500_000_000, false),
            (i64::MAX, 0, false),
        ] {
            let time = from_unix_time(seconds, nanos);
            assert_eq!(time.is_ok(), is_valid, "{seconds} {nanos}");
        }
        for (text, is_valid) in [
            ("0001-01-01T00:00:00Z", true),
            ("0001-01-01T00:00:00+01:00", false),
            ("9999-12-31T23:59:59.9999999Z", true),
            ("9999-12-31T23:59:59-01:00", false),
            ("0000-12-31T00:00:00Z", false),
            ("2027-01-15", false),
        ] {
            assert_eq!(from_rfc3339(text).is_ok(), is_valid, "{text}");
        }
    }

    #[test]
    fn truncates_to_microseconds() {
        let time = from_unix_time(-1, 999_999_999).unwrap();
        assert_eq!(time.timestamp_micros(), -1);
        assert_eq!(
            time,
            from_rfc3339("1969-12-31T23:59:59.999999999Z").unwrap()
        );
    }
}
