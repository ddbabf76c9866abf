//! `andon logs`: what a test wrote, what the services of its stack had written when it failed, or what the run itself did; as
//! it is, or as it comes.
//!
//! Following asks for the log again and again and shows what is new of it, until the test has its verdict or the run is over.
//! What is new is decided by `report::unread`. A coordinator that is restarted meanwhile is asked again for a bounded time.

use std::time::Duration;

use andon::connect::Connection;
use andon_proto::run_event::Event;
use andon_proto::{GetArtifactsRequest, GetLogRequest, GetLogResponse, Verdict, WatchRunRequest};
use andon_worker::service_of_log;
use clap::Args;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt as _;

use super::error::CliError;
use super::farm::FarmArgs;
use super::follow::{self, RECONNECT_EVERY, RECONNECT_FOR};
use super::show::{run_or_latest, split_run};
use super::{artifacts, clock, out};
use crate::report::exit::{self, Exit};
use crate::report::unread::{News, Unread};
use crate::report::{ids, text, words};

/// How often a log is asked for while it is followed. Workers send what comes every two seconds.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon logs 12         what the run itself did: baseline, discovery\n  andon logs 12 \
                        tests/test_orders.py::test_place\n  andon logs 12 integration/tests/test_orders.py::test_place \
                        --attempt 3\n  andon logs 12 tests/test_orders.py::test_place --service db\n  andon logs 12 --since 5m\n  andon logs -f         the latest run, until it ends"
)]
pub(crate) struct LogsArgs {
    /// Number of the run [default: the latest], then the test as `show` prints it: `suite/id` or `id`
    #[arg(value_name = "RUN|TEST", num_args = 0..=2)]
    words: Vec<String>,
    /// Which attempt, as `show --json` numbers them [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    attempt: Option<u64>,
    /// What this service of the stack had written when the test failed
    #[arg(long, value_name = "NAME", conflicts_with_all = ["follow", "since"])]
    service: Option<String>,
    /// Go on with what comes, until the test has its verdict or the run is over
    #[arg(short, long)]
    follow: bool,
    /// Of the run's own log only what is younger: 90s, 5m, 2h
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Bytes as the test wrote them, also on a terminal: escape sequences are obeyed
    #[arg(long)]
    raw: bool,
}

pub(crate) async fn logs(args: LogsArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let (number, mut tests) = split_run(&args.words);
    let test = tests.pop().unwrap_or_default();
    if !tests.is_empty() {
        return Err(CliError::usage(format!("{:?} is no run: its number comes first", tests[0]))
            .hint("andon logs RUN TEST"));
    }
    if args.since.is_some() && !test.is_empty() {
        return Err(CliError::usage("--since is for the run's own log: what a test writes has no times")
            .hint("andon logs RUN --since 5m"));
    }
    if args.service.is_some() && test.is_empty() {
        return Err(CliError::usage("--service: of which test? Each has a stack of its own")
            .hint("andon logs RUN TEST --service NAME"));
    }
    let connection = farm.connect().await?;
    let run = run_or_latest(&connection, number, "").await?;
    if let Some(service) = &args.service {
        let request = GetArtifactsRequest { run, test, attempt: args.attempt.unwrap_or(0) };
        return show(&service_log(&connection, request, service).await?, args.raw);
    }
    let since_unix_ms = args
        .since
        .map_or(0, |age| clock::unix_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
    let request = GetLogRequest { run, test, attempt: args.attempt.unwrap_or(0), since_unix_ms };
    if args.follow {
        return follow_log(&connection, request, args.raw).await;
    }
    let log = connection.farm().get_log(request).await?.into_inner();
    show(&log.text, args.raw)
}

/// What a service had written, by what the unit's archive holds of the attempt.
async fn service_log(
    connection: &Connection,
    request: GetArtifactsRequest,
    service: &str,
) -> Result<Vec<u8>, CliError> {
    let of = request.test.clone();
    let answer = connection.farm().get_artifacts(request).await?.into_inner();
    let (kept, attempt) = (answer.artifacts.unwrap_or_default(), answer.attempt);
    let archive = artifacts::download(connection, &kept).await?;
    let mut logs = artifacts::files(&archive, |path| service_of_log(path, attempt).map(str::to_owned))?;
    if let Some(log) = logs.remove(service) {
        return Ok(log);
    }
    if logs.is_empty() {
        let of = text::one_line(&of);
        return Err(CliError::usage(format!("no service's log was kept of attempt {attempt} of {of}")).hint(
            "they are kept where a test failed; `andon show RUN --json` numbers its attempts, for --attempt N",
        ));
    }
    let names = logs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(CliError::usage(format!("no log of a service {service:?} was kept, but of these: {names}")))
}

/// All of a log.
fn show(log: &[u8], raw: bool) -> Result<Exit, CliError> {
    if log.is_empty() {
        out::note("nothing was written");
    } else {
        write(log, raw)?;
        if !raw && out::is_terminal() && !log.ends_with(b"\n") {
            out::line("")?;
        }
    }
    Ok(Exit::Passed)
}

/// On a terminal harmless, elsewhere as it is.
fn write(log: &[u8], raw: bool) -> Result<(), CliError> {
    if raw || !out::is_terminal() {
        out::raw(log)?;
    } else {
        out::print(&text::lines(&String::from_utf8_lossy(log)))?;
    }
    Ok(())
}

async fn follow_log(connection: &Connection, request: GetLogRequest, raw: bool) -> Result<Exit, CliError> {
    let over = until_over(connection, request.run, &request.test);
    tokio::pin!(over);
    let mut ask = tokio::time::interval(ASK_EVERY);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = Shown { attempt: 0, unread: Unread::default(), raw };
    let mut patience = Patience::default();
    let (mut ended, mut waits) = (false, false);
    loop {
        tokio::select! {
            result = &mut over, if !ended => {
                result?;
                ended = true;
            }
            _ = ask.tick() => {}
        }
        // Asked after the end was known: so it is all there.
        match connection.farm().get_log(request.clone()).await {
            Ok(log) => {
                patience = Patience::default();
                shown.take(&log.into_inner(), ended)?;
                if ended {
                    return Ok(Exit::Passed);
                }
            }
            Err(status) if follow::is_cut(&status) => patience.lost()?,
            // Its attempt, or the discovery that finds it, is still to come.
            Err(status) if status.code() == tonic::Code::NotFound && !ended => {
                if !std::mem::replace(&mut waits, true) {
                    out::note(&format!("{}; waiting for it", text::one_line(status.message())));
                }
            }
            Err(status) => return Err(status.into()),
        }
    }
}

/// What was written of a log.
struct Shown {
    attempt: u64,
    unread: Unread,
    raw: bool,
}

impl Shown {
    fn take(&mut self, log: &GetLogResponse, last: bool) -> Result<(), CliError> {
        if log.attempt != self.attempt {
            if self.attempt != 0 {
                out::note(&format!("attempt {}:", log.attempt));
            }
            (self.attempt, self.unread) = (log.attempt, Unread::default());
        }
        match self.unread.next(&log.text, last) {
            News::More(more) => write(more, self.raw),
            News::Anew(text) => {
                out::note("what the test itself wrote:");
                write(text, self.raw)
            }
        }
    }
}

/// How long a farm has been silent.
#[derive(Default)]
struct Patience {
    since: Option<Instant>,
}

impl Patience {
    fn lost(&mut self) -> Result<(), CliError> {
        let since = *self.since.get_or_insert_with(|| {
            out::note("the coordinator does not answer; asking again");
            Instant::now()
        });
        if since.elapsed() > RECONNECT_FOR {
            let waited = words::millis(RECONNECT_FOR.as_millis() as u64);
            return Err(CliError::infrastructure(format!("the coordinator has not answered for {waited}")));
        }
        Ok(())
    }
}

/// Ends when the run is over, or the test (where one is named) has its verdict.
async fn until_over(connection: &Connection, run: u64, test: &str) -> Result<(), CliError> {
    loop {
        match one_stream(connection, run, test).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(status) if follow::is_cut(&status) => {}
            Err(status) => return Err(status.into()),
        }
        // Whoever asks for the log meanwhile notices how long the farm is silent.
        tokio::time::sleep(RECONNECT_EVERY).await;
    }
}

/// Whether it came to the end; false where the stream broke before.
async fn one_stream(connection: &Connection, run: u64, test: &str) -> Result<bool, tonic::Status> {
    let decided = |told: &andon_proto::Test| {
        let named = told.id == test || ids::full(&told.suite, &told.id) == test;
        !test.is_empty() && named && told.verdict() != Verdict::Unspecified
    };
    let mut events = connection.farm().watch_run(WatchRunRequest { run }).await?.into_inner();
    // Asked after the stream began, so that no verdict falls between the two.
    let request = andon_proto::GetRunRequest { run, with_tests: !test.is_empty() };
    let now = connection.farm().get_run(request).await?.into_inner();
    if exit::is_over(now.state()) || now.tests.iter().any(decided) {
        return Ok(true);
    }
    while let Some(event) = events.next().await {
        let over = match event?.event {
            Some(Event::Run(run)) => exit::is_over(run.state()),
            Some(Event::Verdict(told)) => decided(&told),
            _ => false,
        };
        if over {
            return Ok(true);
        }
    }
    Ok(false)
}
