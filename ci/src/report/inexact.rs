//! `andon drift --inexact`: stands that were put back and were not what their baseline says.

use andon_proto::{InexactPart, InexactTold};
use serde::Serialize;

use super::text::{cut, one_line};
use super::words;

/// Longest command or path shown in a line.
const WHAT_CHARS_MAX: usize = 160;

/// One of them, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(crate) struct InexactJson<'a> {
    worker: &'a str,
    /// Counted for each worker, from 1.
    number: u64,
    lane: u32,
    /// Whose unit was on the stand last; null for none.
    run: Option<u64>,
    suite: Option<&'a str>,
    baseline_key: &'a str,
    driver: &'a str,
    deep: bool,
    found_unix_ms: u64,
    parts: Vec<PartJson<'a>>,
    left_out: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct PartJson<'a> {
    place: &'a str,
    what: &'a str,
    difference: &'a str,
}

pub(crate) fn json(told: &InexactTold) -> Option<InexactJson<'_>> {
    let inexact = told.inexact.as_ref()?;
    Some(InexactJson {
        worker: &told.worker,
        number: told.number,
        lane: inexact.lane,
        run: (inexact.run > 0).then_some(inexact.run),
        suite: (!inexact.suite.is_empty()).then_some(&inexact.suite),
        baseline_key: &inexact.baseline_key,
        driver: &inexact.driver,
        deep: inexact.deep,
        found_unix_ms: inexact.unix_ms,
        parts: inexact.parts.iter().map(part_json).collect(),
        left_out: inexact.left_out,
    })
}

pub(crate) fn part_json(part: &InexactPart) -> PartJson<'_> {
    PartJson { place: &part.r#where, what: &part.what, difference: &part.difference }
}

/// For a person.
pub(crate) fn lines(told: &[InexactTold], now_unix_ms: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for one in told {
        let Some(inexact) = &one.inexact else { continue };
        let whose = match inexact.run {
            0 => String::new(),
            run => format!(", after run {run} suite {}", one_line(&inexact.suite)),
        };
        lines.push(format!(
            "{} lane {}: {} of baseline {}{whose}, {}",
            one_line(&one.worker),
            inexact.lane,
            one_line(&inexact.driver),
            one_line(words::short(&inexact.baseline_key)),
            words::ago(now_unix_ms, inexact.unix_ms),
        ));
        lines.extend(parts(&inexact.parts, inexact.left_out));
    }
    if lines.is_empty() {
        lines.push("every rebase was exact".to_owned());
    }
    lines
}

/// What differed, a line each.
pub(crate) fn parts(parts: &[InexactPart], left_out: u64) -> Vec<String> {
    let line = |part: &InexactPart| {
        let what = if part.what.is_empty() { "." } else { &part.what };
        let (what, difference) = (cut(what, WHAT_CHARS_MAX), cut(&part.difference, WHAT_CHARS_MAX));
        format!("    {}: {what} {difference}", one_line(&part.r#where))
    };
    let mut lines: Vec<String> = parts.iter().map(line).collect();
    if left_out > 0 {
        lines.push(format!("    and {left_out} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::Inexact;

    #[test]
    fn what_was_not_exact_is_told_by_worker_lane_and_path_and_no_escape_reaches_the_terminal() {
        let part = |what: &str| InexactPart {
            r#where: "volume/data".into(),
            what: what.into(),
            difference: "has other contents".into(),
        };
        let inexact = Inexact {
            lane: 1,
            run: 7,
            suite: "it".into(),
            baseline_key: "b1946ac92492d2347c6235b4d2611184".into(),
            driver: "restart".into(),
            parts: vec![part("ibdata1"), part("a\u{1b}[31m")],
            left_out: 3,
            unix_ms: 1_000,
            ..Inexact::default()
        };
        let told = [InexactTold { worker: "w0".into(), number: 1, inexact: Some(inexact) }];
        insta::assert_snapshot!(lines(&told, 61_000).join("\n"), @r"
        w0 lane 1: restart of baseline b1946ac92492, after run 7 suite it, 1 min ago
            volume/data: ibdata1 has other contents
            volume/data: a\x1b[31m has other contents
            and 3 more
        ");
        assert_eq!(lines(&[], 0), ["every rebase was exact"]);
        assert_eq!(serde_json::to_value(json(&told[0])).unwrap()["parts"][0]["what"], "ibdata1");
    }
}
