//! `andon init`: writes a commented `andon.toml` for the project as far as its files tell.
//!
//! What is recognised is data (`Found`), what is written a function of it, so both are tested without a project.
//! Invariant: a file that is there is replaced only with `--force`.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use andon::config::schema::{SCHEMA, SCHEMA_NAME, editors_line};
use clap::Args;

use super::error::CliError;
use super::{out, recognise};
use crate::report::exit::Exit;

/// The names that compose itself looks for, in its order.
const COMPOSE_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Where a seed is usually kept.
const SEED_NAMES: [&str; 4] = ["db/seed.sql", "seed.sql", "db/init.sql", "sql/seed.sql"];

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon init\n  andon init path/to/project --force\n  andon init --schema"
)]
pub(crate) struct InitArgs {
    /// Root of the project
    #[arg(default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Replace an andon.toml that is there
    #[arg(long)]
    force: bool,
    /// Write andon.schema.json beside it, by which editors complete and check the file
    #[arg(long)]
    schema: bool,
}

/// What the project's files tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    compose: Option<&'static str>,
    seed: Option<&'static str>,
    /// How its tests are run, and what told it.
    runner: Option<recognise::Recognised>,
    dockerfile: bool,
    /// The schema lies, or will lie, beside the file.
    schema: bool,
}

pub(crate) fn init(args: &InitArgs) -> Result<Exit, CliError> {
    if !args.dir.is_dir() {
        return Err(CliError::usage(format!("{} is not a folder", args.dir.display())));
    }
    let mut found = look(&args.dir);
    found.schema |= args.schema;
    let path = args.dir.join("andon.toml");
    let schema = args.dir.join(SCHEMA_NAME);
    let wanted = args.schema && fs::read(&schema).ok().as_deref() != Some(SCHEMA.as_bytes());
    if wanted && schema.exists() && !args.force {
        return Err(is_there(&schema));
    }
    write(&path, &render(&found), args.force)?;
    out::line(&format!("wrote {}", path.display()))?;
    if wanted {
        write(&schema, SCHEMA, args.force)?;
        out::line(&format!("wrote {}", schema.display()))?;
    }
    match &found.runner {
        Some(found) => out::line(&format!("  tests     {}, because of {}", found.tool, found.why))?,
        None => out::line("  tests     not recognised: change `discover` and `run`")?,
    }
    match found.compose {
        Some(compose) => out::line(&format!("  services  {compose}"))?,
        None => out::line("  services  no compose file found: tests run without services")?,
    }
    out::line("next: read it, then `andon doctor`, commit it, and `andon run`")?;
    Ok(Exit::Passed)
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), CliError> {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => is_there(path),
        _ => CliError::usage(format!("cannot write {}", path.display())).because(&error),
    })
}

fn is_there(path: &Path) -> CliError {
    CliError::usage(format!("{} exists already", path.display())).hint("--force replaces it")
}

fn look(dir: &Path) -> Found {
    let is_file = |name: &&&str| dir.join(name).is_file();
    Found {
        compose: COMPOSE_NAMES.iter().find(is_file).copied(),
        seed: SEED_NAMES.iter().find(is_file).copied(),
        runner: recognise::runner(dir),
        dockerfile: dir.join("Dockerfile").is_file(),
        schema: dir.join(SCHEMA_NAME).is_file(),
    }
}

fn render(found: &Found) -> String {
    let mut text = if found.schema { editors_line() } else { String::new() };
    text.push_str(
        "# How Andon builds, seeds and tests this project. `andon doctor` checks this file; the user guide says more.\n",
    );
    stack(&mut text, found);
    suite(&mut text, found);
    text.push_str(
        "\n[policy]\nmax_failures = 50                      # the cord: stop the run here, the rest is \"not run\"\n",
    );
    text
}

fn stack(text: &mut String, found: &Found) {
    let Some(compose) = found.compose else {
        text.push_str(
            "\n# The services that the tests need, and how they are filled before the first test:\n# [stack]\n# compose = \
             \"compose.yaml\"\n# [baseline]\n# seed   = [\"mysql -h db -uroot shop < db/seed.sql\"]\n# inputs = [\"db/**\"]\n",
        );
        return;
    };
    write!(
        text,
        "\n[stack]\ncompose = \"{compose}\"              # the services; healthchecks are honoured\n\n[baseline]\n\
         # Shell commands that fill the services, run in order in the suite's image. Services are reached by name.\n"
    )
    .expect("a string takes every write");
    match found.seed {
        Some(seed) => {
            let folder = seed.split_once('/').map_or(seed.to_owned(), |(folder, _)| format!("{folder}/**"));
            write!(
                text,
                "# seed = [\"mysql -h db -uroot shop < {seed}\"]\nseed   = []\n\
                 inputs = [\"{folder}\"]                 # when one of these files changes, the baseline is built again\n"
            )
            .expect("a string takes every write");
        }
        None => text.push_str(
            "# seed = [\"mysql -h db -uroot shop < db/seed.sql\"]\nseed   = []\n\
             inputs = []                            # files whose change makes a new baseline: [\"db/**\"]\n",
        ),
    }
}

fn suite(text: &mut String, found: &Found) {
    text.push_str("\n[[suite]]\nname    = \"integration\"\n");
    if found.dockerfile {
        text.push_str("image   = { build = \".\" }              # the Dockerfile at the root\n");
    } else {
        let image = found.runner.as_ref().map_or("debian:trixie-slim", |found| found.tool.image());
        let image = format!("\"{image}\"");
        writeln!(
            text,
            "image   = {image:<29} # has to hold the tests' dependencies; or: {{ build = \".\" }}"
        )
        .expect("a string takes every write");
    }
    match &found.runner {
        Some(found) => text.push_str(&found.tool.lines()),
        None => text.push_str(
            "# Change these two: `discover` prints one test a line, `run` runs those that stand for {tests}.\n\
             discover = \"ls tests/*.sh\"\nrun      = \"sh -e {tests}\"\n",
        ),
    }
    text.push_str(
        "timeout = \"60s\"                        # for one test\n\
         retries = 1                            # a test that passes then is `flaky`, and shown\n\
         rebase  = \"test\"                       # test | class | file | batch | never: what starts on a pristine stack\n",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        temp
    }

    #[test]
    fn a_project_without_signs_is_not_recognised() {
        let temp = project(&[("pyproject.toml", "[project]\n"), ("tests/run.sh", ""), ("tests/data.py", "")]);
        assert_eq!(look(temp.path()), Found::default());
    }

    #[test]
    fn the_compose_file_is_the_one_that_compose_would_take() {
        let temp = project(&[("docker-compose.yml", ""), ("compose.yml", ""), ("db/seed.sql", "")]);
        let found = look(temp.path());
        assert_eq!(found.compose, Some("compose.yml"));
        assert_eq!(found.seed, Some("db/seed.sql"));
    }

    #[test]
    fn what_is_written_is_toml_with_the_project_in_it() {
        let all = Found {
            compose: Some("compose.yaml"),
            seed: Some("db/seed.sql"),
            runner: recognise::runner(project(&[("pytest.ini", "")]).path()),
            dockerfile: true,
            schema: true,
        };
        let parsed: toml::Table = render(&all).parse().unwrap();
        assert_eq!(parsed["stack"]["compose"].as_str(), Some("compose.yaml"));
        assert_eq!(parsed["suite"][0]["runner"].as_str(), Some("pytest"));
        assert_eq!(parsed["suite"][0]["image"]["build"].as_str(), Some("."));
        let none: toml::Table = render(&Found::default()).parse().unwrap();
        assert!(none.get("stack").is_none());
        assert!(none["suite"][0].get("discover").is_some());
    }

    #[test]
    fn what_is_written_is_right_once_its_seed_is() {
        for schema in [false, true] {
            for (file, content) in
                [("pytest.ini", ""), ("go.mod", "module m\n"), ("Cargo.toml", "[package]\n")]
            {
                let project = project(&[(file, content), ("compose.yaml", ""), ("db/seed.sql", "")]);
                let found = Found { schema, ..look(project.path()) };
                let text = render(&found);
                if let Err(errors) = andon::config::parse("andon.toml", text.as_bytes()) {
                    panic!("{file}: {errors}");
                }
            }
        }
    }

    #[test]
    fn editors_are_told_of_a_schema_that_lies_beside() {
        let args = |dir: &Path, schema| InitArgs { dir: dir.to_owned(), force: false, schema };
        let first_line = |dir: &Path| {
            fs::read_to_string(dir.join("andon.toml")).unwrap().lines().next().unwrap().to_owned()
        };
        let line = editors_line();
        let bare = project(&[]);
        init(&args(bare.path(), false)).unwrap();
        assert!(first_line(bare.path()).starts_with("# "));
        assert!(!bare.path().join(SCHEMA_NAME).exists());
        let asked = project(&[]);
        init(&args(asked.path(), true)).unwrap();
        assert_eq!(first_line(asked.path()), line.trim());
        assert_eq!(fs::read_to_string(asked.path().join(SCHEMA_NAME)).unwrap(), SCHEMA);
        let there = project(&[(SCHEMA_NAME, SCHEMA)]);
        init(&args(there.path(), false)).unwrap();
        assert_eq!(first_line(there.path()), line.trim());
        let others = project(&[(SCHEMA_NAME, "mine")]);
        assert_eq!(init(&args(others.path(), true)).unwrap_err().exit(), Exit::Usage);
        assert_eq!(fs::read_to_string(others.path().join(SCHEMA_NAME)).unwrap(), "mine");
        assert!(!others.path().join("andon.toml").exists(), "nothing is written where not all can be");
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_asked() {
        let temp = project(&[("andon.toml", "mine")]);
        let path = temp.path().join("andon.toml");
        assert_eq!(write(&path, "new", false).unwrap_err().exit(), Exit::Usage);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        write(&path, "new", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }
}
