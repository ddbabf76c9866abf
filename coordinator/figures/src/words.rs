//! Numbers as people say them: counts, durations, sizes, how long ago. Every rendering shares them.

use std::time::{Duration, UNIX_EPOCH};

/// The last second that RFC 3339 can write. What is beyond it came from a broken clock.
const YEAR_9999_UNIX_MS: u64 = 253_402_300_799_000;

/// `2026-12-31T23:59:59Z`.
#[must_use]
pub fn stamp(unix_ms: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms.min(YEAR_9999_UNIX_MS)));
    moment.map_or_else(String::new, |moment| humantime::format_rfc3339_seconds(moment).to_string())
}

/// The day of a moment: `2026-12-31`, of UTC.
#[must_use]
pub fn day(unix_ms: u64) -> String {
    stamp(unix_ms).chars().take(10).collect()
}

/// `12,345`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut said = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said
}

/// `1 test`, `2 tests`.
#[must_use]
pub fn plural(count: u64, one: &str) -> String {
    let number = thousands(count);
    if count == 1 { format!("{number} {one}") } else { format!("{number} {one}s") }
}

/// `1,203 passed, 2 failed`: what is not zero, or this where nothing is.
#[must_use]
pub fn tally(counts: &[(u64, &str)], nothing: &str) -> String {
    let there = counts.iter().filter(|(count, _)| *count > 0);
    let said: Vec<String> = there.map(|(count, name)| format!("{} {name}", thousands(*count))).collect();
    if said.is_empty() { nothing.to_owned() } else { said.join(", ") }
}

/// What lanes are busy with, as it follows each other.
pub const SPENT: [&str; 5] = ["rebases", "set-up", "runners' starts", "tests", "reports"];

/// `tests 61 %, runners' starts 24 %, rebases 15 %`, of microseconds by [`SPENT`]: the largest first, less than half a percent left out.
#[must_use]
pub fn spent(us: [u64; 5]) -> String {
    let total = us.iter().map(|us| *us as f64).sum::<f64>();
    let mut parts: Vec<(u64, &str)> = us.into_iter().zip(SPENT).collect();
    parts.sort_by_key(|(us, _)| std::cmp::Reverse(*us));
    let percent = |us: u64| if us == 0 { 0.0 } else { (us as f64 * 100.0 / total).round() };
    let there = parts.iter().filter(|(us, _)| percent(*us) >= 1.0);
    let said: Vec<String> = there.map(|(us, name)| format!("{name} {} %", percent(*us))).collect();
    if said.is_empty() { "nothing".to_owned() } else { said.join(", ") }
}

/// A duration in milliseconds, with the precision that a person uses at its size.
#[must_use]
pub fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {:02}s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{}h {:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A duration in whole seconds, for an estimate.
#[must_use]
pub fn seconds(s: u64) -> String {
    if s < 60 { format!("{s} s") } else { millis(s.saturating_mul(1_000)) }
}

/// A duration in microseconds: below 10 ms with a decimal.
#[must_use]
pub fn micros(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => millis(us / 1_000),
    }
}

/// `1.4 MB`, in powers of ten.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut tenths = bytes / 100;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1_000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How long ago, in the largest whole unit.
#[must_use]
pub fn ago(now_unix_ms: u64, then_unix_ms: u64) -> String {
    let seconds = now_unix_ms.saturating_sub(then_unix_ms) / 1_000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// The first 12 digits of a commit or a key.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lanes_were_busy_with_is_told_the_largest_first() {
        assert_eq!(spent([150, 0, 240, 606, 4]), "tests 61 %, runners' starts 24 %, rebases 15 %");
        assert_eq!((spent([0; 5]).as_str(), spent([u64::MAX; 5]).matches("20 %").count()), ("nothing", 5));
    }

    #[test]
    fn moments_end_with_the_calendar() {
        assert_eq!(stamp(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(stamp(u64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(day(1_700_000_000_000), "2023-11-14");
    }

    #[test]
    fn numbers_are_said_as_people_say_them() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(plural(1, "test"), "1 test");
        assert_eq!(plural(0, "test"), "0 tests");
        assert_eq!(millis(999), "999 ms");
        assert_eq!(millis(61_400), "1m 01s");
        assert_eq!(millis(1_450), "1.4 s");
        assert_eq!(millis(7_260_000), "2h 01m");
        assert_eq!(seconds(59), "59 s");
        assert_eq!(seconds(61), "1m 01s");
        assert_eq!(micros(1_250), "1.2 ms");
        assert_eq!(micros(612_345), "612 ms");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(999_999), "999.9 kB");
        assert_eq!(bytes(1_450_000), "1.4 MB");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
    }

    #[test]
    fn a_clock_behind_the_farm_does_not_underflow() {
        assert_eq!(ago(5, 10_000), "0 s ago");
        assert_eq!(ago(200_000, 10_000), "3 min ago");
    }

    #[test]
    fn short_survives_ids_that_are_not_ascii() {
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
        assert_eq!(short("aé"), "aé");
        assert_eq!(short("01234567890éx"), "01234567890éx");
    }
}
