//! The `andon` command. What there is to type is in `cli`, what is shown in `report`, where a farm of this machine
//! is found in `state`. The library beside it reads projects and speaks to the farm.

mod cli;
mod report;
mod state;

fn main() -> std::process::ExitCode {
    cli::main()
}
