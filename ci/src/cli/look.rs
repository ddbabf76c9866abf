//! A look into what a failed test left, from the client's end: what `attach` and `diff` share.

use andon::connect::Connection;
use andon_proto::look_in::Body as In;
use andon_proto::look_open::What;
use andon_proto::look_out::Body;
use andon_proto::{LookIn, LookOpen, LookOut};
use clap::Args;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::error::CliError;
use super::{out, show};
use crate::report::text;

/// Messages that wait for the wire.
const AHEAD_MAX: usize = 8;

/// Whose stack.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Number of the run [default: the latest], then the failed test as `show` prints it: `suite/id` or `id`
    #[arg(value_name = "RUN|TEST", num_args = 1..=2, required = true)]
    words: Vec<String>,
    /// Which attempt, as `show --json` numbers them [default: the last that failed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    attempt: Option<u64>,
}

impl Target {
    /// What is to be opened, without what is done with it.
    pub(super) async fn open(&self, connection: &Connection, usage: &str) -> Result<LookOpen, CliError> {
        let (number, mut tests) = show::split_run(&self.words);
        let Some(test) = tests.pop().filter(|_| tests.is_empty()) else {
            return Err(CliError::usage("which test's stack?").hint(usage));
        };
        let run = show::run_or_latest(connection, number, "").await?;
        Ok(LookOpen { run, test, attempt: self.attempt.unwrap_or(0), what: None })
    }
}

/// One, under way.
pub(super) struct Look {
    test: String,
    say: mpsc::Sender<LookIn>,
    hear: Streaming<LookOut>,
    /// Of the command, once it has ended.
    exit_code: Option<i64>,
}

impl Look {
    pub(super) async fn open(connection: &Connection, open: &LookOpen, what: What) -> Result<Self, CliError> {
        let (say, said) = mpsc::channel(AHEAD_MAX);
        let test = open.test.clone();
        let open = LookOpen { what: Some(what), ..open.clone() };
        // There is room for the first.
        let _ = say.try_send(LookIn { body: Some(In::Open(open)) });
        let hear = connection.farm().look(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { test, say, hear, exit_code: None })
    }

    /// Where what is typed goes.
    pub(super) fn input(&self) -> mpsc::Sender<LookIn> {
        self.say.clone()
    }

    /// The next thing that is shown; `None` at the end. Notices are told here.
    pub(super) async fn next(&mut self) -> Result<Option<Body>, CliError> {
        loop {
            let message = self.hear.message().await?;
            let broke_off = || CliError::infrastructure("the farm broke off");
            match message.ok_or_else(broke_off)?.body {
                Some(Body::Ended(ended)) if ended.gone => {
                    let told =
                        format!("what {} left is not kept, or not any more", text::one_line(&self.test));
                    return Err(CliError::usage(told).hint(
                        "`[policy] keep = \"failed\"` in andon.toml keeps failed tests' stacks for a while; a rerun of the test \
                         leaves a fresh one",
                    ));
                }
                Some(Body::Ended(ended)) if !ended.refused.is_empty() => {
                    let why = text::lines(&ended.refused).into_owned();
                    return Err(CliError::infrastructure(why));
                }
                Some(Body::Ended(ended)) => {
                    self.exit_code = Some(ended.exit_code);
                    return Ok(None);
                }
                Some(Body::Notice(line)) => out::note(&text::one_line(&line)),
                Some(body) => return Ok(Some(body)),
                None => {}
            }
        }
    }

    /// Of the command.
    pub(super) fn exit_code(&self) -> i64 {
        self.exit_code.unwrap_or_default()
    }
}
