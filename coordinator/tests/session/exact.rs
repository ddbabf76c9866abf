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

async fn verified(channel: &Channel, key: &str, worker: &str) -> Result<Vec<wire::WorkerVerified>, Status> {
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    let request = wire::VerifyBaselineRequest { baseline_key: key.into(), worker: worker.into() };
    Ok(farm.verify_baseline(with(CLIENT, request)).await?.into_inner().workers)
}

/// The number of the question that a worker hears.
async fn question(worker: &mut Worker) -> u64 {
    worker
        .hear_until(|told| match told {
            Told::VerifyBaseline(ask) => Some(ask.request),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn every_worker_is_asked_and_what_each_says_or_does_not_say_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let mut first = Worker::join_as("w1", &channel, JOIN, vec![]).await.unwrap();
    let mut second = Worker::join_as("w2", &channel, JOIN, vec![]).await.unwrap();
    let asking = tokio::spawn({
        let channel = channel.clone();
        async move { verified(&channel, "", "").await }
    });
    let request = question(&mut first).await;
    assert_eq!(question(&mut second).await, request);
    // Nobody asked for the first, and the second one's session ends before it answers.
    let lane =
        wire::VerifiedLane { congruence: wire::Congruence::Busy.into(), ..wire::VerifiedLane::default() };
    let forged = wire::Verified { request: request + 1, ..wire::Verified::default() };
    first.say(Said::Verified(forged)).await;
    let answer = wire::Verified { request, lanes: vec![lane], ..wire::Verified::default() };
    first.say(Said::Verified(answer.clone())).await;
    drop(second);
    let told = asking.await.unwrap().unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].worker.as_str(), told[0].verified.as_ref()), ("w1", Some(&answer)));
    assert_eq!((told[1].worker.as_str(), told[1].silent.is_empty()), ("w2", false));

    let wrong = verified(&channel, "", "nobody").await.unwrap_err();
    assert_eq!(wrong.code(), Code::NotFound);
    assert!(wrong.message().contains("w1, w2"), "{}", wrong.message());
    assert_eq!(verified(&channel, "nothing", "").await.unwrap_err().code(), Code::NotFound);
    let away = verified(&channel, "", "w2").await.unwrap();
    assert_eq!((away.len(), away[0].silent.as_str()), (1, "away"));
    coordinator.stop().await;
}
