//! What can be said of an agent without a daemon.

use super::*;

fn config() -> WorkerConfig {
    WorkerConfig {
        coordinator: "unix:///run/andon.sock".into(),
        token: "a-token-of-some-length".into(),
        name: Some("w1".into()),
        lanes: Some(2),
        data_dir: "/nonexistent".into(),
        driver: None,
        pool: PoolOptions::default(),
        pool_unused: None,
        deep_every: 0,
        fsync: false,
        direct: true,
        registry: None,
        own_network: false,
    }
}

#[test]
fn mistakes_are_named_before_anything_is_touched() {
    let refusal = |config| Plan::of(config).unwrap_err().to_string();
    assert!(
        refusal(WorkerConfig { coordinator: "farm:7077".into(), ..config() }).contains("http://host:port")
    );
    assert!(refusal(WorkerConfig { name: Some("a b".into()), ..config() }).contains("\"a b\""));
    assert!(refusal(WorkerConfig { name: Some("w".repeat(129)), ..config() }).contains("1 to 128"));
    for lanes in [0, LANES_MAX + 1] {
        assert!(refusal(WorkerConfig { lanes: Some(lanes), ..config() }).contains(&lanes.to_string()));
    }
}

#[test]
fn what_is_not_said_is_taken_from_the_machine() {
    let plan = Plan::of(WorkerConfig { name: None, lanes: None, ..config() }).unwrap();
    assert_eq!(plan.name, host_name());
    assert!((1..=8).contains(&plan.lanes));
}

#[tokio::test]
async fn the_link_hears_how_the_daemon_fares_until_it_is_given_up() {
    let (announce, state) = watch::channel(DaemonState::Running);
    let (news, mut health) = mpsc::channel(8);
    let watching = tokio::spawn(watch_daemon(state, news));
    assert_eq!(health.recv().await, Some(Health::Up));
    announce.send_replace(DaemonState::Restarting { reason: "killed".into() });
    let down = health.recv().await;
    assert!(matches!(&down, Some(Health::Down { reason }) if reason.ends_with("broke: killed")), "{down:?}");
    announce.send_replace(DaemonState::Running);
    assert_eq!(health.recv().await, Some(Health::Up));
    announce.send_replace(DaemonState::GaveUp { reason: "5 times".into(), log: String::new() });
    let lost = watching.await.unwrap().to_string();
    assert!(lost.contains("5 times"), "{lost}");
}
