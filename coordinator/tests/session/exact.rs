//! What workers tell of stands and baselines that are not exact.

use super::*;

#[tokio::test]
async fn a_stand_that_was_not_exact_is_remembered_counted_and_in_its_runs_log() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let run = submit(&channel, "").await.run;
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    let part = wire::InexactPart {
        r#where: "volume/data".into(),
        what: "ibdata1".into(),
        difference: "has other contents".into(),
    };
    let inexact = wire::Inexact {
        id: "once".into(),
        run,
        suite: "it".into(),
        baseline_key: "k".into(),
        driver: "restart".into(),
        deep: true,
        parts: vec![part],
        ..wire::Inexact::default()
    };
    worker.say(Said::Inexact(inexact.clone())).await;
    let again = worker.say(Said::Inexact(inexact.clone())).await;
    worker.acknowledged(again).await;
    drop(worker);
    coordinator.stop().await;

    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let _worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    let request = wire::ListInexactRequest { worker: "w1".into(), ..wire::ListInexactRequest::default() };
    let told = farm.list_inexact(with(CLIENT, request)).await.unwrap().into_inner().told;
    assert_eq!(told, [wire::InexactTold { worker: "w1".into(), number: 1, inexact: Some(inexact) }]);
    let workers = farm.list_workers(with(CLIENT, wire::ListWorkersRequest {})).await.unwrap().into_inner();
    assert_eq!(workers.workers[0].inexact, 1);
    let request = wire::GetLogRequest { run, ..wire::GetLogRequest::default() };
    let log = farm.get_log(with(CLIENT, request)).await.unwrap().into_inner().text;
    let log = String::from_utf8(log).unwrap();
    assert!(
        log.contains("w1: lane 0 was not exact") && log.contains("`ibdata1` has other contents"),
        "{log}"
    );
    coordinator.stop().await;
}
