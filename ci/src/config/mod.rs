//! What a project writes: `andon.toml` and its compose file, read with every mistake at once.
//!
//! Must not know git, the wire or the farm (but for the list of runners, in `runner.rs`, and what a quarantine may be): bytes in, a checked [`Config`] or [`ConfigErrors`] out. What can only be
//! checked against a commit (does the compose file exist?) is checked in `spec`, with the places kept here.
//! No input panics, and none takes more than [`FILE_BYTES_MAX`] times a small constant of memory.

mod andon_toml;
mod baseline;
mod check;
pub mod compose;
mod limits;
mod measure;
mod paths;
mod problem;
pub mod proof;
pub mod quarantine;
pub mod quick;
mod runner;
pub mod schema;
mod table;

use std::time::Duration;

pub use self::andon_toml::parse;
pub(crate) use self::andon_toml::read;
pub(crate) use self::check::path_glob as input_glob;
pub use self::limits::Limits;
pub use self::paths::RepoPath;
pub use self::problem::{ConfigErrors, Located, Note, Place, Problem};
pub(crate) use self::problem::{all_problems, quoted};

/// The name of the configuration file, at the root of a project's repository.
pub const FILE_NAME: &str = "andon.toml";
/// The largest configuration or compose file that is read.
pub const FILE_BYTES_MAX: usize = 512 * 1024;
/// The most suites of a project.
pub const SUITES_MAX: usize = 64;
/// The most steps of a baseline.
pub const STEPS_MAX: usize = 32;
/// The longest name of a suite, service or project.
pub const NAME_LEN_MAX: usize = 63;
/// The longest time limit of a test or a seed.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The most retries of a failed test.
pub const RETRIES_MAX: u32 = 10;
/// A suite's time limit for a test where it gives none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit of the seed commands where none is given.
pub const DEFAULT_SEED_TIMEOUT: Duration = Duration::from_secs(600);
/// So many stacks of a project's failed tests are kept on a worker where it keeps them and does not say how many.
pub const KEEP_DEFAULT: u32 = 3;
/// The most.
pub const KEEP_MAX: u32 = 16;
/// For so long where it does not say.
pub const KEEP_FOR_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// The longest.
pub const KEEP_FOR_MAX: Duration = Duration::from_secs(24 * 3600);
/// Where the source is mounted in a suite's container where the suite does not say.
pub const DEFAULT_WORKDIR: &str = "/src";
/// The branches whose pushes start a run where `[triggers]` does not say.
pub const DEFAULT_BRANCHES: [&str; 2] = ["main", "master"];

/// A checked `andon.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[stack] compose`, beneath the repository's root; absent for a project without services.
    pub compose: Option<Located<RepoPath>>,
    /// `[stack] quick`: services that are started with their engine's quick options.
    pub quick: Vec<(Located<String>, quick::Engine)>,
    /// `[baseline]`.
    pub baseline: Baseline,
    /// `[[suite]]`: at least one, in the file's order, names unique.
    pub suites: Vec<Suite>,
    /// `[policy]`.
    pub policy: Policy,
    /// `[triggers]`.
    pub triggers: Triggers,
    /// `[[quarantine]]`, in the file's order: of a test the first that names it counts.
    pub quarantines: Vec<quarantine::Quarantine>,
}

/// `[baseline]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// In order: `[[baseline.step]]`, or `seed` and `inputs` as the only one; none for a stack that is not seeded.
    pub steps: Vec<Step>,
    /// Limit of all steps together.
    pub seed_timeout: Duration,
    /// The user's labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// `[[baseline.proof]]`, in order.
    pub proofs: Vec<proof::Proof>,
}

/// A part of the seed whose result can be built upon.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// For messages; may be empty.
    pub name: String,
    /// Shell commands, in order.
    pub run: Vec<Located<String>>,
    /// Globs over the repository's paths whose files are part of the key of this step and of those after it.
    pub inputs: Vec<Located<String>>,
    /// Run on a state that was made with fewer input files, the commands lead to the same state.
    pub grows: bool,
    /// Whether the state after it is kept as a baseline of its own; `None`: where it took long.
    pub keep: Option<bool>,
}

impl Baseline {
    /// The commands of all steps.
    pub fn commands(&self) -> impl Iterator<Item = &Located<String>> {
        self.steps.iter().flat_map(|step| &step.run)
    }

    /// The inputs of all steps.
    pub fn inputs(&self) -> impl Iterator<Item = &Located<String>> {
        self.steps.iter().flat_map(|step| &step.inputs)
    }
}

/// `[[suite]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Suite {
    /// Unique; letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What its containers are made of.
    pub image: Located<Image>,
    /// How tests are found and run.
    pub runner: Runner,
    /// Limit of one test.
    pub timeout: Duration,
    /// How often a failed test is tried again.
    pub retries: u32,
    /// The unit that starts pristine.
    pub rebase: Rebase,
    /// How many units share a process of the runner.
    pub process: Process,
    /// Sorted by name.
    pub env: Vec<(String, String)>,
    /// Absolute path of the source in the container.
    pub workdir: String,
    /// Its tests use Docker themselves.
    pub docker: bool,
    /// Of each of its containers.
    pub limits: Limits,
    /// `name:port`: who its tests may reach outside of their lane.
    pub egress: Vec<String>,
}

/// An image, by name or built from the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// `mysql:9`, `registry/name@sha256:…`.
    Reference(String),
    /// A `docker build`.
    Build(Build),
}

/// A `docker build` of a folder of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Beneath the repository's root.
    pub context: RepoPath,
    /// Beneath the context.
    pub dockerfile: RepoPath,
    /// The stage to build; empty for the last.
    pub target: String,
    /// Build arguments, sorted by name.
    pub args: Vec<(String, String)>,
}

/// How a suite's tests are found and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// Through Andon's pytest plugin.
    Pytest {
        /// How pytest is called; empty for the default.
        command: String,
        /// Added to every call.
        args: Vec<String>,
    },
    /// By two shell commands.
    Command {
        /// Prints one test id a line.
        discover: String,
        /// Runs `{tests}`, may write `{junit}`.
        run: String,
    },
    /// By any other preset.
    Preset(Preset),
}

/// One of the worker's presets; what it does not take is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preset {
    /// As in `runner = "…"`.
    pub name: String,
    /// How the tool is called; empty for the preset's own.
    pub command: String,
    /// Added to every call.
    pub args: Vec<String>,
    /// Prints one test id a line.
    pub discover: String,
    /// Runs the ids.
    pub run: String,
    /// Patterns of the report files that `run` leaves.
    pub reports: Vec<String>,
}

/// What a process of the runner is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// One unit.
    Unit,
    /// Many, one after the other; the stack is put back between them all the same.
    Shared,
}

/// The unit that starts pristine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebase {
    /// Every test.
    Test,
    /// The tests of one class.
    Class,
    /// The tests of one file.
    File,
    /// A batch of tests that the coordinator chooses.
    Batch,
    /// Nothing: lanes are shared by the whole suite.
    Never,
}

/// `[policy]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Stop the run after so many failures; `None` for no limit.
    pub max_failures: Option<u32>,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// Retries of failed tests in the whole run; `None` for no limit but each suite's own.
    pub retry_budget: Option<u32>,
    /// A push stops older runs of pushes of its branch.
    pub supersede: bool,
    /// Stragglers are started a second time on idle lanes.
    pub hedge: bool,
    /// Tests that run right now for another run of the same are not run a second time.
    pub merge: bool,
    /// Whose stacks workers keep to look into.
    pub keep: Keep,
    /// So many at a time on each worker.
    pub keep_max: u32,
    /// For so long.
    pub keep_for: Duration,
}

/// Whose stacks are kept as their tests left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nobody's.
    None,
    /// Failed tests'.
    Failed,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_failures: None,
            fail_fast: false,
            retry_budget: None,
            supersede: true,
            hedge: true,
            merge: true,
            keep: Keep::None,
            keep_max: KEEP_DEFAULT,
            keep_for: KEEP_FOR_DEFAULT,
        }
    }
}

/// `[triggers]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triggers {
    /// Branch names or globs; `*` does not cross a `/`.
    pub branches: Vec<String>,
}

impl Default for Triggers {
    fn default() -> Self {
        Self { branches: DEFAULT_BRANCHES.map(str::to_owned).to_vec() }
    }
}

impl Triggers {
    /// Whether a push to this branch (without `refs/heads/`) starts a run.
    pub fn wants(&self, branch: &str) -> bool {
        branch_matches(&self.branches, branch)
    }
}

/// Whether a branch is named by a list of names and globs. A pattern that is no glob names nothing.
pub fn branch_matches(patterns: &[String], branch: &str) -> bool {
    patterns.iter().any(|pattern| match check::branch_glob(pattern) {
        Ok(glob) => glob.compile_matcher().is_match(branch),
        Err(_) => false,
    })
}

/// Whether a name is fit for a project, a suite or a service: it becomes part of paths, ids and host names.
pub fn is_name(name: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(fit)
}

/// What [`is_name`] asks for, for messages.
pub(crate) const NAME_FORM: &str =
    "up to 63 letters, digits, \".\", \"_\" and \"-\", the first a letter or digit";

#[cfg(test)]
mod tests;
