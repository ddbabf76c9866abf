//! What is handed through to the daemon. Direct starts themselves are shown with a real one: `tests/tests/direct.rs`.

use super::*;
use crate::engine::fake::FakeEngine;
use serde_json::json;
use tempfile::TempDir;

const ID: &str = "88e6cfe2be890220a603f1fe52bb05a96ff6f2fda164e99d207ed3c3690c1b48";

struct Stage {
    folder: TempDir,
    fake: Arc<FakeEngine>,
    direct: DirectEngine,
}

/// A running container, and what containerd would keep of it.
async fn stage(namespace: serde_json::Value) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeEngine::new();
    fake.add_image("i", ImageInfo { id: "i".into(), ..ImageInfo::default() });
    let tasks = folder.path().join("tasks");
    let options = DirectOptions {
        folder: folder.path().join("direct"),
        tasks: tasks.clone(),
        prefix: Vec::new(),
        fsync: false,
    };
    let direct = DirectEngine::over(fake.clone(), options).unwrap();
    let spec = ContainerSpec { name: ID.into(), image: "i".into(), ..ContainerSpec::default() };
    direct.create_container(&spec).await.unwrap();
    direct.start_container(ID).await.unwrap();
    std::fs::create_dir_all(tasks.join(ID)).unwrap();
    let config = json!({
        "process": { "args": ["x"] },
        "root": { "path": folder.path().join("merged") },
        "linux": {
            "cgroupsPath": format!("/docker/{ID}"),
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, namespace],
        },
    });
    std::fs::write(tasks.join(ID).join("config.json"), config.to_string()).unwrap();
    std::fs::write(tasks.join(ID).join("init.pid"), std::process::id().to_string()).unwrap();
    Stage { folder, fake, direct }
}

/// Killed and started again, each time by the daemon, and nothing is kept.
async fn assert_the_daemon_does_it(stage: &Stage) {
    for _ in 0..2 {
        stage.fake.clear_calls();
        stage.direct.kill_container(ID, KILL).await.unwrap();
        stage.direct.wait_container(ID, Duration::from_secs(1)).await.unwrap();
        stage.direct.start_container(ID).await.unwrap();
        let calls = stage.fake.calls();
        assert!(calls.iter().any(|call| call.starts_with("kill")), "{calls:?}");
        assert!(calls.iter().any(|call| call.starts_with("start")), "{calls:?}");
        assert!(stage.direct.inspect_container(ID).await.unwrap().is_running());
        assert!(stage.direct.ours(ID).is_none());
    }
    assert!(!stage.folder.path().join("direct").join(ID).exists());
    stage.direct.remove_container(ID, Removal::EVERYTHING).await.unwrap();
    assert!(stage.direct.entries().is_empty());
}

#[tokio::test]
async fn a_container_with_a_network_of_its_own_stays_the_daemons() {
    let stage = stage(json!({ "type": "network" })).await;
    assert_the_daemon_does_it(&stage).await;
}

#[tokio::test]
async fn a_container_whose_root_cannot_be_mounted_again_stays_the_daemons() {
    let own = format!("/proc/{}/ns/net", std::process::id());
    let stage = stage(json!({ "type": "network", "path": own })).await;
    assert_the_daemon_does_it(&stage).await;
}

#[tokio::test]
async fn a_container_that_joins_one_that_has_ended_stays_the_daemons() {
    // No process has such a number.
    let stage = stage(json!({ "type": "network", "path": "/proc/4194305/ns/net" })).await;
    assert_the_daemon_does_it(&stage).await;
}

#[tokio::test]
async fn what_does_not_run_is_not_looked_at() {
    let stage = stage(json!({ "type": "network" })).await;
    std::fs::remove_file(stage.folder.path().join("tasks").join(ID).join("config.json")).unwrap();
    stage.direct.kill_container(ID, KILL).await.unwrap();
    assert!(stage.direct.entries().is_empty(), "it may be looked at another time");
}
