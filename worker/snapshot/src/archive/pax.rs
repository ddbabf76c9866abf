//! Records of a pax extended header: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
//!
//! Written here because values are bytes (capabilities, ACLs and overlay's attributes hold newlines and NULs), which
//! readers that split at newlines do not survive. Must not know: trees.

use crate::tree::Stamp;

/// Appends one record.
pub(super) fn push(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    // The length counts its own digits: grow it until it is right.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// A record's key and value.
pub(super) type Record<'a> = (&'a str, &'a [u8]);

/// All records; `None` where one is malformed.
pub(super) fn parse(mut rest: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut records = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((std::str::from_utf8(&record[..equals]).ok()?, &record[equals + 1..]));
        rest = &rest[length..];
    }
    Some(records)
}

/// A time as pax writes it: decimal seconds, negative before the epoch.
pub(super) fn time(Stamp(secs, nanos): Stamp) -> String {
    if secs < 0 && nanos > 0 {
        format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos)
    } else {
        format!("{secs}.{nanos:09}")
    }
}

/// Reads what `time` wrote, and shorter fractions.
pub(super) fn parse_time(text: &str) -> Option<Stamp> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty()
        || fraction.len() > 9
        || !(whole.bytes().chain(fraction.bytes())).all(|c| c.is_ascii_digit())
    {
        return None;
    }
    let secs: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => Stamp(secs, nanos),
        (true, 0) => Stamp(-secs, 0),
        (true, _) => Stamp(-secs - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_has_the_length_that_posix_gives_for_it() {
        let mut records = Vec::new();
        push(&mut records, "path", b"abc");
        assert_eq!(records, b"12 path=abc\n");
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [&b"12 path=abc"[..], b"3 a\n", b"99 path=abc\n", b"x path=abc\n", b"0 a=b\n", b"5 a=b\n9"]
        {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn records_with_any_bytes_survive(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5)) {
            let mut records = Vec::new();
            for value in &values {
                push(&mut records, "SCHILY.xattr.user.x", value);
            }
            let back = parse(&records).unwrap();
            prop_assert_eq!(back.iter().map(|(_, value)| value.to_vec()).collect::<Vec<_>>(), values);
        }

        #[test]
        fn times_survive(secs in -1_000_000_000_000i64..1_000_000_000_000, nanos in 0u32..1_000_000_000) {
            prop_assert_eq!(parse_time(&time(Stamp(secs, nanos))), Some(Stamp(secs, nanos)));
        }
    }
}
