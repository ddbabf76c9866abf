//! The `node` preset: node:test with Andon's look-alike in front of it, one call a file, exactly the tests that are asked for.

use super::script_files::{EVENTS, Files, Listing, by_file};
use crate::runner::preset::{Call, Course, Facts, Options, Preset, Surroundings, Unit};
use crate::runner::template::quote;
use crate::runner::{OUT_FOLDER, RUNNERS_FOLDER};

const COMMAND_DEFAULT: &str = "node";
/// The ids of a call, in the out folder.
const TESTS_FILE: &str = "tests.json";

/// See the module.
#[derive(Debug)]
pub(crate) struct Node;

impl Preset for Node {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "node",
            needs: &[],
            takes: &["command", "args"],
            places: &[],
            shares_process: true,
            files: &[
                EVENTS,
                ("andon_node.mjs", include_str!("../../../../ci/runners/andon_node.mjs")),
                ("andon_node_shim.mjs", include_str!("../../../../ci/runners/andon_node_shim.mjs")),
                ("andon_node_files.mjs", include_str!("../../../../ci/runners/andon_node_files.mjs")),
            ],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        let words = [format!("{RUNNERS_FOLDER}/andon_node_files.mjs")];
        let words = words.iter().chain(&options.args);
        Box::new(Listing::of(Call::listing(options.script(COMMAND_DEFAULT, words))))
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        let call = |(file, ids): (String, Vec<String>)| {
            let preload = format!("{RUNNERS_FOLDER}/andon_node.mjs");
            // What is no option is where the tests are.
            let mut words: Vec<String> =
                options.args.iter().filter(|arg| arg.starts_with('-')).cloned().collect();
            words.extend(["--import".to_owned(), preload.clone(), format!("--test-reporter={preload}")]);
            words.extend(["--test-reporter-destination=stdout".to_owned(), file]);
            let job = serde_json::to_string(&ids).expect("ids are text");
            let path = format!("{OUT_FOLDER}/{TESTS_FILE}");
            // printf is the shell's own: no limit on its words.
            let script = format!(
                "printf '%s' {} > {path}\nexec {}",
                quote(&job),
                options.script(COMMAND_DEFAULT, words)
            );
            let mut call = Call::running(script).with_env("ANDON_RUNNER_JOB", path);
            if unit.rebase {
                call = call.with_env("ANDON_RUNNER_REBASE", "1");
            }
            (ids, call)
        };
        Box::new(Files::of(by_file(unit).into_iter().map(call)))
    }
}
