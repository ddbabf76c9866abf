//! The project's part of `andon doctor`: are andon.toml and its compose file, as they are in the working copy, valid?
//!
//! What only a commit can tell (does a file that is named exist in it?) is found by `andon run`.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use andon::config::{self, ConfigErrors, FILE_BYTES_MAX, FILE_NAME, Note, compose};

use super::Finding;
use crate::cli::recognise;

/// Looks at the folder that holds andon.toml.
pub(super) async fn check(folder: &Path) -> Vec<Finding> {
    let folder = folder.to_owned();
    let looking = tokio::task::spawn_blocking(move || look(&folder));
    looking.await.expect("looking at a project does not panic")
}

fn look(folder: &Path) -> Vec<Finding> {
    let bytes = match read(&folder.join(FILE_NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let said = format!("there is none in {}", folder.display());
            return vec![Finding::warn(FILE_NAME, said, "in a project: `andon init` writes one")];
        }
        Err(error) => return vec![Finding::problem(FILE_NAME, error.to_string(), "make it readable")],
    };
    let config = match config::parse(FILE_NAME, &bytes) {
        Ok((config, notes)) => {
            let mut findings = vec![Finding::ok(FILE_NAME, suites(&config))];
            findings.extend(notes.iter().map(|note| noted(FILE_NAME, note)));
            (config, findings)
        }
        Err(errors) => return mistakes(FILE_NAME, &errors),
    };
    let (config, mut findings) = config;
    findings.extend(config.suites.iter().filter_map(|suite| runner(folder, suite)));
    if let Some(path) = &config.compose {
        findings.extend(compose_file(folder, &path.value));
    }
    findings
}

/// What a suite's runner needs in the repository.
fn runner(folder: &Path, suite: &config::Suite) -> Option<Finding> {
    let own_command = match &suite.runner {
        config::Runner::Preset(preset) => !preset.command.is_empty(),
        config::Runner::Pytest { .. } | config::Runner::Command { .. } => false,
    };
    let name = suite.runner.name();
    let missing = recognise::missing(folder, name).filter(|_| !own_command)?;
    let said = format!("suite {:?} has runner {name:?}, but {missing}", suite.name);
    Some(Finding::warn("runner", said, "add it, choose another runner, or say how it is called in `command`"))
}

fn compose_file(folder: &Path, path: &config::RepoPath) -> Vec<Finding> {
    let bytes = match read(&folder.join(path.as_str())) {
        Ok(bytes) => bytes,
        Err(error) => {
            let said = format!("cannot read {}: {error}", path.as_str());
            return vec![Finding::problem("compose", said, "andon.toml names it under [stack]")];
        }
    };
    match compose::parse(path, &bytes) {
        Ok((compose, notes)) => {
            let names: Vec<&str> = compose.services.iter().map(|service| service.name.as_str()).collect();
            let mut findings =
                vec![Finding::ok("compose", format!("{}: {}", path.as_str(), names.join(", ")))];
            findings.extend(notes.iter().map(|note| noted("compose", note)));
            findings
        }
        Err(errors) => mistakes("compose", &errors),
    }
}

fn suites(config: &config::Config) -> String {
    let names: Vec<&str> = config.suites.iter().map(|suite| suite.name.as_str()).collect();
    format!("valid; suites: {}", names.join(", "))
}

fn mistakes(name: &'static str, errors: &ConfigErrors) -> Vec<Finding> {
    let finding = |problem: &config::Problem| Finding::problem(name, problem.to_string(), "correct it");
    errors.problems.iter().map(finding).collect()
}

fn noted(name: &'static str, note: &Note) -> Finding {
    Finding::warn(name, note.to_string(), "nothing has to be done")
}

/// One byte more than is allowed is enough to know that a file is too large.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Health;

    const SUITE: &str = "[[suite]]\nname = \"a\"\nimage = \"python:3\"\nrunner = \"pytest\"\n";

    fn healths(files: &[(&str, &str)]) -> Vec<(&'static str, Health)> {
        let temp = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(temp.path().join(name), content).unwrap();
        }
        look(temp.path()).iter().map(|finding| (finding.name, finding.health)).collect()
    }

    #[test]
    fn a_folder_without_a_project_is_no_problem() {
        assert_eq!(healths(&[]), [(FILE_NAME, Health::Warn)]);
    }

    #[test]
    fn each_mistake_of_andon_toml_is_a_problem_of_its_own() {
        let found = healths(&[(FILE_NAME, "[[suite]]\nnmae = \"a\"\nimage = \"x\"\nrunner = \"pytset\"\n")]);
        assert!(found.len() >= 2, "{found:?}");
        assert!(found.iter().all(|found| *found == (FILE_NAME, Health::Problem)), "{found:?}");
    }

    #[test]
    fn a_runner_without_its_files_is_a_warning() {
        let go = SUITE.replace("pytest", "go");
        assert_eq!(healths(&[(FILE_NAME, &go)]), [(FILE_NAME, Health::Ok), ("runner", Health::Warn)]);
        assert_eq!(healths(&[(FILE_NAME, &go), ("go.mod", "module x")]), [(FILE_NAME, Health::Ok)]);
    }

    #[test]
    fn a_compose_file_that_is_missing_or_wrong_is_a_problem() {
        let toml = format!("[stack]\ncompose = \"compose.yaml\"\n{SUITE}");
        let missing = healths(&[(FILE_NAME, &toml)]);
        assert_eq!(missing, [(FILE_NAME, Health::Ok), ("compose", Health::Problem)]);
        let wrong = healths(&[(FILE_NAME, &toml), ("compose.yaml", "services:\n  db:\n    imaeg: x\n")]);
        assert!(wrong.contains(&("compose", Health::Problem)), "{wrong:?}");
        let good = healths(&[(FILE_NAME, &toml), ("compose.yaml", "services:\n  db:\n    image: x\n")]);
        assert!(good.contains(&("compose", Health::Ok)), "{good:?}");
    }
}
