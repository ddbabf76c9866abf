//! From `git push` to a status, a second push, a comment, a fork: with the real coordinator and the real gateway.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::forge::{FakeForge, SECRET, TOKEN, deliver, payload};
use crate::support::{self, Coordinator};
use crate::worker::HandWorker;

const TOML: &str = "[[suite]]\nname = \"unit\"\nimage = \"debian:trixie-slim\"\ndiscover = \"ls\"\nrun = \"true \
                    {tests}\"\negress = [\"pypi.org:443\"]\n[triggers]\nbranches = [\"main\"]\n";
const TESTS: [&str; 2] = ["tests/test_a.py::test_one", "tests/test_a.py::test_two"];
const CONTEXT: &str = "andon/unit";
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A gateway in the foreground, ended with the test.
struct Gateway {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    fn start(farm: &Coordinator, config: &Path) -> Self {
        let log = config.with_extension("log");
        let stderr = std::fs::File::create(&log).expect("a log");
        let child = farm
            .command(&["gateway", "--webhooks", "127.0.0.1:0"])
            .arg("--config")
            .arg(config)
            .env("FORGE_TOKEN", TOKEN)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the gateway starts");
        let mut gateway = Self { child, address: String::new(), log };
        let said = gateway.says("webhooks are heard on ");
        let rest = said.split("webhooks are heard on ").nth(1).expect("it was found");
        gateway.address = rest.split(',').next().expect("an address").to_owned();
        gateway
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said something.
    fn says(&self, words: &str) -> String {
        eventually(&format!("{words:?} in {}", self.log.display()), || {
            let said = self.said();
            said.contains(words).then_some(said)
        })
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

struct Setup {
    farm: Coordinator,
    fake: FakeForge,
    worker: HandWorker,
    copy: tempfile::TempDir,
    bare: PathBuf,
    temp: tempfile::TempDir,
}

fn setup() -> Setup {
    let farm = Coordinator::start();
    let worker = HandWorker::join(&farm.state(), &TESTS);
    let copy = support::repository(&[("andon.toml", TOML)]);
    let temp = tempfile::tempdir().expect("a folder");
    let bare = temp.path().join("shop.git");
    support::git(temp.path(), &["init", "-q", "--bare", bare.to_str().expect("UTF-8")]);
    Setup { farm, fake: FakeForge::start(), worker, copy, bare, temp }
}

impl Setup {
    /// A `gateway.toml` as a team writes it, with this more for the project.
    fn config(&self, more: &str) -> PathBuf {
        std::fs::write(self.temp.path().join("webhook.secret"), format!("{SECRET}\n")).expect("written");
        let path = self.temp.path().join("gateway.toml");
        let text = format!(
            "[polling]\nevery = \"50s\"\n[statuses]\nrun_url = \"https://andon.example.org/runs/{{run}}\"\n[network]\nallow = \
             [\"127.0.0.1\"]\n[[project]]\nname = \"shop\"\nurl = \"{}\"\nforge = \"github\"\napi = \
             \"http://{}/github\"\nrepository = \"acme/shop\"\nwebhook_secret = {{ file = \"webhook.secret\" }}\ntoken = {{ env \
             = \"FORGE_TOKEN\" }}\n{more}",
            self.bare.display(),
            self.fake.address,
        );
        std::fs::write(&path, text).expect("written");
        path
    }

    fn git(&self, arguments: &[&str]) {
        support::git(self.copy.path(), arguments);
    }

    fn head(&self) -> String {
        let mut command = std::process::Command::new("git");
        let output =
            command.current_dir(self.copy.path()).args(["rev-parse", "HEAD"]).output().expect("git runs");
        String::from_utf8(output.stdout).expect("an id").trim().to_owned()
    }

    fn push_to(&self, reference: &str) -> String {
        self.git(&[
            "push",
            "-q",
            "--force",
            self.bare.to_str().expect("UTF-8"),
            &format!("HEAD:{reference}"),
        ]);
        self.head()
    }

    fn commit(&self) {
        support::commit(self.copy.path());
    }

    fn runs(&self) -> Vec<Value> {
        let list = self.farm.run(&["list", "--json"]);
        serde_json::from_slice(&list.stdout).expect("a list")
    }
}

fn pushed(gateway: &Gateway, id: &str, commit: &str) {
    let body = payload("github-push", &[("$COMMIT", commit), ("$REF", "refs/heads/main")]);
    let asked = Instant::now();
    let (status, said) = deliver(&gateway.address, "shop", id, "push", &body);
    assert_eq!(status, 202, "{said}");
    println!("webhook acknowledged after {:?}", asked.elapsed());
}

fn commented(gateway: &Gateway, id: &str, association: &str, words: &str) {
    let pairs = [("$LOGIN", "ann"), ("$ASSOCIATION", association), ("$BODY", words), ("492700400", id)];
    let (status, said) =
        deliver(&gateway.address, "shop", id, "issue_comment", &payload("github-issue-comment", &pairs));
    assert_eq!(status, 202, "{said}");
}

fn pull_request(gateway: &Gateway, id: &str, name: &str, action: &str, commit: &str) {
    let body = payload(name, &[("$COMMIT", commit), ("$ACTION", action)]);
    let (status, said) = deliver(&gateway.address, "shop", id, "pull_request", &body);
    assert_eq!(status, 202, "{said}");
}

#[test]
fn a_push_is_told_of_superseded_by_the_next_and_rerun_by_a_comment() {
    let setup = setup();
    let gateway = Gateway::start(&setup.farm, &setup.config(""));
    setup.worker.hold(true);
    let first = setup.push_to("refs/heads/main");
    let asked = Instant::now();
    pushed(&gateway, "1", &first);
    setup.fake.wait_for_state(&first, CONTEXT, "pending");
    println!("push by webhook to pending at the forge: {:?}", asked.elapsed());
    let started = eventually("a test of the push starts", || setup.worker.first_start());
    println!("push by webhook to the first test's start: {:?}", started.duration_since(asked));

    // A second push while the first one runs.
    setup.commit();
    let second = setup.push_to("refs/heads/main");
    let asked = Instant::now();
    pushed(&gateway, "2", &second);
    let said = setup.fake.wait_for_state(&first, CONTEXT, "error");
    assert_eq!(said, format!("cancelled, superseded by {}", &second[..12]));
    println!("second push to superseded at the forge: {:?}", asked.elapsed());
    setup.worker.fail(TESTS[1], "tests/test_a.py:12: AssertionError");
    setup.worker.hold(false);
    let said = setup.fake.wait_for_state(&second, CONTEXT, "failure");
    assert_eq!(said, "1 passed, 1 failed");

    // The same commit is the head of a pull request; somebody asks for another try.
    setup.push_to("refs/pull/7/head");
    pull_request(&gateway, "3", "github-pull-request", "opened", &second);
    setup.worker.pass(TESTS[1]);
    commented(&gateway, "4", "NONE", "/andon rerun");
    gateway.says("is refused: ann may not write");
    let before = setup.runs().len();
    assert_eq!(before, 2, "the pull request's commit has its run already: {:#?}", setup.runs());
    let asked = Instant::now();
    commented(&gateway, "5", "MEMBER", "/andon rerun");
    let said = setup.fake.wait_for_state(&second, CONTEXT, "success");
    assert_eq!(said, "rerun of run 2: 1 passed");
    println!("comment to success at the forge: {:?}", asked.elapsed());
    assert_eq!(setup.runs().len(), 3);
    let urls: Vec<_> = setup
        .fake
        .came()
        .iter()
        .filter_map(|came| came.body["target_url"].as_str().map(str::to_owned))
        .collect();
    assert!(urls.iter().all(|url| url.starts_with("https://andon.example.org/runs/")), "{urls:?}");
    let said = gateway.said();
    assert!(!said.contains(TOKEN) && !said.contains(SECRET), "{said}");
}

#[test]
fn a_forks_pull_request_waits_for_an_approval_of_its_very_commit() {
    let setup = setup();
    setup.push_to("refs/heads/main");
    let gateway = Gateway::start(&setup.farm, &setup.config(""));
    eventually("the branch's own run", || (setup.runs().len() == 1).then_some(()));
    setup.commit();
    let first = setup.push_to("refs/pull/7/head");
    pull_request(&gateway, "1", "github-pull-request-fork", "opened", &first);
    let said = setup.fake.wait_for_state(&first, "andon/approval", "pending");
    assert!(said.contains(&format!("/andon approve {}", &first[..7])), "{said}");
    commented(&gateway, "2", "CONTRIBUTOR", "/andon approve");
    gateway.says("approve on pull request 7 is refused: ann may not write");
    assert_eq!(setup.runs().len(), 1, "nothing ran");

    // The head moves between the look and the approval: what was looked at is not what would run.
    setup.commit();
    let second = setup.push_to("refs/pull/7/head");
    pull_request(&gateway, "3", "github-pull-request-fork", "synchronize", &second);
    setup.fake.wait_for_state(&second, "andon/approval", "pending");
    commented(&gateway, "4", "OWNER", &format!("/andon approve {}", &first[..7]));
    gateway.says("not approved: the head of pull request 7 is");
    assert_eq!(setup.runs().len(), 1, "nothing ran");

    commented(&gateway, "5", "OWNER", &format!("/andon approve {}", &second[..7]));
    setup.fake.wait_for_state(&second, CONTEXT, "success");
    assert_eq!(setup.fake.wait_for_state(&second, "andon/approval", "success"), "approved by ann");
    assert_eq!(setup.runs().len(), 2);

    // A later push needs another approval; the command gives one, too.
    setup.commit();
    let third = setup.push_to("refs/pull/7/head");
    pull_request(&gateway, "6", "github-pull-request-fork", "synchronize", &third);
    setup.fake.wait_for_state(&third, "andon/approval", "pending");
    assert_eq!(setup.runs().len(), 2, "the approval was of one commit");
    let wrong = setup.farm.run(&["approve", "shop", "7", &second[..7]]);
    assert_eq!(wrong.status.code(), Some(2), "{}", support::complained(&wrong));
    let approved = setup.farm.run(&["approve", "shop", "7"]);
    assert_eq!(approved.status.code(), Some(0), "{}", support::complained(&approved));
    assert!(support::said(&approved).contains(&third), "{}", support::said(&approved));
    // Whatever comes next wakes the gateway; polling would, too.
    pull_request(&gateway, "7", "github-pull-request-fork", "reopened", &third);
    setup.fake.wait_for_state(&third, CONTEXT, "success");
    assert_eq!(setup.runs().len(), 3);
}

#[test]
fn a_lost_webhook_a_killed_gateway_and_a_forge_that_is_away_lose_nothing() {
    let setup = setup();
    let config = setup.config("");
    let commit = setup.push_to("refs/heads/main");
    // No webhook: the poll at the start finds it. The forge is away for a while.
    let away = crate::forge::Instead { status: 503, headers: vec![] };
    setup.fake.instead(vec![away; 3]);
    let gateway = Gateway::start(&setup.farm, &config);
    setup.fake.wait_for_state(&commit, CONTEXT, "success");
    drop(gateway);

    // Told of, acknowledged, and killed at once: the next gateway does it.
    setup.commit();
    let commit = setup.push_to("refs/pull/7/head");
    let gateway = Gateway::start(&setup.farm, &config);
    pull_request(&gateway, "1", "github-pull-request", "opened", &commit);
    drop(gateway);
    let gateway = Gateway::start(&setup.farm, &config);
    setup.fake.wait_for_state(&commit, CONTEXT, "success");
    assert_eq!(setup.runs().len(), 2);

    // The same delivery again starts nothing.
    let body = payload("github-pull-request", &[("$COMMIT", &commit), ("$ACTION", "opened")]);
    let (status, said) = deliver(&gateway.address, "shop", "1", "pull_request", &body);
    assert_eq!(status, 200, "{said}");
    let (status, said) = deliver(&gateway.address, "shop", "other", "pull_request", &body);
    assert!(status == 200 && said.contains("replayed"), "{said}");
    assert_eq!(setup.runs().len(), 2);
}

#[test]
fn pull_requests_whose_webhook_was_lost_are_found_but_for_those_that_were_open_before() {
    let setup = setup();
    let config = setup.config("");
    setup.push_to("refs/heads/main");
    setup.commit();
    let old = setup.push_to("refs/pull/7/head");
    setup.fake.open_pull(7, &old, false);
    let gateway = Gateway::start(&setup.farm, &config);
    let remembered = setup.farm.state().join("gateway/pulls.ledger");
    eventually("the first look is remembered", || {
        std::fs::read_to_string(&remembered).is_ok_and(|text| text.contains("shop/7")).then_some(())
    });
    eventually("the branch's own run", || (setup.runs().len() == 1).then_some(()));
    drop(gateway);
    // Two pull requests move while nobody listens: one of the project's own, one of a fork.
    setup.commit();
    let own = setup.push_to("refs/pull/7/head");
    setup.fake.open_pull(7, &own, false);
    setup.commit();
    let fork = setup.push_to("refs/pull/8/head");
    setup.fake.open_pull(8, &fork, true);
    let _gateway = Gateway::start(&setup.farm, &config);
    setup.fake.wait_for_state(&own, CONTEXT, "success");
    setup.fake.wait_for_state(&fork, "andon/approval", "pending");
    assert_eq!(setup.runs().len(), 2, "the old one and the fork's did not run: {:#?}", setup.runs());
}

#[test]
fn a_configuration_with_mistakes_is_refused_with_all_of_them() {
    let setup = setup();
    let path = setup.config("forks = \"sometimes\"\n");
    let gateway = |path: &Path| {
        let mut command = setup.farm.command(&["gateway"]);
        command.arg("--config").arg(path).output().expect("it ends")
    };
    let refused = gateway(&path);
    assert_eq!(refused.status.code(), Some(16), "{}", support::complained(&refused));
    assert!(support::complained(&refused).contains("after-approval"), "{}", support::complained(&refused));
    let path = setup.config("");
    let refused = gateway(&path);
    let said = support::complained(&refused);
    assert!(said.contains("FORGE_TOKEN is not in the environment"), "{said}");
    let mut text = String::new();
    std::fs::File::open(&path).expect("there").read_to_string(&mut text).expect("read");
    assert!(!text.contains(TOKEN) && !text.contains(SECRET));
}
