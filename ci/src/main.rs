//! The `andon` command. What there is to type is in `cli`, what is shown in `report` and, on a whole terminal, in `screen`,
//! where a farm of this machine is found in `state`. The library beside it reads projects and speaks to the farm.

mod cli;
mod report;
mod screen;
mod state;

fn main() -> std::process::ExitCode {
    cli::main()
}
