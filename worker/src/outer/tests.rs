//! Boxes over an engine in memory.

use std::sync::Arc;

use super::*;
use crate::engine::fake::{FakeEngine, Script};
use crate::engine::{Engine, ImageInfo};
use crate::host::Capabilities;

fn outer() -> (Arc<FakeEngine>, Outer) {
    let engine = FakeEngine::new();
    engine.add_image("andon-worker", ImageInfo { id: "sha256:1".to_owned(), ..ImageInfo::default() });
    let privileges = privileges(Capabilities::new(0x1ff_feff_ffff, 40));
    (engine.clone(), Outer::new(engine, privileges))
}

fn spec(name: &str) -> BoxSpec {
    BoxSpec {
        name: name.to_owned(),
        farm: "f1".to_owned(),
        image: "andon-worker".to_owned(),
        socket: "/state/run/andon.sock".into(),
        join_token: "secret".to_owned(),
        lanes: Some(2),
        driver: None,
        env: vec![("RUST_LOG".to_owned(), "debug".to_owned())],
        shm_bytes: 0,
    }
}

#[tokio::test]
async fn a_box_is_told_everything_and_is_found_again_by_its_farm() {
    let (engine, outer) = outer();
    outer.start_worker(&spec("w1")).await.expect("started");
    let made = engine.spec("w1").expect("there");
    let env: BTreeMap<_, _> = made.env.into_iter().collect();
    assert_eq!(env["ANDON_COORDINATOR"], "unix:///run/andon-farm/andon.sock");
    assert_eq!(env["ANDON_LANES"], "2");
    assert_eq!(env["RUST_LOG"], "debug");
    assert_eq!(made.binds[0].source, PathBuf::from("/state/run"));
    assert_eq!(made.volumes[0].target, DATA_DIR);
    let names: Vec<String> =
        outer.list("f1").await.expect("listed").into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["w1"]);
    assert_eq!(outer.list("f2").await.expect("listed"), []);
}

#[tokio::test]
async fn a_missing_image_is_named_with_its_engine_before_anything_is_made() {
    let (engine, outer) = outer();
    let error = outer.start_worker(&BoxSpec { image: "no-such".to_owned(), ..spec("w1") }).await;
    let text = error.expect_err("no image").to_string();
    assert!(text.starts_with("the engine at fake:// has no image no-such"), "{text}");
    assert_eq!(engine.containers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_box_that_does_not_start_leaves_nothing_and_says_what_was_asked_for() {
    let (engine, outer) = outer();
    let refusal = EngineError::Refused {
        what: "start".to_owned(),
        status: 500,
        message: "unable to apply caps".to_owned(),
    };
    engine.fail_next("start w1", refusal);
    let error = outer.start_worker(&spec("w1")).await.expect_err("refused");
    assert!(error.to_string().contains("(capabilities ALL but SYS_RESOURCE)"), "{error}");
    assert_eq!(engine.containers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_ended_box_is_replaced_and_a_running_one_is_not() {
    let (engine, outer) = outer();
    outer.start_worker(&spec("w1")).await.expect("started");
    let error = outer.start_worker(&spec("w1")).await.expect_err("it runs");
    assert!(matches!(error, OuterError::NameTaken { .. }), "{error}");
    engine.end_container("w1", 1, false);
    outer.start_worker(&spec("w1")).await.expect("replaced");
}

#[tokio::test]
async fn an_agent_that_ran_out_of_memory_is_told_from_one_that_failed_or_was_killed() {
    let (engine, outer) = outer();
    let id = outer.start_worker(&spec("w1")).await.expect("started");
    assert_eq!(outer.end_of(&id).await.expect("known"), None);
    for (code, oom_killed, words) in [
        (137, true, Some("exit code 137: the agent ran out of memory, and the box has no limit of its own")),
        // Something of it was killed for that, at some time; it ended by itself.
        (1, true, Some("exit code 1")),
        (137, false, Some("exit code 137")),
        (0, false, None),
    ] {
        engine.end_container("w1", code, oom_killed);
        assert_eq!(outer.end_of(&id).await.expect("known").as_deref(), words);
    }
}

#[tokio::test]
async fn a_box_is_thawed_before_it_is_asked_to_end_and_removed_with_its_volume() {
    let (engine, outer) = outer();
    outer.start_worker(&spec("w1")).await.expect("started");
    engine.pause_container("w1").await.expect("paused");
    engine.on_exec(|_, exec| {
        assert!(exec.argv[2].contains("THAWED"));
        Script::default()
    });
    engine.clear_calls();
    assert_eq!(outer.remove_all("f1").await.expect("removed"), 1);
    let calls: Vec<String> =
        engine.calls().iter().map(|call| call.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(calls, ["list-containers", "inspect", "unpause", "exec", "stop", "remove"]);
    assert_eq!(engine.containers(), Vec::<String>::new());
}

#[tokio::test]
async fn removing_what_is_not_there_is_no_error() {
    let (_, outer) = outer();
    outer.remove("w9").await.expect("nothing to do");
    assert_eq!(outer.remove_all("f1").await.expect("nothing to do"), 0);
}

#[test]
fn docker_host_decides_and_an_empty_one_does_not() {
    assert_eq!(engine_address(Some("tcp://x:1".to_owned())), "tcp://x:1");
    assert_eq!(engine_address(Some(String::new())), DEFAULT_ADDRESS);
    assert_eq!(engine_address(None), DEFAULT_ADDRESS);
}
