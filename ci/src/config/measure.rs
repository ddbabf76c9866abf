//! Durations and sizes as people write them: `60s`, `1m30s`, `500ms`; `64m`, `1g`.

use std::time::Duration;

/// Units of [`duration`], for messages.
pub(crate) const DURATION_FORM: &str = "a duration such as \"500ms\", \"60s\", \"1m30s\" or \"2h\"";
/// Units of [`bytes`], for messages.
pub(crate) const BYTES_FORM: &str = "a size such as 65536, \"64k\", \"64m\" or \"1g\"";
/// What [`cpu_millis`] takes, for messages.
pub(crate) const CPUS_FORM: &str = "a number of processors from 0.01 to 1024, such as 2 or 0.5";

/// Longest text that is looked at.
const TEXT_MAX: usize = 32;

/// `1h5m30s20ms`: whole numbers or decimals, each with its unit, largest first or not.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() || rest.len() > TEXT_MAX {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_ns: f64 = match unit {
            "ns" => 1.0,
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(number * unit_ns / 1e9).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

/// A number of bytes, with `b`, `k`/`kb`, `m`/`mb`, `g`/`gb` in powers of 1024 as Docker reads them.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() > TEXT_MAX {
        return None;
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A number of processors, in thousandths.
pub(crate) fn cpu_millis(text: &str) -> Option<u64> {
    let cpus: f64 = Some(text.trim()).filter(|text| text.len() <= TEXT_MAX)?.parse().ok()?;
    // Within these bounds a cast is exact enough.
    (0.01..=1024.0).contains(&cpus).then(|| (cpus * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let cases = [
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1h5m30s20ms", 3_930_020),
            ("1.5s", 1500),
            (" 2m ", 120_000),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_or_sense_is_refused() {
        for text in ["", "60", "s", "-1s", "1 s", "1x", "1..2s", "99999999999999999999999h", "1s2", "٣s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024_and_do_not_overflow() {
        assert_eq!(bytes("64m"), Some(64 << 20));
        assert_eq!(bytes("1GB"), Some(1 << 30));
        assert_eq!(bytes("512"), Some(512));
        for text in ["", "m", "-1", "1t", "99999999999999999999", "99999999999999g"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
