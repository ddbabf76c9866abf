//! The `junit` preset: a command that runs the ids, and the JUnit files that it leaves wherever it is used to.
//!
//! For Gradle, Surefire, PHPUnit, ctest and all the others. Old reports are removed before the command, and those that it leaves
//! are copied beside each other into the out folder, by a shell in the test's container. Invariant: the reports are read as untrusted
//! input, and no more than so many of them.

use crate::runner::event::Event;
use crate::runner::junit::{self, Report};
use crate::runner::lines_of_ids::Ids;
use crate::runner::preset::{Call, CallEnd, Course, Facts, Limit, Options, Preset, Surroundings, Unit};
use crate::runner::{OUT_FOLDER, reported, template};

/// Most report files of a unit.
const REPORTS_MAX: usize = 2_000;
/// Most bytes of them together.
const REPORTS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Junit;

impl Preset for Junit {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "junit",
            needs: &["discover", "run", "reports"],
            takes: &[],
            places: &["tests", "list", "regex"],
            shares_process: false,
            files: &[],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        Box::new(Ids::of(&options.discover))
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        let ids = unit.ids().map(str::to_owned).collect();
        Box::new(Batch { options: Some(options.clone()), ids })
    }
}

struct Batch {
    options: Option<Options>,
    ids: Vec<String>,
}

impl Course for Batch {
    fn next(&mut self) -> Option<Call> {
        let options = self.options.take()?;
        let count = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        Some(Call::running(script(&options, &self.ids)).within(Limit::Whole(count)))
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        events.extend(reported::judge(&self.ids, end, gather(end)));
        Ok(())
    }
}

/// The patterns are words of characters that mean nothing to a shell but for `*`, `?` and `[…]`: the configuration sees to that, and
/// what else there were would only be the project's own command's.
fn script(options: &Options, ids: &[String]) -> String {
    let run = template::expand(&options.run, ids.iter().map(String::as_str), "");
    let patterns = options.reports.join(" ");
    format!(
        "rm -f -- {patterns}\n(\n{run}\n)\ncode=$?\nn=0\nfor report in {patterns}; do\n\
         if [ -f \"$report\" ] && [ $n -lt {REPORTS_MAX} ]; then n=$((n+1)); cp -- \"$report\" {OUT_FOLDER}/report-$n.xml; fi\n\
         done\nexit $code\n"
    )
}

/// What all reports say together.
fn gather(end: &CallEnd<'_>) -> Result<Report, String> {
    let (mut all, mut bytes_read) = (Report::default(), 0);
    for n in 1..=REPORTS_MAX {
        let name = format!("report-{n}.xml");
        let Some(bytes) = (end.read_out)(&name, junit::FILE_BYTES_MAX)? else { break };
        bytes_read += bytes.len() as u64;
        if bytes_read > REPORTS_BYTES_MAX {
            return Err(format!("the reports are larger than {} MiB", REPORTS_BYTES_MAX >> 20));
        }
        match junit::read(&bytes) {
            Ok(report) => {
                all.cases.extend(report.cases);
                all.cut_short |= report.cut_short;
            }
            // A file of the same pattern that is no report, or one that was being written: the others count.
            Err(_) => all.cut_short = true,
        }
        if all.cases.len() > junit::CASES_MAX {
            return Err(junit::JunitRefused::TooMany.to_string());
        }
    }
    match bytes_read {
        0 => Err("the command left no report that \"reports\" names".to_owned()),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::event::EventOutcome;
    use crate::runner::played::{Played, exit, unit};

    fn options(run: &str) -> Options {
        let reports = vec!["build/*/TEST-*.xml".to_owned(), "more.xml".to_owned()];
        Options { discover: "list".into(), run: run.into(), reports, ..Options::default() }
    }

    #[test]
    fn a_real_shell_removes_old_reports_and_collects_new_ones() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("build/a b")).unwrap();
        std::fs::write(temp.path().join("build/a b/TEST-old.xml"), "old").unwrap();
        std::fs::create_dir(temp.path().join("out")).unwrap();
        let run = "printf '%s\\n' {tests} > 'build/a b/TEST-new.xml'; exit 3";
        let script = script(&options(run), &["it's".to_owned()]).replace(OUT_FOLDER, "out");
        let status =
            std::process::Command::new("sh").arg("-c").arg(script).current_dir(&temp).status().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(std::fs::read_to_string(temp.path().join("out/report-1.xml")).unwrap(), "it's\n");
        assert!(!temp.path().join("out/report-2.xml").exists());
        assert!(!temp.path().join("build/a b/TEST-old.xml").exists());
    }

    #[test]
    fn tests_find_their_cases_over_all_reports() {
        let ids = ["A#x", "B#y", "B#z"];
        let mut played =
            Played::new(Junit.unit(&options("mvn -Dtest={list}"), &Surroundings::default(), &unit(&ids)));
        assert!(played.script().contains("mvn -Dtest='A#x,B#y,B#z'\n"));
        let suite = |cases: &str| format!("<testsuite>{cases}</testsuite>").into_bytes();
        played.files.insert("report-1.xml".into(), suite("<testcase classname='A' name='x'/>"));
        played.files.insert("report-2.xml".into(), b"no xml".to_vec());
        let two = "<testcase classname='B' name='y'><failure message='m'/></testcase><testcase classname='B' name='z'><skipped/></testcase>";
        played.files.insert("report-3.xml".into(), suite(two));
        played.end(&exit(1), b"").unwrap();
        let expected =
            [("A#x", EventOutcome::Passed), ("B#y", EventOutcome::Failed), ("B#z", EventOutcome::Skipped)];
        assert_eq!(played.outcomes(), expected);
    }

    #[test]
    fn no_report_at_all_is_said() {
        let mut played =
            Played::new(Junit.unit(&options("true {tests}"), &Surroundings::default(), &unit(&["a"])));
        played.call();
        played.end(&exit(0), b"BUILD SUCCESSFUL").unwrap();
        let (message, _) = played.said_of("a");
        assert!(message.contains("left no report") && message.contains("BUILD SUCCESSFUL"), "{message}");
    }
}
