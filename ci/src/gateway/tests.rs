//! Polling of real repositories, submitted to a coordinator that remembers.

use super::watcher::PollError;
use super::*;
use crate::git::mirror::Mirror;
use crate::testing::{FakeFarm, SAMPLE, TestRepo};

struct Setup {
    repo: TestRepo,
    farm: FakeFarm,
}

fn setup() -> Setup {
    let repo = TestRepo::sample();
    let farm = FakeFarm::start(repo.root());
    Setup { repo, farm }
}

fn watcher(config: &GatewayConfig) -> Watcher {
    std::fs::create_dir_all(&config.mirrors).unwrap();
    let shared = Shared::open(config).unwrap();
    Watcher::new(config, &config.projects[0], &shared).unwrap()
}

impl Setup {
    async fn config(&self) -> GatewayConfig {
        let url = RemoteUrl::parse(self.repo.work().to_str().unwrap()).unwrap();
        GatewayConfig {
            projects: vec![WatchedProject::polled("shop".into(), url, None, Credentials::None)],
            every: Duration::from_millis(50),
            mirrors: self.repo.root().join("mirrors"),
            connection: self.farm.connect().await,
            listen: None,
            run_url: None,
            guard: Guard::default(),
        }
    }

    /// A watcher as a gateway that was just started has it.
    async fn started(&self) -> Watcher {
        let config = self.config().await;
        watcher(&config)
    }

    fn commits(&self) -> Vec<String> {
        self.farm.runs().into_iter().map(|run| run.spec.commit).collect()
    }
}

#[tokio::test]
async fn each_head_runs_once_also_over_restarts() {
    let setup = setup();
    let first = setup.repo.head().to_string();
    let mut watcher = setup.started().await;
    watcher.poll().await.unwrap();
    watcher.poll().await.unwrap();
    assert_eq!(setup.commits(), std::slice::from_ref(&first));

    setup.repo.write("x", "x");
    let second = setup.repo.commit("while away").to_string();
    drop(watcher);
    let mut watcher = setup.started().await;
    watcher.poll().await.unwrap();
    assert_eq!(setup.commits(), [first, second]);
    let submissions = setup.farm.submissions();
    setup.started().await.poll().await.unwrap();
    assert_eq!(setup.farm.submissions(), submissions, "a restart repeats nothing");
}

#[tokio::test]
async fn forced_and_removed_branches_are_followed() {
    let setup = setup();
    let mut watcher = setup.started().await;
    watcher.poll().await.unwrap();
    setup.repo.git(&["commit", "-q", "--amend", "-m", "rewritten"]);
    setup.repo.git(&["branch", "master"]);
    watcher.poll().await.unwrap();
    assert_eq!(setup.farm.runs().len(), 2, "one commit on two branches is one run");
    assert!(watcher.seen.heads().contains_key("master"));
    setup.repo.git(&["branch", "-D", "master"]);
    watcher.poll().await.unwrap();
    assert!(!watcher.seen.heads().contains_key("master"));
    assert_eq!(setup.farm.runs().len(), 2);
}

#[tokio::test]
async fn only_watched_branches_run_and_the_gateway_may_say_which() {
    let setup = setup();
    setup.repo.git(&["checkout", "-q", "-b", "feature/x"]);
    setup.repo.write("x", "x");
    let feature = setup.repo.commit("feature").to_string();
    let main = setup.repo.git(&["rev-parse", "main"]);
    setup.started().await.poll().await.unwrap();
    assert_eq!(setup.commits(), std::slice::from_ref(&main));

    let mut config = setup.config().await;
    config.projects[0].branches = Some(vec!["feature/*".into()]);
    config.mirrors = setup.repo.root().join("others");
    watcher(&config).poll().await.unwrap();
    assert_eq!(setup.commits(), [main, feature]);
}

#[tokio::test]
async fn a_commit_with_mistakes_is_left_until_the_head_moves() {
    let setup = setup();
    setup.repo.write("andon.toml", SAMPLE.replace("retries", "retires"));
    setup.repo.commit("mistake");
    let mut watcher = setup.started().await;
    watcher.poll().await.unwrap();
    assert_eq!(watcher.seen.heads().len(), 1, "remembered, so that it is said once");
    assert_eq!(setup.farm.submissions(), 0);
    setup.repo.write("andon.toml", SAMPLE);
    let fixed = setup.repo.commit("fixed").to_string();
    watcher.poll().await.unwrap();
    assert_eq!(setup.commits(), [fixed]);
}

#[tokio::test]
async fn a_coordinator_that_is_away_costs_no_push() {
    let setup = setup();
    let mut config = setup.config().await;
    config.connection = Connection::open_lazily("unix:///nonexistent/farm.sock", "t").unwrap();
    let mut watcher = watcher(&config);
    let error = watcher.poll().await.expect_err("nobody is there");
    assert!(matches!(error, PollError::Submit { .. }), "{error}");
    assert!(watcher.seen.heads().is_empty());
    setup.started().await.poll().await.unwrap();
    assert_eq!(setup.farm.runs().len(), 1);
}

#[tokio::test]
async fn a_lasting_trouble_is_said_once() {
    let setup = setup();
    let mut watcher = setup.started().await;
    watcher.project.name = "gone".into();
    watcher.mirror = Mirror::new(
        &setup.repo.root().join("mirrors"),
        "gone",
        RemoteUrl::parse("/nonexistent/x.git").unwrap(),
        Credentials::None,
    )
    .unwrap();
    let ended = watcher.poll().await;
    watcher.say(ended);
    let first = watcher.trouble.clone();
    assert!(first.as_ref().is_some_and(|trouble| trouble.contains("/nonexistent/x.git")), "{first:?}");
    let ended = watcher.poll().await;
    watcher.say(ended);
    assert_eq!(watcher.trouble, first);
    watcher.say(Ok(()));
    assert_eq!(watcher.trouble, None);
}

#[tokio::test]
async fn a_push_is_seen_by_a_running_gateway_and_a_second_gateway_keeps_out() {
    let setup = setup();
    let config = setup.config().await;
    let gateway = tokio::spawn(run(config.clone(), drop));
    let reached = |count: usize| {
        let setup = &setup;
        async move {
            let waited = tokio::time::timeout(Duration::from_secs(30), async {
                while setup.farm.runs().len() < count {
                    tokio::task::yield_now().await;
                }
            });
            waited.await.expect("the gateway sees the push");
        }
    };
    reached(1).await;
    assert!(matches!(run(config, drop).await, Err(GatewayError::Busy(_))));
    setup.repo.write("x", "x");
    setup.repo.commit("pushed");
    reached(2).await;
    gateway.abort();
}

#[tokio::test]
async fn two_projects_of_one_name_are_refused() {
    let setup = setup();
    let mut config = setup.config().await;
    config.projects.push(config.projects[0].clone());
    assert!(matches!(run(config, drop).await, Err(GatewayError::Twice(name)) if name == "shop"));
}
