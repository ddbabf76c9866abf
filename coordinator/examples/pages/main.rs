//! How fast pages and the JSON API answer from a large store, how large that is, and how well its figures find what was done to it. Prints
//! one JSON object.
//!
//! ```text
//! pages state=FOLDER [commits=1000] [projects=2] [suites=5] [tests=510] [seed=1] [asked=200] [scored=1000]
//! ```
//!
//! The folder is filled first, with what is not there yet (`history.rs`): each project has so many commits, each of them a run of so many
//! suites and tests. Then a coordinator in a process of its own serves it, and every address is asked `asked` times, one after the other,
//! over HTTP (`asking.rs`); what the figures tell of about `scored` tests is held against the truth (`scoring.rs`).

mod asking;
mod history;
mod scoring;
#[path = "../load/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use andon_coordinator::store::Store;
use andon_coordinator::store::sqlite::Sqlite;
use andon_figures::made::Model;
use asking::Asked;
use history::History;
use server::Server;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A coordinator answers within this after its start.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

struct Options {
    model: Model,
    state: Option<PathBuf>,
    asked: usize,
    scored: usize,
    /// Be the coordinator, there.
    serve: Option<std::net::SocketAddr>,
}

/// Two projects of a thousand commits: five million attempts.
fn large() -> Model {
    Model {
        projects: 2,
        commits: 1_000,
        suites: 5,
        tests: 510,
        slowdowns: 30,
        baselines: 12,
        farms: 8,
        flaky: 0.02,
        breakages: 40,
        ..Model::default()
    }
}

fn options(args: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options { model: large(), state: None, asked: 200, scored: 1_000, serve: None };
    for arg in args {
        let (name, value) = arg.split_once('=').ok_or_else(|| format!("{arg:?}: write name=value"))?;
        match name {
            "state" => options.state = Some(value.into()),
            "commits" => options.model.commits = value.parse()?,
            "projects" => options.model.projects = value.parse()?,
            "suites" => options.model.suites = value.parse()?,
            "tests" => options.model.tests = value.parse()?,
            "seed" => options.model.seed = value.parse()?,
            "asked" => options.asked = value.parse()?,
            "scored" => options.scored = value.parse()?,
            "serve" => options.serve = Some(value.parse()?),
            other => return Err(format!("there is no option {other:?}").into()),
        }
    }
    Ok(options)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = options(std::env::args().skip(1))?;
    let state = options.state.ok_or("state=FOLDER is missing")?;
    if let Some(address) = options.serve {
        return server::serve(&state, address).await;
    }
    std::fs::create_dir_all(&state)?;
    let (history, before) = History::of_folder(&state, options.model, now_unix_ms()?)?;
    let history = Arc::new(history);
    let store = Sqlite::open(&state.join("farm.db")).await?;
    let began = Instant::now();
    history::fill(&store, &history).await?;
    let filled = before + began.elapsed();
    history.keep(&state, filled)?;

    let server = Server::spawn(&state)?;
    let asked = Asked::new(server.url())?;
    let answers = async {
        while asked.get("/metrics").await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, answers).await?;
    let before = server.cpu()?;
    let took = asked.all(&history, options.asked).await?;
    let (memory_bytes, cpu) = (server.memory_bytes()?, server.cpu()? - before);
    let scores = scoring::all(&store, &asked, &history, options.scored).await?;
    let line = serde_json::json!({
        "seed": options.model.seed,
        "projects": options.model.projects,
        "commits": history.order.len(),
        "suites": options.model.suites,
        "attempts": attempts(&store, &history).await?,
        "tests": options.model.projects * options.model.suites * options.model.tests,
        "filled_s": filled.as_secs_f64(),
        "database_bytes": bytes(&state.join("farm.db"))?,
        "outputs_bytes": bytes(&state.join("outputs"))?,
        "memory_bytes": memory_bytes,
        "cpu_s": cpu.as_secs_f64(),
        "asked": options.asked,
        "routes": took,
        "scores": scores,
    });
    println!("{line}");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a history that ends now")]
fn now_unix_ms() -> Result<u64, Failure> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// As the ledger counts them.
async fn attempts(store: &dyn Store, history: &History) -> Result<u64, Failure> {
    let mut attempts = 0;
    for project in 0..history.world.model().projects {
        let days = store.days(&history::project_name(project), 0, u32::MAX).await?;
        attempts += days.iter().filter(|day| day.1.is_empty()).map(|day| day.2.attempts).sum::<u64>();
    }
    Ok(attempts)
}

/// Of a file, or of all files of a folder.
fn bytes(path: &Path) -> Result<u64, Failure> {
    if !path.is_dir() {
        return Ok(std::fs::metadata(path)?.len());
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}
