//! Whether it is worth while to rewind a stand again: decided by how it went so far, and by nothing else.
//!
//! Pure. A rewind that is refused costs a restart and a new moment, so what a test did that cannot be taken back costs that one rebase. A stack whose tests
//! do such things nearly always, or that is never still, is better off without.

/// Rewinds that may fail before the first one succeeds: a suite of which every fourth test does what cannot be taken back begins with so many of them once
/// in some thousand times.
const FIRST_FAILURES_MAX: u32 = 5;
/// Of the last [`u16::BITS`] rewinds so many may fail: more, and the stand would be better off with a restart each time.
const FAILURES_MAX: u32 = 11;
/// So many times in a row there may be no moment to go back to.
const UNARMED_MAX: u32 = 3;

/// How a stand's rewinds went.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tried {
    /// One bit each, the last one lowest; set where it failed.
    failed: u16,
    succeeded: bool,
    /// Moments in a row that were refused.
    unarmed: u32,
}

impl Tried {
    /// A rewind was tried.
    pub(super) fn note(&mut self, well: bool) {
        self.failed = (self.failed << 1) | u16::from(!well);
        self.succeeded |= well;
    }

    /// A moment was taken, or refused for a reason that may pass.
    pub(super) fn note_moment(&mut self, taken: bool) {
        self.unarmed = if taken { 0 } else { self.unarmed + 1 };
    }

    /// No more should be tried.
    pub(super) fn is_hopeless(self) -> bool {
        let most = if self.succeeded { FAILURES_MAX } else { FIRST_FAILURES_MAX };
        self.failed.count_ones() > most || self.unarmed > UNARMED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rewinds: &str) -> bool {
        let mut tried = Tried::default();
        for went in rewinds.chars() {
            match went {
                '.' => tried.note_moment(false),
                'm' => tried.note_moment(true),
                _ => tried.note(went == '+'),
            }
        }
        tried.is_hopeless()
    }

    #[test]
    fn rewinding_is_given_up_where_it_never_works_or_seldom() {
        assert!(!after("-----") && after("------"));
        assert!(!after("--+--+---+--"), "every third");
        assert!(after("+------------") && !after("+-----------"));
        assert!(!after("+------------++++++"), "what is long ago does not count");
    }

    #[test]
    fn one_moment_that_was_refused_is_none_too_many() {
        assert!(!after("...") && after("...."));
        assert!(!after("m+...m+...m"), "in a row");
    }
}
