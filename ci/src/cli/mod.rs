//! The command line: what there is to type, and which file does it.
//!
//! Each subcommand is a file with its arguments and one function that answers with an exit code or an error. Only
//! this file knows them all. Every subcommand's help ends with an example (a test holds that).

mod artifacts;
mod asked;
mod attach;
mod boxes;
mod clock;
mod diff;
mod doctor;
mod drift;
mod engine;
mod error;
mod export;
mod farm;
mod follow;
mod gateway;
mod hook;
mod image;
mod init;
mod lists;
mod logs;
mod look;
mod out;
mod pages;
mod plan;
mod process;
mod recognise;
mod registry;
mod run;
mod screen;
mod servers;
pub(crate) mod shares;
mod show;
mod stats;
mod token;
mod traces;
mod up;
mod verify;
mod what;
mod why;

use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::report::exit::Exit;
use error::CliError;
use farm::FarmArgs;
pub(crate) use gateway::Whose;
pub(crate) use servers::keep_days_default;

/// A CI build farm for integration tests: every test starts on the same seeded, live stack.
#[derive(Debug, Parser)]
#[command(
    name = "andon",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  andon init              write andon.toml for the project in this folder\n  andon up                \
                  start the farm of this machine\n  andon run               run the tests of this working copy and follow them\n  andon \
                  rerun --failed    run what failed once more\n\nExit codes: 0 all passed, 2 usage, 4 no tests, 16 \
                  configuration error, 100 tests failed,\n105 baseline could not be built, 106 incomplete \
                  (infrastructure, cancelled, cord), 130 following ended by Ctrl-C."
)]
struct Cli {
    #[command(flatten)]
    farm: FarmArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented andon.toml for a project
    Init(init::InitArgs),
    /// Check this machine, the farm and the project, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Start the farm of this machine, or what is missing of it
    Up(up::UpArgs),
    /// Stop the farm of this machine
    Down(up::DownArgs),
    /// Run the tests of a working copy or a commit and follow them
    Run(run::RunArgs),
    /// Run some of an earlier run's tests again
    Rerun(run::RerunArgs),
    /// What a run would do: suites, tests, lanes, baseline; nothing is run
    Plan(plan::PlanArgs),
    /// Find out why a test failed: run it again alone, elsewhere, and after the tests before it
    Why(why::WhyArgs),
    /// Follow a run until it ends
    Watch(show::WatchArgs),
    /// Stop a run; what has not run is "not run"
    Cancel(show::CancelArgs),
    /// What a test wrote, or what the run itself did
    Logs(logs::LogsArgs),
    /// Files that a test left for people
    Artifacts(artifacts::ArtifactsArgs),
    /// What tests changed of their stack, and whose changes grow
    Drift(drift::DriftArgs),
    /// A shell beside the stack as a failed test left it, and its ports
    Attach(attach::AttachArgs),
    /// Which files a failed test changed of its stack
    Diff(diff::DiffArgs),
    /// A run: verdicts, figures, failures
    Show(show::ShowArgs),
    /// How a project's line flows, or one test over its runs: lead time, flakes, cost, what made it slower
    Stats(stats::StatsArgs),
    /// Write a run to a file, to rerun it elsewhere
    Export(export::ExportArgs),
    /// Runs, the latest first
    List(show::ListArgs),
    /// The post-receive hook of a bare repository
    #[command(subcommand, after_help = "Example:\n  andon hook install /srv/git/shop.git")]
    Hook(hook::HookCommand),
    /// Baselines of the farm
    #[command(subcommand, after_help = "Example:\n  andon baseline list")]
    Baseline(lists::BaselineCommand),
    /// A worker agent (in its box), or the list of workers
    #[command(
        after_help = "Examples:\n  andon worker list\n  ANDON_JOIN_TOKEN=… andon worker --coordinator http://farm:7077 \
                            --lanes 2"
    )]
    Worker(WorkerArgs),
    /// Images that workers get without a registry
    #[command(subcommand, after_help = "Example:\n  andon image add mysql:9")]
    Image(image::ImageCommand),
    /// A token of this machine's farm, for whoever gets a role
    Token(token::TokenArgs),
    /// Run a coordinator in the foreground
    Coordinator(servers::CoordinatorArgs),
    /// Poll repositories, hear webhooks, submit runs and tell forges, in the foreground
    Gateway(gateway::GatewayArgs),
    /// Let a commit of a fork's pull request run
    Approve(gateway::ApproveArgs),
    /// The JSON schema of andon.toml, for editors, on stdout
    Schema(pages::SchemaArgs),
    /// Manual pages
    Man(pages::ManArgs),
    /// Completions for a shell, on stdout
    Completions(pages::CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct WorkerArgs {
    #[command(subcommand)]
    command: Option<WorkerCommand>,
    #[command(flatten)]
    agent: servers::AgentArgs,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Workers that the farm knows
    #[command(after_help = "Examples:\n  andon worker list\n  andon worker list --json")]
    List(lists::JsonArgs),
}

/// The whole command, from arguments to exit code.
pub(crate) fn main() -> ExitCode {
    process::leave_terminal();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; a reader that went away is none either.
            let _ = error.print();
            let code = if error.use_stderr() { Exit::Usage.code() } else { Exit::Passed.code() };
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&CliError::infrastructure("cannot start the runtime").because(&error));
        }
    };
    match runtime.block_on(Box::pin(dispatch(cli))) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    if let Some(said) = error.render(out::stderr_colour()) {
        out::note(said.trim_end());
    }
    ExitCode::from(error.exit().code())
}

async fn dispatch(cli: Cli) -> Result<Exit, CliError> {
    let farm = &cli.farm;
    match cli.command {
        Command::Init(args) => init::init(&args),
        Command::Doctor(args) => doctor::doctor(&args, farm).await,
        Command::Up(args) => up::up(args, farm).await,
        Command::Down(args) => up::down(&args, farm).await,
        Command::Run(args) => run::run(args, farm).await,
        Command::Rerun(args) => run::rerun(args, farm).await,
        Command::Plan(args) => plan::plan(args, farm).await,
        Command::Why(args) => why::why(args, farm).await,
        Command::Watch(args) => show::watch(args, farm).await,
        Command::Cancel(args) => show::cancel(args, farm).await,
        Command::Logs(args) => logs::logs(args, farm).await,
        Command::Artifacts(args) => artifacts::artifacts(args, farm).await,
        Command::Drift(args) => drift::drift(args, farm).await,
        Command::Attach(args) => attach::attach(args, farm).await,
        Command::Diff(args) => diff::diff(args, farm).await,
        Command::Show(args) => show::show(args, farm).await,
        Command::Stats(args) => stats::stats(args, farm).await,
        Command::Export(args) => export::export(args, farm).await,
        Command::List(args) => show::list(args, farm).await,
        Command::Hook(command) => hook::hook(command, farm).await,
        Command::Baseline(command) => lists::baselines(command, farm).await,
        Command::Worker(WorkerArgs { command: Some(WorkerCommand::List(args)), .. }) => {
            lists::workers(&args, farm).await
        }
        Command::Worker(WorkerArgs { command: None, agent }) => servers::worker(agent, farm).await,
        Command::Image(command) => image::image(command, farm).await,
        Command::Token(args) => token::token(&args, farm),
        Command::Coordinator(args) => servers::coordinator(args, farm).await,
        Command::Gateway(args) => gateway::gateway(args, farm).await,
        Command::Approve(args) => gateway::approve(&args, farm),
        Command::Schema(pages::SchemaArgs {}) => pages::schema(),
        Command::Man(args) => pages::man(&args, Cli::command()),
        Command::Completions(args) => pages::completions(&args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_an_example_and_says_what_it_does() {
        fn check(command: &clap::Command, path: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{path} shows no example");
            assert!(help.contains("andon "), "{path}'s example is no command");
            assert!(command.get_about().is_some(), "{path} does not say what it does");
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "andon");
    }

    /// The command of a line of examples: without what is said beside it, and without what the shell does with it.
    fn example(line: &str) -> Option<Vec<String>> {
        let line = line.trim().split("  ").next()?;
        let cut = ["; ", " | ", " > ", " < "].iter().filter_map(|mark| line.find(mark)).min();
        let words = shlex::split(&line[..cut.unwrap_or(line.len())])?;
        let command = words.iter().position(|word| word == "andon")?;
        let variables = words[..command].iter().all(|word| word.contains('='));
        variables.then(|| words[command..].to_vec())
    }

    #[test]
    fn every_example_is_a_command_that_is_understood() {
        fn check(command: &clap::Command, path: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<Vec<String>> = help.lines().filter_map(example).collect();
            assert!(!examples.is_empty(), "{path} shows no example that is a command");
            for words in examples {
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{path}: {words:?}: {error}");
                }
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "andon");
    }

    #[test]
    fn every_argument_says_what_it_is() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments() {
                let said = argument.get_help().is_some() || argument.is_hide_set();
                assert!(said, "{path}: {} has no help", argument.get_id());
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "andon");
    }
}
