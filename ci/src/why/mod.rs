//! Why a test failed, decided from what its experiments showed. Pure: the experiments are somebody else's to carry out
//! (`cli/why`), so each conclusion can be tested by itself, and the search for a polluter against a played farm.
//!
//! ```text
//!   the failed attempt ──> who ran before it, in its unit ([`past`])
//!        │
//!        ├─ alone, on its worker  ─┐
//!        ├─ alone, elsewhere      ─┼─> tallies ([`tally`]) ──> a finding ([`finding`]) ── polluted ──> by whom ([`bisect`])
//!        └─ after those before it ─┘
//! ```
//!
//! Invariant: a finding is never surer than its samples: what could as well be chance is *not enough to tell*.

pub mod bisect;
pub mod finding;
pub mod past;
pub mod tally;
