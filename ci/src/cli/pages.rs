//! `andon schema`, `andon man`, `andon completions`: what the command writes about itself, for editors, readers and shells.
//!
//! All of it is made from what the parsers themselves are made of (the schema is held against its parser by tests), so that
//! nothing here is written twice. None of it asks a farm.

use std::path::{Path, PathBuf};

use andon::config::schema::SCHEMA;
use clap::Args;
use clap_complete::Shell;

use super::error::CliError;
use super::out;
use crate::report::exit::Exit;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon schema > andon.schema.json\n  andon init --schema    writes it beside a new \
                        andon.toml, and names it there"
)]
pub(crate) struct SchemaArgs {}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon man | man -l -\n  andon man --dir ~/.local/share/man/man1; man andon-run"
)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder: andon.1, andon-run.1, …
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon completions bash > ~/.local/share/bash-completion/completions/andon\n  andon completions \
                  fish > ~/.config/fish/completions/andon.fish\n  andon completions zsh > ~/.zfunc/_andon"
)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub(crate) fn schema() -> Result<Exit, CliError> {
    out::print(SCHEMA)?;
    Ok(Exit::Passed)
}

/// The page of `command`, or the pages of it and of all below it.
pub(crate) fn man(args: &ManArgs, command: clap::Command) -> Result<Exit, CliError> {
    match &args.dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            out::raw(&page)?;
        }
        Some(dir) => pages(command, dir).map_err(|error| {
            CliError::usage(format!("cannot write the pages into {}", dir.display())).because(&error)
        })?,
    }
    Ok(Exit::Passed)
}

fn pages(command: clap::Command, dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}

pub(crate) fn completions(args: &CompletionsArgs, mut command: clap::Command) -> Result<Exit, CliError> {
    out::raw(&script(args.shell, &mut command))?;
    Ok(Exit::Passed)
}

fn script(shell: Shell, command: &mut clap::Command) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "andon", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use clap::{CommandFactory as _, ValueEnum as _};

    use super::super::Cli;
    use super::*;

    /// Every subcommand by its whole name: `andon-baseline-list`.
    fn names(command: &clap::Command, name: &str, all: &mut Vec<String>) {
        all.push(name.to_owned());
        // What only programs call has no page.
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            names(sub, &format!("{name}-{}", sub.get_name()), all);
        }
    }

    #[test]
    fn every_command_has_a_page_that_says_what_it_does_and_shows_its_examples() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("man/man1");
        pages(Cli::command(), &dir).unwrap();
        let mut all = Vec::new();
        names(&Cli::command(), "andon", &mut all);
        assert!(all.contains(&"andon-baseline-verify".to_owned()), "{all:?}");
        for name in all {
            let page = std::fs::read_to_string(dir.join(format!("{name}.1"))).expect(&name);
            for part in [".TH", ".SH NAME", ".SH SYNOPSIS", "Example"] {
                assert!(page.contains(part), "{name} has no {part}");
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_said() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = man(&ManArgs { dir: Some(file.join("man1")) }, Cli::command()).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell, &mut Cli::command())).unwrap();
            for sub in Cli::command().get_subcommands() {
                assert!(script.contains(sub.get_name()), "{shell} does not know {}", sub.get_name());
            }
            assert!(script.contains("until-fail"), "{shell} does not know the options");
        }
    }

    #[test]
    fn the_script_for_bash_is_a_script_of_bash() {
        let mut bash = Command::new("bash")
            .args(["-n", "/dev/stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash is there");
        let script = script(Shell::Bash, &mut Cli::command());
        bash.stdin.take().unwrap().write_all(&script).unwrap();
        assert!(bash.wait().unwrap().success());
    }
}
