//! What failed tests leave is kept as the project asks, and can be looked into.

use std::time::Duration;

use andon_proto::look_in::Body as Heard;
use andon_proto::look_open::What;
use andon_proto::look_out::Body as Said;
use andon_proto::{
    LookBegun, LookChanges, LookEnded, LookOpen, LookPort, LookShell, Mount, Policy, TerminalSize, mount,
};

use super::*;
use crate::hands::LookLine;

const KEEP: Policy = Policy {
    keep_failed: true,
    keep_max: 2,
    keep_for_ms: 600_000,
    max_failures: 0,
    fail_fast: false,
    retry_budget: None,
    supersede: false,
    hedge: false,
    merge: false,
};

/// A database with a volume, whose failed tests' stacks are kept so.
fn kept_so(policy: Policy) -> RunSpec {
    let mut spec = spec();
    let data = Mount {
        target: "/data".to_owned(),
        read_only: false,
        source: Some(mount::Source::Volume("data".to_owned())),
    };
    let stack = spec.stack.as_mut().expect("the stack of the tests");
    stack.services[0].mounts.push(data);
    spec.policy = Some(policy);
    spec
}

struct Kept {
    bench: Bench,
    spec: RunSpec,
    key: String,
}

impl Kept {
    async fn new(policy: Policy, driver: Driver) -> Self {
        let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(driver)).await;
        let spec = kept_so(policy);
        let ready = bench.hands.prepare_baseline(1, &spec, &bench.notices).await.expect("it is built");
        let key = ready.manifest.expect("a manifest").key;
        Self { bench, spec, key }
    }

    /// Where the container of this name has its volume.
    fn volume(&self, container: &str) -> PathBuf {
        let spec = self.bench.engine.spec(container).expect("the container is there");
        let bind = spec.binds.iter().find(|bind| bind.target == "/data");
        bind.expect("its volume is bound").source.clone()
    }

    /// Runs a unit of one test, which writes this row and ends with this code, and puts the lane back.
    async fn unit(&self, attempt: u64, row: &str, exit_code: i64) {
        self.bench.engine.on_exec(move |_, _| Script::code(exit_code));
        let (sender, mut results) = mpsc::channel(8);
        let tests = vec![TestCase { attempt, id: "a test".to_owned() }];
        let cancel = CancellationToken::new();
        let ended = self.bench.hands.execute(0, 1, &self.spec, "s", &self.key, tests, sender, cancel).await;
        ended.expect("it runs");
        while results.recv().await.is_some() {}
        let own = layer(self.bench.dir.path(), "andon-lane0-db");
        std::fs::write(own.join("left"), row).expect("its layer can be written");
        std::fs::write(self.volume("andon-lane0-db").join("rows"), row).expect("its volume can be written");
        let settled = self.bench.hands.settle(0).await.expect("it is put back");
        let measured = settled.footprint.expect("it is measured").await;
        assert_eq!(measured.expect("it can be").footprint.files, 2);
        assert!(!self.volume("andon-lane0-db").join("rows").exists(), "the lane is pristine");
    }

    async fn look(&self, attempt: u64, what: What) -> (Vec<Said>, LookEnded) {
        let (_typing, hear) = mpsc::channel::<Heard>(1);
        let (say, mut said) = mpsc::channel(64);
        let open = LookOpen { run: 1, test: "a test".to_owned(), attempt, what: Some(what) };
        let ended = self.bench.hands.look(open, LookLine { hear, say }).await;
        let mut all = Vec::new();
        while let Some(said) = said.recv().await {
            all.push(said);
        }
        (all, ended)
    }

    /// The row that is found in what this attempt left.
    async fn row(&self, attempt: u64) -> Option<String> {
        let dir = self.bench.dir.path().to_owned();
        let found = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&found);
        self.bench.engine.on_exec(move |container, _| {
            let stack = container.rsplit_once('-').expect("a name of a lane's container").0;
            let db = format!("{stack}-db");
            let own = layer(&dir, &db).join("left");
            *seen.lock().expect("no test panics here") = std::fs::read_to_string(own).ok();
            Script { stdout: "a row\n".to_owned(), exit_code: 3, ..Script::default() }
        });
        let (said, ended) = self.look(attempt, What::Shell(LookShell::default())).await;
        if ended.gone {
            return None;
        }
        assert_eq!((ended.exit_code, ended.refused.as_str()), (3, ""));
        assert!(said.contains(&Said::Output(b"a row\n".to_vec())), "{said:?}");
        found.lock().expect("no test panics here").take()
    }
}

fn changes(files_max: u32) -> What {
    What::Changes(LookChanges { files_max })
}

#[tokio::test]
async fn what_a_failed_test_left_can_be_looked_into_again_and_again_beside_the_lane() {
    for driver in [Driver::Restart, Driver::Standby, Driver::Recreate] {
        let kept = Kept::new(KEEP, driver).await;
        kept.unit(7, "mine", 1).await;
        let (said, ended) = kept.look(7, changes(10)).await;
        assert_eq!(ended, LookEnded::default(), "{driver}");
        let told: Vec<u8> = said
            .iter()
            .flat_map(|said| match said {
                Said::Changes(piece) => piece.clone(),
                other => panic!("only changes are told: {other:?}"),
            })
            .collect();
        let told: serde_json::Value = serde_json::from_slice(&told).expect("it is JSON");
        assert_eq!(told["footprint"]["files"], 2);
        let trees = told["trees"].as_array().expect("trees");
        let files: Vec<_> = trees.iter().map(|tree| (&tree["tree"], &tree["files"][0]["path"])).collect();
        assert_eq!(
            format!("{files:?}"),
            r#"[(String("volume/data"), String("rows")), (String("layer/db"), String("left"))]"#
        );

        for _ in 0..2 {
            assert_eq!(kept.row(7).await.as_deref(), Some("mine"), "{driver}");
        }
        // Nothing of it stays, and the lane works on.
        assert!(!kept.bench.engine.containers().iter().any(|name| name.contains("look")));
        assert!(!kept.bench.engine.networks().iter().any(|name| name.contains("look")));
        kept.bench.engine.on_exec(|_, _| Script::default());
        kept.bench.unit(&kept.key).await.0.expect("the next unit runs");
        kept.bench.hands.shutdown().await;
    }
}

#[tokio::test]
async fn the_volumes_of_what_is_looked_into_are_those_that_the_test_left() {
    let kept = Kept::new(KEEP, Driver::Restart).await;
    kept.unit(7, "mine", 1).await;
    // Room for one message: it goes on only as what it says is read.
    kept.bench.engine.on_exec(|_, _| Script { stdout: "a".to_owned(), stderr: "b".to_owned(), exit_code: 0 });
    let (typing, hear) = mpsc::channel(4);
    let (say, mut said) = mpsc::channel(1);
    let shell = LookShell {
        service: "db".to_owned(),
        command: vec!["mysql".to_owned()],
        terminal: Some(TerminalSize { rows: 50, columns: 132 }),
    };
    let open = LookOpen { run: 1, test: String::new(), attempt: 7, what: Some(What::Shell(shell)) };
    // While it stands, its volume is looked at; then whoever looks goes.
    let watching = async {
        let begun = loop {
            match said.recv().await.expect("it begins") {
                Said::Begun(begun) => break begun,
                Said::Notice(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let LookBegun { look, services, tests_after, kept_for_ms } = begun;
        assert_eq!((services, tests_after), (vec!["db".to_owned()], 0));
        assert!((1..=600_000).contains(&kept_for_ms) && look.len() == 32);
        let rows = kept.volume("andon-lanelook1-db").join("rows");
        assert_eq!(std::fs::read_to_string(rows).expect("the row is there"), "mine");
        let nobody = LookPort { look: "another".to_owned(), service: String::new(), port: 1 };
        assert!(kept.look(7, What::Port(nobody)).await.1.gone);
        let no_port = LookPort { look, service: "db".to_owned(), port: 70_000 };
        let (_, ended) = kept.look(7, What::Port(no_port)).await;
        assert_eq!(ended.refused, "70000 is no port");
        drop(typing);
        while said.recv().await.is_some() {}
    };
    let (ended, ()) = tokio::join!(kept.bench.hands.look(open, LookLine { hear, say }), watching);
    assert_eq!(ended.refused, "");
    assert_eq!(kept.bench.calls("attach andon-lanelook1-db mysql"), 1);
}

#[tokio::test]
async fn only_failures_are_kept_only_where_it_is_asked_for_and_the_oldest_give_way() {
    let kept = Kept::new(KEEP, Driver::Restart).await;
    kept.unit(1, "one", 1).await;
    assert_eq!(kept.bench.calls("stop andon-lane0-db"), 1, "it writes out what it holds before it is kept");
    kept.unit(2, "two", 0).await;
    assert_eq!(kept.bench.calls("stop andon-lane0-db"), 1);
    assert!(kept.look(2, changes(1)).await.1.gone, "it passed");
    kept.unit(3, "three", 1).await;
    assert!(!kept.look(1, changes(1)).await.1.gone);
    kept.unit(4, "four", 1).await;
    assert!(kept.look(1, changes(1)).await.1.gone, "two are kept");
    assert_eq!(kept.row(3).await.as_deref(), Some("three"));
    assert_eq!(kept.row(4).await.as_deref(), Some("four"));

    let silent = Kept::new(Policy { keep_failed: false, ..KEEP }, Driver::Restart).await;
    silent.unit(1, "one", 1).await;
    assert!(silent.look(1, changes(1)).await.1.gone);
}

#[tokio::test]
async fn what_is_too_old_is_gone_and_leaves_the_pool() {
    let kept = Kept::new(Policy { keep_for_ms: 1, ..KEEP }, Driver::Restart).await;
    kept.unit(1, "one", 1).await;
    let gone = async {
        while !kept.look(1, changes(1)).await.1.gone {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("a millisecond passes");
    let trash = kept.bench.dir.path().join("pool/pool/trash");
    let trash = if trash.exists() { trash } else { kept.bench.dir.path().join("pool/trash") };
    let left = || std::fs::read_dir(&trash).map_or(0, Iterator::count);
    assert_eq!(left(), 1, "until the pool is tended");
    kept.bench.hands.tend(None).await.expect("it is tended");
    assert_eq!(left(), 0);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_named_and_what_does_not_start_says_why() {
    let kept = Kept::new(KEEP, Driver::Restart).await;
    kept.unit(1, "one", 1).await;
    let shell = LookShell { service: "cache".to_owned(), ..LookShell::default() };
    let (_, ended) = kept.look(1, What::Shell(shell)).await;
    assert_eq!(ended.refused, "the stack has no service `cache`; it has: db");
    let message = "no memory for a process".to_owned();
    let error = EngineError::Refused { what: "start".to_owned(), status: 500, message };
    kept.bench.engine.fail_next("start andon-lanelook2-db", error);
    let (_, ended) = kept.look(1, What::Shell(LookShell::default())).await;
    assert!(ended.refused.contains("no memory for a process"), "{}", ended.refused);
    assert_eq!(kept.row(1).await.as_deref(), Some("one"), "what is kept is none the worse");
    assert!(!kept.bench.engine.containers().iter().any(|name| name.contains("look")));
}
