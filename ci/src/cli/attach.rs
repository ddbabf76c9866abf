//! `andon attach`: a shell beside the stack as a failed test left it, and its ports on this machine.
//!
//! The stack is started anew from what the worker kept, for as long as this command runs; the kept state stays as it was.

mod ports;
mod terminal;

use andon_proto::look_in::Body as In;
use andon_proto::look_open::What;
use andon_proto::look_out::Body;
use andon_proto::{LookBegun, LookIn, LookShell};
use clap::Args;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use self::ports::{Forward, PortSpec};
use self::terminal::Terminal;
use super::error::CliError;
use super::farm::FarmArgs;
use super::look::{Look, Target};
use super::out;
use crate::report::exit::Exit;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon attach 12 tests/test_orders.py::test_place\n  andon attach 12 tests/test_orders.py::test_place --port \
                  3306:13306\n  andon attach 12 tests/test_orders.py::test_place --service db -- mysql -uroot shop -e 'select * from \
                  orders'\n\nThe stack starts from what the failed test left, in a clone of it: whatever is done here, the next attach sees \
                  what the test left.\nFailed tests' stacks are kept where andon.toml says `[policy] keep = \"failed\"`. The exit code is the \
                  command's;\n2 and 106 also where it could not be started."
)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    target: Target,
    /// Run the command in this service's container, and lead --port there [default: the suite's image; the only service]
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Lead a port of this machine to a port of the service; repeatable
    #[arg(long, value_name = "PORT[:LOCAL]")]
    port: Vec<PortSpec>,
    /// The command and its arguments [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn attach(args: AttachArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let mut forwards = Vec::new();
    for port in &args.port {
        forwards.push(Forward::bind(*port).await?);
    }
    let connection = farm.connect().await?;
    let open = args.target.open(&connection, "andon attach RUN TEST").await?;
    let service = args.service.unwrap_or_default();
    let terminal = Terminal::find();
    let shell = LookShell {
        service: service.clone(),
        command: args.command,
        terminal: terminal.as_ref().map(Terminal::size),
    };
    let mut look = Look::open(&connection, &open, What::Shell(shell)).await?;
    let mut forwarding = Vec::new();
    let mut typing = None;
    let mut raw = None;
    while let Some(said) = look.next().await? {
        match said {
            Body::Begun(begun) => {
                tell(&begun);
                for forward in forwards.drain(..) {
                    out::note(&forward.told(&service));
                    let led =
                        forward.lead(connection.clone(), open.clone(), begun.look.clone(), service.clone());
                    forwarding.push(AbortOnDropHandle::new(tokio::spawn(led)));
                }
                if let Some(terminal) = &terminal {
                    raw = Some(terminal.raw()?);
                    let sizes = terminal.sizes(look.input());
                    forwarding.push(AbortOnDropHandle::new(tokio::spawn(sizes)));
                }
                typing = Some(AbortOnDropHandle::new(tokio::spawn(type_on(terminal::stdin(), look.input()))));
            }
            Body::Output(bytes) => out::raw(&bytes)?,
            Body::Errors(bytes) => out::raw_note(&bytes),
            _ => {}
        }
    }
    drop((typing, raw, forwarding));
    // Codes beyond a byte are no process's.
    Ok(Exit::Command(u8::try_from(look.exit_code()).unwrap_or(u8::MAX)))
}

fn tell(begun: &LookBegun) {
    match begun.tests_after {
        0 => {}
        1 => out::note("one more test of its unit ran on the stack after it"),
        more => out::note(&format!("{more} more tests of its unit ran on the stack after it")),
    }
    let left = std::time::Duration::from_secs(begun.kept_for_ms / 1_000);
    out::note(&format!("what the test left is kept for {} more", humantime::format_duration(left)));
}

/// What is typed, until there is no more of it or nobody takes it.
async fn type_on(mut typed: mpsc::Receiver<Vec<u8>>, input: mpsc::Sender<LookIn>) {
    while let Some(bytes) = typed.recv().await {
        if input.send(LookIn { body: Some(In::Input(bytes)) }).await.is_err() {
            return;
        }
    }
    let _ = input.send(LookIn { body: Some(In::InputEnded(true)) }).await;
}
