//! How templates write numbers, moments and names. Each is a filter: `{{ run.wall_ms|ms_or }}`.

#![allow(unused_braces, unreachable_pub, reason = "askama's macro makes items of its own around each body")]

use andon_figures::{text, words};
use askama::{Result, Values};

/// What stands where nothing is known.
const NOTHING: &str = "–";

/// `1.4 s`.
#[askama::filter_fn]
pub(crate) fn ms(ms: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::millis(*ms))
}

/// The same, or a dash.
#[askama::filter_fn]
pub(crate) fn ms_or(ms: &Option<u64>, _: &dyn Values) -> Result<String> {
    Ok(ms.map_or_else(|| NOTHING.to_owned(), words::millis))
}

/// Of a number with decimals.
#[askama::filter_fn]
pub(crate) fn ms_of(ms: &f64, _: &dyn Values) -> Result<String> {
    Ok(words::millis(whole(*ms)))
}

/// Microseconds.
#[askama::filter_fn]
pub(crate) fn us(us: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::micros(*us))
}

/// The same, or a dash.
#[askama::filter_fn]
pub(crate) fn us_or(us: &Option<u64>, _: &dyn Values) -> Result<String> {
    Ok(us.map_or_else(|| NOTHING.to_owned(), words::micros))
}

/// `1.4 MB`.
#[askama::filter_fn]
pub(crate) fn size(bytes: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::bytes(*bytes))
}

/// The same, or a dash.
#[askama::filter_fn]
pub(crate) fn size_or(bytes: &Option<u64>, _: &dyn Values) -> Result<String> {
    Ok(bytes.map_or_else(|| NOTHING.to_owned(), words::bytes))
}

/// `12,345`.
#[askama::filter_fn]
pub(crate) fn num<T: Copy + Into<u64>>(number: &T, _: &dyn Values) -> Result<String> {
    Ok(words::thousands((*number).into()))
}

/// Tests a minute, or a dash.
#[askama::filter_fn]
pub(crate) fn rate_or(rate: &Option<f64>, _: &dyn Values) -> Result<String> {
    Ok(rate.map_or_else(|| NOTHING.to_owned(), decimal))
}

/// `1m 01s` of seconds with decimals.
#[askama::filter_fn]
pub(crate) fn seconds(seconds: &f64, _: &dyn Values) -> Result<String> {
    Ok(words::millis(whole(seconds * 1_000.0)))
}

/// `1.2 %` of a share from 0 to 1.
#[askama::filter_fn]
pub(crate) fn percent(share: &f64, _: &dyn Values) -> Result<String> {
    Ok(format!("{} %", decimal(share * 100.0)))
}

/// `2026-11-22T04:55:00Z`.
#[askama::filter_fn]
pub(crate) fn stamp(unix_ms: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::stamp(*unix_ms))
}

/// `04:55:00`.
#[askama::filter_fn]
pub(crate) fn clock(unix_ms: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::stamp(*unix_ms).chars().skip(11).take(8).collect())
}

/// A number for a chart; nothing where nothing is known.
#[askama::filter_fn]
pub(crate) fn plain(number: &Option<f64>, _: &dyn Values) -> Result<String> {
    Ok(number.map_or_else(String::new, |number| format!("{number:.2}")))
}

/// The same of milliseconds, in seconds.
#[askama::filter_fn]
pub(crate) fn plain_s(ms: &Option<u64>, _: &dyn Values) -> Result<String> {
    Ok(ms.map_or_else(String::new, |ms| format!("{}.{:03}", ms / 1_000, ms % 1_000)))
}

/// The same of a whole number.
#[askama::filter_fn]
pub(crate) fn plain_u(number: &Option<u64>, _: &dyn Values) -> Result<String> {
    Ok(number.map_or_else(String::new, |number| number.to_string()))
}

/// `2026-11-22`.
#[askama::filter_fn]
pub(crate) fn day(unix_ms: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::day(*unix_ms))
}

/// `3 min ago`.
#[askama::filter_fn]
pub(crate) fn ago(unix_ms: &u64, _: &dyn Values, now_unix_ms: &u64) -> Result<String> {
    Ok(words::ago(*now_unix_ms, *unix_ms))
}

/// The first digits of a commit or a key.
#[askama::filter_fn]
pub(crate) fn short(id: &str, _: &dyn Values) -> Result<String> {
    Ok(text::cut(words::short(id), 40))
}

/// At most so many characters, with an ellipsis.
#[askama::filter_fn]
pub(crate) fn cut<T: AsRef<str>>(name: T, _: &dyn Values, chars_max: usize) -> Result<String> {
    Ok(text::cut(name.as_ref(), chars_max))
}

/// A branch without `refs/heads/`.
#[askama::filter_fn]
pub(crate) fn branch(git_ref: &str, _: &dyn Values) -> Result<String> {
    let short = git_ref.strip_prefix("refs/heads/").or_else(|| git_ref.strip_prefix("refs/"));
    Ok(short.unwrap_or(git_ref).to_owned())
}

/// One decimal below ten, none above.
fn decimal(number: f64) -> String {
    if number < 9.95 { format!("{number:.1}") } else { words::thousands(whole(number)) }
}

/// Saturates.
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_shortly_and_never_break() {
        assert_eq!(
            (decimal(0.04), decimal(9.94), decimal(12_345.6)),
            ("0.0".into(), "9.9".into(), "12,346".into())
        );
        assert_eq!((whole(f64::NAN), whole(-1.0)), (0, 0));
    }
}
