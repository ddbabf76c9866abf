//! The `vitest` preset: Andon's reporter in Vitest 3 and newer, one call a file, tests by a pattern of their names.
//!
//! Its files lie in a folder `node_modules`: from elsewhere outside of a project Vite refuses to read.

use super::script_files::{EVENTS, Files, Listing, NOTHING, by_file, pattern};
use crate::runner::RUNNERS_FOLDER;
use crate::runner::preset::{Call, Course, Facts, Options, Preset, Surroundings, Unit};

const COMMAND_DEFAULT: &str = "node_modules/.bin/vitest";

/// See the module.
#[derive(Debug)]
pub(crate) struct Vitest;

impl Preset for Vitest {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "vitest",
            needs: &[],
            takes: &["command", "args"],
            places: &[],
            shares_process: false,
            files: &[
                EVENTS,
                ("node_modules/andon_vitest.mjs", include_str!("../../../../ci/runners/andon_vitest.mjs")),
                ("node_modules/andon_rebase.mjs", include_str!("../../../../ci/runners/andon_rebase.mjs")),
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
            words.extend(["--testNamePattern".to_owned(), pattern(&ids), file]);
            let call = Call::running(options.script(COMMAND_DEFAULT, words));
            (ids, call)
        };
        Box::new(Files::of(by_file(unit).into_iter().map(call)))
    }
}

/// The suite's own words, and ours over them: nothing that would spread, cut short or narrow what is asked for.
fn plainly(options: &Options) -> Vec<String> {
    let reporter = format!("--reporter={RUNNERS_FOLDER}/node_modules/andon_vitest.mjs");
    let ours = ["--no-file-parallelism", "--bail=0", "--retry=0", "--no-coverage", "--reporter=default"];
    let own = options.args.iter().cloned();
    ["run".to_owned()].into_iter().chain(own).chain(ours.map(str::to_owned)).chain([reporter]).collect()
}
