//! Reports that the coordinator has not acknowledged yet. Pure.
//!
//! Invariants: order is kept; what is numbered carries the number under which it was last sent, and numbers grow from
//! front to back, so an acknowledgement is always a prefix.

use std::collections::VecDeque;

use andon_proto::report::Body;
use andon_proto::{Lease, Report, WorkFailed, WorkerMessage, work_failed, worker_message};
use prost::Message;

/// So many reports may wait for acknowledgement; then no more work is taken, and no more results from the crew.
pub(crate) const UNACKED_MAX: usize = 10_000;
/// So many bytes of them.
pub(crate) const UNACKED_BYTES_MAX: usize = 64 << 20;
/// The largest report that is sent whole; the coordinator takes messages of 64 MiB.
pub(crate) const REPORT_BYTES_MAX: usize = 48 << 20;
/// The longest notice; the rest is cut.
const NOTICE_BYTES_MAX: usize = 2_048;
/// What is kept of a message or reason that makes its report too large.
const REASON_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
struct Entry {
    /// Absent while there is no session.
    seq: Option<u64>,
    report: Report,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Outbox {
    /// True where nothing more should be taken on until acknowledgements come.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= UNACKED_MAX || self.bytes >= UNACKED_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a report; with a number, also answers with the message to send now.
    pub(crate) fn push(&mut self, lease: Lease, body: Body, seq: Option<u64>) -> Option<WorkerMessage> {
        let report = Report { lease: Some(lease), body: Some(fitting(body)) };
        let bytes = report.encoded_len();
        self.bytes += bytes;
        let message = seq.map(|seq| message(seq, &report));
        self.entries.push_back(Entry { seq, report, bytes });
        message
    }

    /// Everything up to `seq` is durable.
    pub(crate) fn acknowledge(&mut self, seq: u64) {
        while self.entries.front().and_then(|entry| entry.seq).is_some_and(|sent| sent <= seq) {
            let entry = self.entries.pop_front().expect("looked at just now");
            self.bytes -= entry.bytes;
        }
    }

    /// The session is gone: nothing has a valid number, and notices are not worth sending again.
    pub(crate) fn disconnected(&mut self) {
        self.retain(|report| !matches!(report.body, Some(Body::Notice(_))));
        for entry in &mut self.entries {
            entry.seq = None;
        }
    }

    /// Everything again, in order, under new numbers.
    ///
    /// New, because the `Hello` before it has a number too: were the old ones kept, the acknowledgement of the `Hello`
    /// would count for reports that the coordinator may never have seen.
    pub(crate) fn renumbered(&mut self, mut next: impl FnMut() -> u64) -> Vec<WorkerMessage> {
        let again = self.entries.iter_mut().map(|entry| {
            let seq = next();
            entry.seq = Some(seq);
            message(seq, &entry.report)
        });
        again.collect()
    }

    /// Drops what is reported of a lease. A footprint stays: it is about attempts that have ended, and is void by
    /// itself where they have not.
    pub(crate) fn forget(&mut self, lease: Lease) {
        self.retain(|report| report.lease != Some(lease) || matches!(report.body, Some(Body::Footprint(_))));
    }

    /// Leases of which something decisive is not acknowledged, in order, each once.
    pub(crate) fn open_leases(&self) -> Vec<Lease> {
        let mut open = Vec::new();
        for entry in &self.entries {
            if matches!(
                entry.report.body,
                Some(Body::Footprint(_) | Body::Notice(_) | Body::Output(_) | Body::Artifacts(_))
            ) {
                continue;
            }
            if let Some(lease) = entry.report.lease.filter(|lease| !open.contains(lease)) {
                open.push(lease);
            }
        }
        open
    }

    fn retain(&mut self, keep: impl Fn(&Report) -> bool) {
        self.entries.retain(|entry| keep(&entry.report));
        self.bytes = self.entries.iter().map(|entry| entry.bytes).sum();
    }
}

fn message(seq: u64, report: &Report) -> WorkerMessage {
    WorkerMessage { seq, body: Some(worker_message::Body::Report(report.clone())) }
}

/// Cuts what the coordinator would refuse: a message that breaks the session each time it is sent would never end.
fn fitting(mut body: Body) -> Body {
    if let Body::Notice(text) = &mut body {
        text.truncate(text.floor_char_boundary(NOTICE_BYTES_MAX));
    }
    if body.encoded_len() <= REPORT_BYTES_MAX {
        return body;
    }
    let short = |text: &mut String| {
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
        text.push_str("\n(cut: the report was too large to send; its log is left out)");
    };
    match &mut body {
        Body::TestResult(result) => {
            result.log_zstd = Vec::new();
            short(&mut result.message);
        }
        Body::WorkFailed(failed) => {
            failed.log_zstd = Vec::new();
            short(&mut failed.reason);
        }
        Body::Discovered(found) => {
            found.log_zstd = Vec::new();
            if body.encoded_len() > REPORT_BYTES_MAX {
                return too_large(work_failed::Class::Config, "the list of discovered tests");
            }
        }
        Body::BaselineReady(_) => return too_large(work_failed::Class::Baseline, "the baseline's manifest"),
        Body::UnitEnded(_) | Body::Footprint(_) | Body::Notice(_) | Body::Output(_) | Body::Artifacts(_) => {}
    }
    body
}

fn too_large(class: work_failed::Class, what: &str) -> Body {
    let reason = format!("{what} is larger than {} MiB", REPORT_BYTES_MAX >> 20);
    Body::WorkFailed(WorkFailed { class: class.into(), reason, log_zstd: Vec::new() })
}

#[cfg(test)]
mod tests {
    use andon_proto::{Discovered, Footprint, TestResult, UnitEnded};

    use super::*;

    fn lease(fence: u64) -> Lease {
        Lease { run: 1, lease: fence, fence }
    }

    fn seqs(messages: &[WorkerMessage]) -> Vec<u64> {
        messages.iter().map(|message| message.seq).collect()
    }

    #[test]
    fn an_acknowledgement_takes_a_prefix_and_its_bytes() {
        let mut outbox = Outbox::default();
        for seq in [3, 4, 7] {
            outbox.push(lease(1), Body::UnitEnded(UnitEnded {}), Some(seq));
        }
        outbox.acknowledge(5);
        let mut next = 10..;
        assert_eq!(seqs(&outbox.renumbered(|| next.next().unwrap())), [10]);
        outbox.acknowledge(10);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn after_a_lost_session_old_numbers_acknowledge_nothing_and_notices_are_gone() {
        let mut outbox = Outbox::default();
        outbox.push(lease(1), Body::Notice("building".into()), Some(2));
        outbox.push(lease(1), Body::UnitEnded(UnitEnded {}), Some(3));
        outbox.disconnected();
        outbox.acknowledge(9);
        let mut next = 10..;
        assert_eq!(seqs(&outbox.renumbered(|| next.next().unwrap())), [10]);
    }

    #[test]
    fn a_forgotten_lease_leaves_only_its_footprint() {
        let mut outbox = Outbox::default();
        outbox.push(lease(1), Body::TestResult(TestResult::default()), None);
        outbox.push(lease(1), Body::Footprint(Footprint::default()), None);
        outbox.push(lease(2), Body::UnitEnded(UnitEnded {}), None);
        assert_eq!(outbox.open_leases(), [lease(1), lease(2)]);
        outbox.forget(lease(1));
        assert_eq!(outbox.open_leases(), [lease(2)]);
        assert_eq!(outbox.entries.len(), 2);
    }

    #[test]
    fn it_is_full_by_count_or_by_bytes() {
        let mut many = Outbox::default();
        for _ in 0..UNACKED_MAX {
            assert!(!many.is_full());
            many.push(lease(1), Body::UnitEnded(UnitEnded {}), None);
        }
        assert!(many.is_full());
        let mut large = Outbox::default();
        for _ in 0..2 {
            assert!(!large.is_full());
            let log_zstd = vec![7; UNACKED_BYTES_MAX / 2];
            large.push(lease(1), Body::TestResult(TestResult { log_zstd, ..TestResult::default() }), None);
        }
        assert!(large.is_full());
    }

    #[test]
    fn a_report_too_large_to_send_is_cut_or_becomes_a_failure() {
        let log_zstd = vec![1; REPORT_BYTES_MAX + 1];
        let cut = fitting(Body::TestResult(TestResult { attempt: 7, log_zstd, ..TestResult::default() }));
        assert!(matches!(&cut, Body::TestResult(r) if r.attempt == 7 && r.log_zstd.is_empty()));
        let tests = vec!["x".repeat(1 << 20); 49];
        let refused = fitting(Body::Discovered(Discovered { tests, log_zstd: Vec::new() }));
        assert!(matches!(&refused, Body::WorkFailed(f) if f.class() == work_failed::Class::Config));
    }
}
