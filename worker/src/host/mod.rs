//! What the host of this process allows, found by looking and trying.
//!
//! `look.rs` collects [`Facts`] and judges nothing; [`HostReport::judge`] turns facts into findings and does nothing
//! else. `andon doctor` shows the report; a worker refuses to start on a problem. Nothing here knows Docker's API.

mod capabilities;
mod judge;
mod look;
pub(crate) mod mounts;
mod pressure;
mod unlinked;

use std::fmt;
use std::path::Path;

use thiserror::Error;

pub use capabilities::{Capabilities, KNOWN as KNOWN_CAPABILITIES};
pub use look::{Cgroups, Facts, Hierarchies, LookError};
pub use pressure::{OomKills, Pressure, container_oom_kills, held_bytes, own_memory_limit, own_oom_kills};
pub use unlinked::unlinked_bytes;

/// What this process is going to do on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs a nested daemon here: inside a worker box, or on a bare machine.
    Worker,
    /// Starts worker boxes on the host's own engine.
    Outer,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Works, but slower or less of it.
    Warning,
    /// Nothing will run.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What was looked at: `capabilities`, `overlay`.
    pub subject: &'static str,
    /// What was found; for a problem what is missing.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.found)?;
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All findings, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// What was looked at.
    pub findings: Vec<Finding>,
    /// What the findings were judged by.
    pub facts: Facts,
}

/// The host does not allow what is to be done on it.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("this host cannot run a worker: {}", problems.join("; "))]
pub struct HostUnfit {
    /// One sentence for each problem: what is missing, and what to do.
    pub problems: Vec<String>,
}

impl HostReport {
    /// Looks at the host and judges. `data` is the folder that pool and images are to live in; it need not exist.
    /// Blocks for some milliseconds: it tries mounts.
    pub fn examine(role: Role, data: &Path) -> Result<Self, LookError> {
        Ok(Self::judge(role, Facts::look(data)?))
    }

    /// Findings that forbid the work.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Problem)
    }

    /// An error that names every problem at once, where there is one.
    pub fn require(&self) -> Result<(), HostUnfit> {
        let problems: Vec<String> = self.problems().map(Finding::to_string).collect();
        if problems.is_empty() { Ok(()) } else { Err(HostUnfit { problems }) }
    }
}
