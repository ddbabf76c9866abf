//! `andon export`, and `andon rerun --from`: a run in a file, and its tests once more on whichever farm.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use andon::connect::Connection;
use andon::download::{self, DownloadError};
use andon::record::{self, Opened, RecordError, RecordTest, SOURCE_BYTES_MAX, SPEC_BYTES_MAX};
use andon::submit;
use andon_proto::{ChosenTest, GetRunRequest, Provenance, RunSpec, SubmitRunRequest, Trigger};
use clap::Args;
use prost::Message as _;

use super::error::CliError;
use super::farm::FarmArgs;
use super::{clock, follow, out, show, what};
use crate::report::exit::Exit;
use crate::report::{json, text, words};

/// Unknown tests that a message names.
const NAMED_MAX: usize = 5;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon export 12\n  andon export 12 -o /tmp/broken.andon\n  andon rerun --from broken.andon \
                  --failed     elsewhere\n\nThe file holds the run's record, its specification and its source: treat it as \
                  the source."
)]
pub(crate) struct ExportArgs {
    /// Number of the run [default: the latest]
    run: Option<u64>,
    /// File to write [default: run-NUMBER.andon]; one that is there is not replaced
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Which tests of a record.
pub(super) struct Wanted<'a> {
    pub(super) failed: bool,
    pub(super) not_run: bool,
    /// `suite/id` or `id`.
    pub(super) tests: &'a [String],
}

pub(crate) async fn export(args: ExportArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let number = show::run_or_latest(&connection, args.run, "").await?;
    let run = follow::whole_run(&connection, number).await?;
    if run.forgotten {
        return Err(CliError::usage(format!(
            "the tests of run {number} were deleted: it ended too long ago"
        )));
    }
    let spec = download::bytes(&connection, &run.spec_digest, SPEC_BYTES_MAX).await?;
    let decoded = RunSpec::decode(spec.as_slice())
        .map_err(|error| CliError::infrastructure("the specification cannot be read").because(&error))?;
    let scratch = what::scratch()?;
    let source = scratch.path().join("source");
    download::file(&connection, &decoded.source_digest, SOURCE_BYTES_MAX, &source).await?;
    let record = serde_json::to_vec(&json::run_whole(&run, |_| true)).map_err(std::io::Error::other)?;
    let path = args.output.unwrap_or_else(|| format!("run-{number}.andon").into());
    let write = || {
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        record::write(BufWriter::new(file), &record, &spec, &source)
    };
    write().map_err(|error| CliError::usage(format!("cannot write {}", path.display())).because(&error))?;
    let size = std::fs::metadata(&path).map(|about| about.len()).unwrap_or_default();
    out::line(&format!("run {number} is in {} ({})", path.display(), words::bytes(size)))?;
    Ok(Exit::Passed)
}

/// Reads the file, sends what the farm lacks, and asks for the run.
pub(super) async fn rerun(
    file: &Path,
    wanted: &Wanted<'_>,
    project: Option<&str>,
    farm: &FarmArgs,
) -> Result<Rerun, CliError> {
    let scratch = what::scratch()?;
    let opened = open(file, scratch.path())?;
    let tests = choose(&opened.record.tests, wanted, opened.record.run)?;
    let connection = farm.connect().await?;
    let spec = made_ours(opened.spec.clone(), project);
    let spec = spec.encode_to_vec();
    let spec_digest = blake3::hash(&spec).to_hex().to_string();
    let source_digest = opened.spec.source_digest.clone();
    let missing = submit::missing(&connection, &[source_digest.clone(), spec_digest.clone()]).await?;
    if missing.contains(&source_digest) {
        submit::put_file(&connection, &source_digest, &opened.source).await?;
    }
    if missing.contains(&spec_digest) {
        submit::put_bytes(&connection, &spec_digest, spec).await?;
    }
    let count = tests.len() as u64;
    let request = SubmitRunRequest { spec_digest, tests, ..SubmitRunRequest::default() };
    let run = connection.farm().submit_run(request).await?.into_inner().run;
    let (of, commit) = (opened.record.run, words::short(&opened.spec.commit));
    let commit = text::one_line(commit);
    out::line(&format!("run {run}: {} of run {of} of {commit}, from a file", words::plural(count, "test")))?;
    Ok(Rerun { connection, run, key_there: opened.record.baseline_key })
}

/// A run that came of a file.
pub(super) struct Rerun {
    pub(super) connection: Connection,
    pub(super) run: u64,
    /// The baseline of the run in the file, as the file says.
    key_there: Option<String>,
}

impl Rerun {
    /// Says whether the run that is over started from what the one in the file did. This farm found its key by itself.
    pub(super) async fn compare_baselines(&self) -> Result<(), CliError> {
        let request = GetRunRequest { run: self.run, with_tests: false };
        let here = self.connection.farm().get_run(request).await?.into_inner().baseline_key;
        let short = |key: &str| text::cut(words::short(key), 12);
        match self.key_there.as_deref() {
            Some(there) if there == here => {
                out::note(&format!("on the same baseline as there: {}", short(&here)));
            }
            Some(there) if !here.is_empty() => out::note(&format!(
                "on another baseline than there: {} here, {} there: images, or what else makes its key, moved",
                short(&here),
                short(there)
            )),
            _ => {}
        }
        Ok(())
    }
}

fn open(file: &Path, scratch: &Path) -> Result<Opened, CliError> {
    let shown = file.display();
    let opened = File::open(file).map_err(RecordError::Io);
    opened
        .and_then(|from| record::read(BufReader::new(from), scratch))
        .map_err(|error| CliError::usage(format!("cannot take {shown}")).because(&error))
}

/// The same work, asked for by this person on this farm. What the file says of who asked, and where and how often, is not
/// taken over; that it is a fork's is.
fn made_ours(mut spec: RunSpec, project: Option<&str>) -> RunSpec {
    let was = spec.provenance.take().unwrap_or_default();
    spec.provenance = Some(Provenance {
        trigger: Trigger::Rerun.into(),
        requested_by: std::env::var("USER").unwrap_or_default(),
        submitted_unix_ms: clock::unix_ms(),
        pull_request: was.pull_request,
        fork: was.fork,
        approved_by: String::new(),
    });
    spec.asked = None;
    if let Some(project) = project {
        project.clone_into(&mut spec.project);
    }
    spec
}

fn choose(tests: &[RecordTest], wanted: &Wanted<'_>, run: u64) -> Result<Vec<ChosenTest>, CliError> {
    let is = |test: &RecordTest, name: &String| {
        test.id == *name
            || name.strip_prefix(&test.suite).and_then(|rest| rest.strip_prefix('/')) == Some(&test.id)
    };
    let unknown: Vec<String> = wanted
        .tests
        .iter()
        .filter(|name| !tests.iter().any(|test| is(test, name)))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let named = unknown[..unknown.len().min(NAMED_MAX)].join(", ");
        return Err(CliError::usage(format!("run {run} has no test {named}"))
            .hint("tests are named as `andon show` prints them, `suite/id` or `id`"));
    }
    let failed = |test: &RecordTest| matches!(&*test.verdict, "failed" | "timed_out" | "infrastructure");
    let not_run = |test: &RecordTest| matches!(&*test.verdict, "not_run" | "open");
    let is_wanted = |test: &&RecordTest| {
        (wanted.failed && failed(test))
            || (wanted.not_run && not_run(test))
            || wanted.tests.iter().any(|name| is(test, name))
    };
    let chosen: Vec<_> = tests
        .iter()
        .filter(is_wanted)
        .map(|test| ChosenTest { suite: test.suite.clone(), id: test.id.clone() })
        .collect();
    if chosen.is_empty() {
        return Err(CliError::usage(format!("run {run} has no such tests to run again")));
    }
    Ok(chosen)
}

impl From<DownloadError> for CliError {
    fn from(error: DownloadError) -> Self {
        Self::infrastructure("the run's files cannot be fetched").because(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Vec<RecordTest> {
        let test = |(suite, id, verdict): (&str, &str, &str)| RecordTest {
            suite: suite.into(),
            id: id.into(),
            verdict: verdict.into(),
        };
        [
            ("it", "a", "passed"),
            ("it", "b", "failed"),
            ("it", "c", "timed_out"),
            ("ui", "a", "infrastructure"),
            ("ui", "d", "not_run"),
        ]
        .map(test)
        .into()
    }

    fn chosen(failed: bool, not_run: bool, tests: &[&str]) -> Result<Vec<String>, CliError> {
        let tests: Vec<String> = tests.iter().map(|&test| test.to_owned()).collect();
        let chosen = choose(&record(), &Wanted { failed, not_run, tests: &tests }, 7)?;
        Ok(chosen.into_iter().map(|test| format!("{}/{}", test.suite, test.id)).collect())
    }

    #[test]
    fn tests_of_a_record_are_chosen_as_those_of_a_run() {
        assert_eq!(chosen(true, false, &[]).unwrap(), ["it/b", "it/c", "ui/a"]);
        assert_eq!(chosen(false, true, &[]).unwrap(), ["ui/d"]);
        assert_eq!(chosen(false, false, &["a"]).unwrap(), ["it/a", "ui/a"]);
        assert_eq!(chosen(false, true, &["it/a"]).unwrap(), ["it/a", "ui/d"]);
        let error = chosen(true, false, &["nobody"]).unwrap_err();
        assert!(error.exit() == Exit::Usage && error.to_string().contains("nobody"), "{error}");
    }

    #[test]
    fn what_a_file_says_of_workers_and_approvals_is_not_taken_over() {
        let asked = andon_proto::Asked { on_workers: vec!["w".into()], ..Default::default() };
        let provenance = Provenance { fork: true, approved_by: "me".into(), ..Provenance::default() };
        let spec = RunSpec { asked: Some(asked), provenance: Some(provenance), ..RunSpec::default() };
        let ours = made_ours(spec, Some("mine"));
        let provenance = ours.provenance.unwrap();
        assert_eq!((ours.asked, ours.project.as_str()), (None, "mine"));
        assert!(provenance.fork && provenance.approved_by.is_empty());
        assert_eq!(provenance.trigger(), Trigger::Rerun);
    }
}
