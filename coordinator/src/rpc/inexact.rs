//! Stands that were not exact, from and to the wire. What a worker says is cut to size here.

use andon_core::ids::{LaneIx, RunId};
use andon_core::inexact::{Inexact, InexactPart};
use andon_proto as wire;

use crate::store::InexactRow;

/// So many parts are kept; the others are counted.
const PARTS_MAX: usize = 32;
/// The longest path, command or description, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// The longest name, key or id, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// `None` where it has no id: it could not be known again.
pub(super) fn heard(told: wire::Inexact) -> Option<Inexact> {
    let wire::Inexact { id, lane, run, suite, baseline_key, driver, deep, mut parts, left_out, unix_ms } =
        told;
    if id.is_empty() || id.len() > NAME_BYTES_MAX {
        return None;
    }
    let dropped = parts.len().saturating_sub(PARTS_MAX) as u64;
    parts.truncate(PARTS_MAX);
    let part = |part: wire::InexactPart| InexactPart {
        place: cut(part.r#where, NAME_BYTES_MAX),
        what: cut(part.what, TEXT_BYTES_MAX),
        difference: cut(part.difference, TEXT_BYTES_MAX),
    };
    Some(Inexact {
        id,
        lane: LaneIx(lane),
        run: (run > 0).then_some(RunId(run)),
        suite: cut(suite, NAME_BYTES_MAX),
        baseline_key: cut(baseline_key, NAME_BYTES_MAX),
        driver: cut(driver, NAME_BYTES_MAX),
        deep,
        parts: parts.into_iter().map(part).collect(),
        left_out: left_out.saturating_add(dropped),
        found_unix_ms: unix_ms,
    })
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

pub(super) fn told(row: InexactRow) -> wire::InexactTold {
    let InexactRow { worker, number, inexact } = row;
    let Inexact { id, lane, run, suite, baseline_key, driver, deep, parts, left_out, found_unix_ms } =
        inexact;
    let part =
        |InexactPart { place, what, difference }| wire::InexactPart { r#where: place, what, difference };
    let inexact = wire::Inexact {
        id,
        lane: lane.0,
        run: run.map_or(0, |run| run.0),
        suite,
        baseline_key,
        driver,
        deep,
        parts: parts.into_iter().map(part).collect(),
        left_out,
        unix_ms: found_unix_ms,
    };
    wire::InexactTold { worker: worker.0, number, inexact: Some(inexact) }
}

/// For the log of the run whose unit was on the stand last.
pub(crate) fn in_words(inexact: &Inexact) -> String {
    let what = inexact.parts.first().map_or_else(String::new, |part| {
        let more = inexact.parts.len() as u64 - 1 + inexact.left_out;
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        format!(": {} `{}` {}{more}", part.place, part.what, part.difference)
    });
    format!("lane {} was not exact after it was put back, and is rebuilt{what}", inexact.lane.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_tells_is_cut_to_size_and_what_cannot_be_known_again_is_dropped() {
        let part = wire::InexactPart { what: "ä".repeat(4_096), ..wire::InexactPart::default() };
        let told =
            wire::Inexact { id: "1".into(), parts: vec![part; 40], left_out: 2, ..wire::Inexact::default() };
        assert_eq!(heard(wire::Inexact { id: String::new(), ..told.clone() }), None);
        let kept = heard(told).unwrap();
        assert_eq!((kept.parts.len(), kept.left_out), (PARTS_MAX, 10));
        assert!(kept.parts.iter().all(|part| part.what.len() <= TEXT_BYTES_MAX));
        assert!(in_words(&kept).ends_with("(and 41 more)"), "{}", in_words(&kept));
    }
}
