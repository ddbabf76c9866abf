//! What whoever submits a run asks beyond its configuration; and what is told without running.

use super::*;

async fn put_spec(channel: &Channel, change: impl FnOnce(&mut wire::RunSpec)) -> String {
    let source_digest = put(channel, b"source".to_vec()).await;
    let mut spec = wire::RunSpec {
        project: "shop".into(),
        commit: "c0ffee".into(),
        source_digest,
        suites: vec![wire::Suite { name: "it".into(), ..wire::Suite::default() }],
        ..wire::RunSpec::default()
    };
    change(&mut spec);
    put(channel, spec.encode_to_vec()).await
}

fn client(channel: &Channel) -> wire::farm_client::FarmClient<Channel> {
    wire::farm_client::FarmClient::new(channel.clone())
}

async fn ended(channel: &Channel, run: u64) -> wire::Run {
    let ending = async {
        loop {
            let now = get(channel, run).await;
            if now.ended_unix_ms > 0 {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.expect("the run ends")
}

fn part(text: &str) -> wire::NameFilter {
    wire::NameFilter { kind: Some(wire::name_filter::Kind::Part(text.into())) }
}

#[tokio::test]
async fn a_run_of_some_tests_repeats_them_and_is_told_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    let asked = wire::Asked { filters: vec![part("good")], repeat: 3, ..Default::default() };
    let spec_digest = put_spec(&channel, |spec| spec.asked = Some(asked.clone())).await;
    let request = wire::SubmitRunRequest { spec_digest, ..Default::default() };
    let run = client(&channel).submit_run(with(CLIENT, request)).await.unwrap().into_inner().run;
    worker.discover(&["good", "bad", "too/good"]).await;
    for _ in 0..6 {
        let (lease, work) = worker.assignment().await;
        worker.pass(lease, &work).await;
        worker.ready().await;
    }
    let over = ended(&channel, run).await;
    assert_eq!(over.state(), wire::RunState::Passed);
    let attempts: Vec<_> = over.tests.iter().map(|test| (test.id.as_str(), test.attempts.len())).collect();
    assert_eq!(attempts, [("good", 3), ("too/good", 3)]);

    let cause = |id: &str, finding: &str| {
        let (suite, finding) = ("it".to_owned(), finding.to_owned());
        wire::TellCauseRequest { run, suite, id: id.into(), finding, said: "by chance\n".into() }
    };
    for (id, finding, code) in [("good", "magic", Code::InvalidArgument), ("evil", "flaky", Code::NotFound)] {
        let refused = client(&channel).tell_cause(with(CLIENT, cause(id, finding))).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    client(&channel).tell_cause(with(CLIENT, cause("good", "flaky"))).await.unwrap();

    let spec = wire::RunSpec {
        project: "shop".into(),
        commit: "another".into(),
        suites: vec![wire::Suite { name: "it".into(), ..wire::Suite::default() }],
        asked: Some(wire::Asked { filters: vec![part("too")], ..Default::default() }),
        ..wire::RunSpec::default()
    };
    let plan = client(&channel).plan_run(with(CLIENT, wire::PlanRunRequest { spec: Some(spec) })).await;
    let plan = plan.unwrap().into_inner();
    assert_eq!((plan.lanes, plan.workers.len(), plan.runs_before), (1, 1, 0));
    assert_eq!(plan.baseline.unwrap().fate(), wire::BaselineFate::None);
    let suite = &plan.suites[0];
    assert_eq!(suite.tests.iter().map(|test| test.id.as_str()).collect::<Vec<_>>(), ["too/good"]);
    assert_eq!((suite.left_out, suite.units, suite.leases), (1, 1, 1));
    let request = wire::ListRunsRequest { limit: 10, ..Default::default() };
    let runs = client(&channel).list_runs(with(CLIENT, request)).await.unwrap().into_inner().runs;
    assert_eq!(runs.len(), 1, "a plan is no run");
    coordinator.stop().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let asked = Some(wire::Asked { shard: 3, shards: 2, ..Default::default() });
    let spec_digest = put_spec(&channel, |spec| spec.asked = asked).await;
    let request = wire::SubmitRunRequest { spec_digest, ..Default::default() };
    let refused = client(&channel).submit_run(with(CLIENT, request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("shard 3 of 2"), "{refused}");
    coordinator.stop().await;
}

#[tokio::test]
async fn tests_may_be_named_without_a_discovery_and_names_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let spec_digest = put_spec(&channel, |_| ()).await;
    let test = |suite: &str, id: &str| wire::ChosenTest { suite: suite.into(), id: id.into() };
    let request =
        |tests| wire::SubmitRunRequest { spec_digest: spec_digest.clone(), tests, ..Default::default() };
    for tests in [vec![test("ui", "a")], vec![test("it", "-rf")], vec![test("it", "a"), test("it", "a")]] {
        let refused = client(&channel).submit_run(with(CLIENT, request(tests))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let tests = vec![test("it", "b"), test("it", "a")];
    let run = client(&channel).submit_run(with(CLIENT, request(tests))).await.unwrap().into_inner().run;
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    for _ in 0..2 {
        worker.ready().await;
        let (lease, work) = worker.assignment().await;
        worker.pass(lease, &work).await;
    }
    let over = ended(&channel, run).await;
    assert_eq!((over.state(), over.tests.len()), (wire::RunState::Passed, 2));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_rerun_in_another_way_keeps_commit_baseline_and_the_order_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let stack = || wire::Stack { services: vec![wire::Service::default()], ..Default::default() };
    let spec_digest = put_spec(&channel, |spec| spec.stack = Some(stack())).await;
    let request = wire::SubmitRunRequest { spec_digest, ..Default::default() };
    let run = client(&channel).submit_run(with(CLIENT, request)).await.unwrap().into_inner().run;
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    worker.ready().await;
    let (lease, _) = worker.assignment().await;
    let manifest = wire::BaselineManifest { key: "k".repeat(64), ..Default::default() };
    let ready = wire::BaselineReady { manifest: Some(manifest), built: true, replaces: false };
    worker.report(lease, wire::report::Body::BaselineReady(ready)).await;
    worker.discover(&["a", "b", "c"]).await;
    for _ in 0..3 {
        let (lease, work) = worker.assignment().await;
        worker.pass(lease, &work).await;
        worker.ready().await;
    }
    ended(&channel, run).await;

    let asked = wire::Asked { in_order: true, repeat: 2, trial: true, ..Default::default() };
    let again = put_spec(&channel, |spec| {
        spec.stack = Some(stack());
        spec.asked = Some(asked);
    });
    let again = again.await;
    let tests = vec!["c".into(), "it/a".into()];
    let request = wire::RerunRequest { run, tests, spec_digest: again, ..Default::default() };
    let rerun = client(&channel).rerun(with(CLIENT, request)).await.unwrap().into_inner().run;
    for _ in 0..2 {
        let (lease, work) = worker.assignment().await;
        let wire::assign::Work::Execute(execute) = &work else { panic!("no baseline is prepared: {work:?}") };
        assert_eq!(execute.baseline_key, "k".repeat(64));
        let order: Vec<_> = execute.tests.iter().map(|test| test.id.as_str()).collect();
        assert_eq!(order, ["c", "a"]);
        worker.pass(lease, &work).await;
        worker.ready().await;
    }
    let over = ended(&channel, rerun).await;
    assert_eq!((over.baseline_key, over.rerun_of), ("k".repeat(64), run));

    let other = put_spec(&channel, |spec| spec.stack = Some(wire::Stack { services: vec![], ..stack() }));
    let spec_digest = other.await;
    let request = wire::RerunRequest { run, tests: vec!["a".into()], spec_digest, ..Default::default() };
    client(&channel).rerun(with(CLIENT, request)).await.unwrap();
    let (_, work) = worker.assignment().await;
    assert!(matches!(work, wire::assign::Work::PrepareBaseline(_)), "another stack is prepared: {work:?}");
    coordinator.stop().await;
}
