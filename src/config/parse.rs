//! Parsers of values. Their errors state what is valid; the caller adds the name.

use std::{fmt, ops::RangeInclusive, path::Path, path::PathBuf, str::FromStr, time::Duration};

/// The longest duration that a setting may have.
const YEAR: Duration = Duration::from_hours(366 * 24);

/// The shortest duration that a setting may have.
const MILLISECOND: Duration = Duration::from_millis(1);

/// Range of the maximum lag of reads.
const MIN_LAG: Duration = Duration::from_millis(100);
const MAX_LAG: Duration = Duration::from_mins(1);

/// Returns a parser of integers within a range.
pub(super) fn integer<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: Clone + FromStr + PartialOrd + fmt::Display + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!(
                "must be an integer from {} to {}",
                range.start(),
                range.end()
            )
        })
    }
}

/// Parses `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "must be true or false")
}

/// Parses a duration in seconds, which may be a fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, &'static str> {
    duration(text, 1.0).ok_or("must be a number of seconds from 0.001 to 31622400 (a year)")
}

/// Parses the maximum lag of reads, in seconds.
pub(super) fn lag(text: &str) -> Result<Duration, &'static str> {
    let lag = duration(text, 1.0);
    lag.filter(|lag| (MIN_LAG..=MAX_LAG).contains(lag))
        .ok_or("must be a number of seconds from 0.1 to 60")
}

/// Parses a duration in minutes, which may be a fraction.
pub(super) fn minutes(text: &str) -> Result<Duration, &'static str> {
    duration(text, 60.0).ok_or("must be a number of minutes above 0 and at most 527040 (a year)")
}

fn duration(text: &str, unit_in_seconds: f64) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    let duration = Duration::try_from_secs_f64(number * unit_in_seconds).ok()?;
    (MILLISECOND..=YEAR).contains(&duration).then_some(duration)
}

/// Returns `None` for an empty text, which counts as unset.
pub(super) fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Returns `None` for an empty path, which counts as unset.
pub(super) fn non_empty_path(path: Option<&Path>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
        .map(Path::to_owned)
}
