//! The benchmark of pages (`examples/pages`) on a small history: its generator, its questions and its scores, so that what `ci/bench pages` says is
//! known to be so.

#[path = "../examples/pages/asking.rs"]
mod asking;
#[path = "../examples/pages/history.rs"]
mod history;
#[path = "../examples/pages/scoring.rs"]
mod scoring;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use andon_coordinator::store::Store;
use andon_coordinator::store::ledger::{FROM_THE_NEWEST, Ledger};
use andon_coordinator::store::sqlite::Sqlite;
use andon_coordinator::{CoordinatorConfig, CoreConfig, WhereLed, serve};
use andon_core::ids::RunId;
use andon_figures::Outcome;
use andon_figures::flow::End;
use andon_figures::made::Model;
use asking::Asked;
use history::{BRANCH, History, project_name};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const NOW_UNIX_MS: u64 = 1_790_000_000_000;

fn small() -> Model {
    Model { projects: 2, commits: 40, suites: 2, tests: 10, slowdowns: 2, baselines: 2, ..Model::default() }
}

async fn filled(folder: &Path, model: Model) -> (Sqlite, Arc<History>) {
    let (history, _) = History::of_folder(folder, model, NOW_UNIX_MS).expect("the folder is empty");
    let history = Arc::new(history);
    let store = Sqlite::open(&folder.join("farm.db")).await.expect("a database");
    history::fill(&store, &history).await.expect("it is filled");
    (store, history)
}

#[tokio::test]
async fn the_store_and_its_ledger_hold_what_was_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, history) = filled(folder.path(), small()).await;
    assert!(store.to_enter(1).await.expect("a list").is_empty(), "every run is entered");
    for project in 0..2 {
        let name = project_name(project);
        let entered =
            store.entered(&name, "", Some(BRANCH), FROM_THE_NEWEST, 1_000).await.expect("the ledger");
        assert_eq!(entered.len(), 40);
        for of_ledger in entered {
            let (of, commit) = history.order[of_ledger.run.0 as usize - 1];
            let made = history.world.run(of, commit);
            assert_eq!((of, &of_ledger.commit), (project, &made.commit_name));
            assert_eq!(of_ledger.attempts, made.attempts.len() as u64, "{}", of_ledger.run);
            assert_eq!(of_ledger.ending, made.end, "{}", of_ledger.run);
            let busy_ms: u64 = made.attempts.iter().map(|one| one.duration_us / 1_000).sum();
            assert!(of_ledger.lane_ms >= busy_ms, "preparing and rebasing come on top");
            assert_eq!(of_ledger.baseline_key, history::key(&made.baseline));
        }
        let days = store.days(&name, 0, 1_000).await.expect("days");
        let of_days: u64 = days.iter().filter(|day| day.1.is_empty()).map(|day| day.2.attempts).sum();
        let made: usize = (0..40).map(|commit| history.world.run(project, commit).attempts.len()).sum();
        assert_eq!(of_days, made as u64);
    }
}

#[tokio::test]
async fn verdicts_and_attempts_are_the_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, history) = filled(folder.path(), small()).await;
    let mut flaky = 0;
    for (at, (project, commit)) in history.order.iter().enumerate() {
        let made = history.world.run(*project, *commit);
        let run = RunId(at as u64 + 1);
        let tests = store.tests(run).await.expect("tests");
        assert_eq!(tests.len(), 20);
        for (place, test) in history.world.tests(*project).zip(&tests) {
            let outcomes: Vec<Outcome> =
                made.attempts.iter().filter(|one| one.at == place).map(|one| one.outcome).collect();
            assert_eq!(test.attempts.len(), outcomes.len(), "{run} {}", test.id);
            flaky += usize::from(outcomes.contains(&Outcome::Passed) && outcomes[0].is_failure());
        }
        let row = store.run(run).await.expect("a store").expect("the run is there");
        assert!(row.ended_ms > row.started_ms && row.started_ms > row.created_ms);
        assert_eq!(row.counts.not_run > 0, made.end == End::Superseded, "{run}");
    }
    assert!(flaky > 0, "nothing flaked: the model says less than it should");
}

#[tokio::test]
async fn filling_goes_on_where_it_was_stopped_and_refuses_another_history() {
    let (whole, parts) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (at_once, _) = filled(whole.path(), small()).await;
    let (history, _) = History::of_folder(parts.path(), small(), NOW_UNIX_MS).expect("an empty folder");
    let mut first = history;
    first.order.truncate(31);
    let store = Sqlite::open(&parts.path().join("farm.db")).await.expect("a database");
    history::fill(&store, &Arc::new(first)).await.expect("the first part");
    assert_eq!(store.active().await.expect("a store").last_run, 31);
    // Another day: what is there says when the history was.
    let later = NOW_UNIX_MS + 3 * 86_400_000;
    let (again, _) = History::of_folder(parts.path(), small(), later).expect("the same history");
    history::fill(&store, &Arc::new(again)).await.expect("the rest");
    for project in 0..2 {
        let name = project_name(project);
        let one = at_once.entered(&name, "suite-1", None, FROM_THE_NEWEST, 100).await.expect("the ledger");
        let other = store.entered(&name, "suite-1", None, FROM_THE_NEWEST, 100).await.expect("the ledger");
        assert_eq!(one, other);
        let days = async |store: &Sqlite| store.days(&name, 0, 1_000).await.expect("days");
        assert_eq!(days(&at_once).await, days(&store).await);
    }
    let other = Model { seed: 2, ..small() };
    let refused = History::of_folder(parts.path(), other, later).expect_err("another history").to_string();
    assert!(refused.contains("holds another history"), "{refused}");
}

#[tokio::test]
async fn every_address_of_the_api_is_asked_and_answers_and_changes_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = Model { commits: 120, farms: 2, ..small() };
    let (store, history) = filled(folder.path(), model).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let config = CoordinatorConfig {
        state_dir: folder.path().to_owned(),
        store: None,
        listen: Some(address),
        socket: None,
        client_token: "client-token-of-the-tests".into(),
        role_tokens: Vec::new(),
        join_token: "join-token-of-the-tests-too".into(),
        core: CoreConfig::default(),
        keep_runs: None,
        where_led: WhereLed::Refuse,
        traces: None,
    };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(config, stop.clone()));
    let asked = Asked::new(format!("http://{address}")).expect("a client of HTTP");
    let answers = async {
        while asked.get("/metrics").await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, answers).await.expect("the coordinator answers");

    let took = asked.all(&history, 4).await.expect("every question has its answer");
    assert!(took.iter().all(|one| one.p50_ms <= one.p99_ms && one.p99_ms <= one.max_ms));
    let known: BTreeSet<&str> = took.iter().filter_map(|one| one.route.split('?').next()).collect();
    let document = asked.json("/api/v1/openapi.json").await.expect("the document");
    for path in document["paths"].as_object().expect("it has paths").keys() {
        // Nobody is connected and nobody owns the tests: there is no worker and no owner to ask for.
        let is_nobody = ["/{worker}", "/{owner}"].iter().any(|end| path.ends_with(end));
        assert!(known.contains(path.as_str()) || is_nobody, "{path} is not asked");
    }

    let scores = scoring::all(&store, &asked, &history, 40).await.expect("scores");
    assert_eq!(scores.tests_asked, 40);
    let (andon, averages) = scores.suites.split_first().expect("Andon is one of the ways");
    assert!(andon.there > 0 && andon.precision >= 0.6 && andon.recall >= 0.4, "{andon:?}");
    assert!(averages.iter().all(|average| average.both < andon.both), "{:?}", scores.suites);
    let flaky = &scores.flaky[0];
    assert!(flaky.there > 0 && flaky.precision >= 0.9 && flaky.recall >= 0.9, "{flaky:?}");

    stop.cancel();
    serving.await.expect("it does not panic").expect("it serves");
}
