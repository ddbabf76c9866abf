//! The `jest` preset: Andon's reporter in Jest 28 and newer, one call a file, tests by a pattern of their names.

use super::script_files::{EVENTS, Files, Listing, NOTHING, by_file, pattern};
use crate::runner::RUNNERS_FOLDER;
use crate::runner::preset::{Call, Course, Facts, Options, Preset, Surroundings, Unit};

const COMMAND_DEFAULT: &str = "node_modules/.bin/jest";

/// See the module.
#[derive(Debug)]
pub(crate) struct Jest;

impl Preset for Jest {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "jest",
            needs: &[],
            takes: &["command", "args"],
            places: &[],
            shares_process: true,
            files: &[
                EVENTS,
                ("andon_jest.cjs", include_str!("../../../../ci/runners/andon_jest.cjs")),
                ("andon_jest_runner.cjs", include_str!("../../../../ci/runners/andon_jest_runner.cjs")),
            ],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        let mut words = plainly(options);
        words.extend(["--passWithNoTests", "--testNamePattern", NOTHING].map(str::to_owned));
        Box::new(Listing::of(Call::listing(options.script(COMMAND_DEFAULT, words))))
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        let call = |(file, ids): (String, Vec<String>)| {
            let mut words = plainly(options);
            if unit.rebase {
                words.extend(["--testRunner".to_owned(), format!("{RUNNERS_FOLDER}/andon_jest_runner.cjs")]);
            }
            words.extend([
                "--testNamePattern".to_owned(),
                pattern(&ids),
                "--runTestsByPath".to_owned(),
                file,
            ]);
            let call = Call::running(options.script(COMMAND_DEFAULT, words));
            (ids, call)
        };
        Box::new(Files::of(by_file(unit).into_iter().map(call)))
    }
}

/// The suite's own words, and ours over them: nothing that would spread, cut short or narrow what is asked for.
fn plainly(options: &Options) -> Vec<String> {
    let reporter = format!("--reporters={RUNNERS_FOLDER}/andon_jest.cjs");
    let ours =
        ["--runInBand", "--ci", "--bail=0", "--coverage=false", "--watchAll=false", "--reporters=default"];
    options.args.iter().cloned().chain(ours.map(str::to_owned)).chain([reporter]).collect()
}
