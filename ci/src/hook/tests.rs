//! Pushes told of to a coordinator that remembers them.

use super::*;
use crate::testing::{FakeFarm, SAMPLE, TestRepo};

struct Setup {
    repo: TestRepo,
    bare: PathBuf,
    farm: FakeFarm,
}

fn setup() -> Setup {
    let repo = TestRepo::sample();
    let bare = repo.bare("shop.git");
    let farm = FakeFarm::start(repo.root());
    Setup { repo, bare, farm }
}

impl Setup {
    fn push(&self) -> CommitId {
        self.repo.git(&["push", "-q", "--force", "origin", "--all"]);
        self.repo.head()
    }

    async fn receive(&self, lines: &str) -> String {
        let told = Receive {
            repository: self.bare.clone(),
            project: "shop".into(),
            coordinator: self.farm.url.clone(),
            token: self.farm.token().into(),
        };
        receive_with(&told, lines).await
    }
}

async fn receive_with(told: &Receive, lines: &str) -> String {
    let mut said = Vec::new();
    receive(told, lines.as_bytes(), &mut said).await;
    String::from_utf8(said).unwrap()
}

fn line(commit: &CommitId, reference: &str) -> String {
    format!("{} {commit} {reference}\n", "0".repeat(40))
}

#[tokio::test]
async fn a_push_to_a_watched_branch_starts_a_run_once() {
    let setup = setup();
    let commit = setup.push();
    let said = setup.receive(&line(&commit, "refs/heads/main")).await;
    assert_eq!(said, format!("andon: run 1 for main {} · andon watch 1\n", commit.short()));
    let [run] = setup.farm.runs().try_into().expect("one run");
    assert_eq!(run.dedup_key, format!("push:shop:{commit}"));
    assert_eq!((run.spec.commit, run.spec.git_ref), (commit.to_string(), "refs/heads/main".into()));
    assert_eq!(run.spec.provenance.unwrap().trigger(), Trigger::Push);
    let source = setup.farm.blob(&run.spec.source_digest).expect("the source was sent");
    assert_eq!(blake3::hash(&source).to_hex().to_string(), run.spec.source_digest);

    let puts = setup.farm.puts();
    let said = setup.receive(&line(&commit, "refs/heads/main")).await;
    assert!(said.contains("run 1 for main") && said.contains("has its run already"), "{said}");
    assert_eq!(setup.farm.runs().len(), 1);
    assert_eq!(setup.farm.puts(), puts + 1, "only the specification, which says when it was asked for");
}

#[tokio::test]
async fn tags_deletions_and_unwatched_branches_start_nothing_and_say_nothing() {
    let setup = setup();
    setup.repo.git(&["branch", "feature"]);
    let commit = setup.push();
    let deletion = format!("{commit} {} refs/heads/main\n", "0".repeat(40));
    let lines = [
        line(&commit, "refs/tags/v1"),
        line(&commit, "refs/heads/feature"),
        deletion,
        line(&commit, "refs/notes/x"),
    ];
    assert_eq!(setup.receive(&lines.concat()).await, "");
    assert_eq!(setup.farm.submissions(), 0);
}

#[tokio::test]
async fn the_pushed_commit_itself_says_which_branches_start_runs() {
    let setup = setup();
    setup.repo.write("andon.toml", format!("{SAMPLE}\n[triggers]\nbranches = [\"feature/*\"]\n"));
    setup.repo.commit("triggers");
    setup.repo.git(&["branch", "feature/x"]);
    let commit = setup.push();
    let lines = line(&commit, "refs/heads/main") + &line(&commit, "refs/heads/feature/x");
    let said = setup.receive(&lines).await;
    assert!(said.contains("for feature/x") && !said.contains("for main"), "{said}");
}

#[tokio::test]
async fn mistakes_are_told_to_the_pusher_all_at_once() {
    let setup = setup();
    setup.repo.write("andon.toml", SAMPLE.replace("retries", "retires").replace("\"60s\"", "\"60\""));
    let commit = {
        setup.repo.commit("mistakes");
        setup.push()
    };
    let said = setup.receive(&line(&commit, "refs/heads/main")).await;
    insta::assert_snapshot!(said.replace(&commit.short(), "1a2b3c4"), @r#"
    andon: no run for main 1a2b3c4
    andon: 2 mistakes in the project's configuration
    andon: andon.toml:14:12: "timeout" is "60": write a duration such as "500ms", "60s", "1m30s" or "2h"
    andon: andon.toml:15:1: unknown key "retires" in [[suite]], did you mean "retries"?
    "#);
    assert_eq!(setup.farm.submissions(), 0);
}

#[tokio::test]
async fn hostile_lines_are_refused_by_name_and_write_nothing_strange() {
    let setup = setup();
    let commit = setup.push();
    let lines = format!(
        "{}{}garbage\nx y\n{} {} refs/heads/main\n\u{1b}[2J a b\n",
        line(&commit, "refs/heads/--upload-pack=x"),
        line(&commit, "refs/heads/a\u{7}b"),
        "0".repeat(40),
        "z".repeat(40),
    );
    let said = setup.receive(&lines).await;
    assert!(said.contains("\"refs/heads/--upload-pack=x\" is no name for a branch"), "{said}");
    assert!(said.contains("\"garbage\" is no line of a push"), "{said}");
    assert!(
        said.lines().all(|line| line.starts_with("andon: ") && !line.chars().any(char::is_control)),
        "{said:?}"
    );
    assert_eq!(setup.farm.submissions(), 0);
}

#[tokio::test]
async fn a_commit_that_is_not_there_and_a_repository_that_is_none_are_said() {
    let setup = setup();
    let missing = CommitId::parse(&"1".repeat(40)).unwrap();
    let said = setup.receive(&line(&missing, "refs/heads/main")).await;
    assert!(said.starts_with("andon: no run for main 1111111\n"), "{said}");
}

#[tokio::test]
async fn a_coordinator_that_is_away_or_does_not_know_us_is_said() {
    let setup = setup();
    let commit = setup.push();
    let mut told = Receive {
        repository: setup.bare.clone(),
        project: "shop".into(),
        coordinator: "unix:///nonexistent/farm.sock".into(),
        token: String::new(),
    };
    let said = receive_with(&told, &line(&commit, "refs/heads/main")).await;
    assert!(said.starts_with("andon: cannot connect to the coordinator at unix:///nonexistent"), "{said}");
    told.coordinator.clone_from(&setup.farm.url);
    let said = receive_with(&told, &line(&commit, "refs/heads/main")).await;
    assert!(said.contains("no token"), "{said}");
}

#[tokio::test]
async fn a_flood_of_refs_is_cut() {
    let setup = setup();
    let commit = setup.push();
    let lines: String = (0..500).map(|n| line(&commit, &format!("refs/tags/v{n}"))).collect();
    let said = setup.receive(&lines).await;
    assert_eq!(said.lines().count(), 1);
    assert!(said.contains("more than 100 refs"), "{said}");
}
