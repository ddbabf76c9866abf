//! Looking into what a failed test left: both ends are joined here, and nothing of it outlives them.

use wire::look_in::Body as In;
use wire::look_open::What;
use wire::look_out::Body as Out;

use super::*;

/// A run of two tests of which `bad` failed on worker `w1`, which stays.
async fn failed(channel: &Channel) -> (u64, Worker) {
    let run = submit(channel, "").await.run;
    let mut worker = Worker::join(channel, JOIN, vec![]).await.expect("it joins");
    worker.discover(&["bad", "good"]).await;
    for _ in 0..2 {
        let (lease, work) = worker.assignment().await;
        let wire::assign::Work::Execute(execute) = work else { panic!("{work:?}") };
        for test in &execute.tests {
            let outcome = if test.id == "bad" { wire::Outcome::Failed } else { wire::Outcome::Passed };
            let result =
                wire::TestResult { attempt: test.attempt, outcome: outcome.into(), ..Default::default() };
            worker.report(lease, wire::report::Body::TestResult(result)).await;
        }
        let seq = worker.report(lease, wire::report::Body::UnitEnded(wire::UnitEnded {})).await;
        worker.acknowledged(seq).await;
        if get(channel, run).await.ended_unix_ms > 0 {
            break;
        }
        worker.ready().await;
    }
    (run, worker)
}

fn open(run: u64, test: &str, attempt: u64) -> wire::LookIn {
    let what = Some(What::Shell(wire::LookShell::default()));
    let open = wire::LookOpen { run, test: test.into(), attempt, what };
    wire::LookIn { body: Some(In::Open(open)) }
}

async fn look(
    channel: &Channel,
    first: wire::LookIn,
) -> Result<(mpsc::Sender<wire::LookIn>, Streaming<wire::LookOut>), Status> {
    let (say, said) = mpsc::channel(8);
    say.send(first).await.expect("there is room");
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    let hear = farm.look(with(CLIENT, ReceiverStream::new(said))).await?.into_inner();
    Ok((say, hear))
}

/// The worker's end, opened with this ticket.
async fn show(
    channel: &Channel,
    token: &str,
    ticket: &str,
) -> Result<(mpsc::Sender<wire::LookOut>, Streaming<wire::LookIn>), Status> {
    let (say, said) = mpsc::channel(8);
    let first = wire::LookOut { body: Some(Out::Ticket(ticket.into())) };
    say.send(first).await.expect("there is room");
    let mut work = wire::work_client::WorkClient::new(channel.clone());
    let hear = work.show(with(token, ReceiverStream::new(said))).await?.into_inner();
    Ok((say, hear))
}

async fn call(worker: &mut Worker) -> wire::LookCall {
    worker
        .hear_until(|told| match told {
            Told::LookCall(call) => Some(call),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn who_looks_is_joined_to_the_worker_of_the_failed_attempt_until_one_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let (run, mut worker) = failed(&channel).await;

    let (say, mut hear) = look(&channel, open(run, "it/bad", 0)).await.expect("it is taken");
    let wire::LookCall { ticket, open: asked } = call(&mut worker).await;
    let asked = asked.expect("what is asked for");
    let attempts = get(&channel, run).await.tests;
    let attempt = attempts.iter().find(|test| test.id == "bad").expect("the test").attempts[0].attempt;
    assert_eq!((asked.run, asked.attempt), (run, attempt));

    // A ticket is the worker's, and is used once.
    assert_eq!(show(&channel, CLIENT, &ticket).await.expect_err("a client").code(), Code::Unauthenticated);
    assert_eq!(show(&channel, JOIN, "guessed").await.expect_err("a guess").code(), Code::NotFound);
    let (answer, mut typed) = show(&channel, JOIN, &ticket).await.expect("it is taken");
    assert_eq!(show(&channel, JOIN, &ticket).await.expect_err("used").code(), Code::NotFound);

    for size in [1, 32 << 10] {
        let input = wire::LookIn { body: Some(In::Input(vec![7; size])) };
        say.send(input.clone()).await.expect("the worker is there");
        assert_eq!(typed.message().await.expect("it goes on"), Some(input));
        let output = wire::LookOut { body: Some(Out::Output(vec![8; size])) };
        answer.send(output.clone()).await.expect("the client is there");
        assert_eq!(hear.message().await.expect("it goes on"), Some(output));
    }
    let ended = wire::LookEnded { exit_code: 3, ..Default::default() };
    let ended = wire::LookOut { body: Some(Out::Ended(ended)) };
    answer.send(ended.clone()).await.expect("the client is there");
    assert_eq!(hear.message().await.expect("it is told"), Some(ended));
    assert_eq!(hear.message().await.expect("and that is all"), None);

    // Whoever looks goes: the worker hears that.
    let (say, hear) = look(&channel, open(run, "bad", attempt)).await.expect("it is taken");
    let ticket = call(&mut worker).await.ticket;
    let (_answer, mut typed) = show(&channel, JOIN, &ticket).await.expect("it is taken");
    drop((say, hear));
    let gone = tokio::time::timeout(PATIENCE, typed.message()).await.expect("it hears");
    assert!(!matches!(gone, Ok(Some(_))));

    // The worker breaks off: whoever looks hears that.
    let (_say, mut hear) = look(&channel, open(run, "bad", 0)).await.expect("it is taken");
    let ticket = call(&mut worker).await.ticket;
    drop(show(&channel, JOIN, &ticket).await.expect("it is taken"));
    let broke = tokio::time::timeout(PATIENCE, hear.message()).await.expect("it hears");
    assert_eq!(broke.expect_err("no end was said").code(), Code::Aborted);
    coordinator.stop().await;
}

#[tokio::test]
async fn what_cannot_be_looked_into_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let (run, worker) = failed(&channel).await;
    let refused = async |first: wire::LookIn| match look(&channel, first).await {
        Err(status) => status,
        Ok((_say, mut hear)) => hear.message().await.expect_err("nothing is shown"),
    };
    for (test, attempt, code, words) in [
        ("good", 0, Code::FailedPrecondition, "only failed tests' stacks are kept"),
        ("bad", 99, Code::FailedPrecondition, "attempt 99 of bad did not fail"),
        ("absent", 0, Code::NotFound, "has no test \"absent\""),
    ] {
        let status = refused(open(run, test, attempt)).await;
        assert!(status.code() == code && status.message().contains(words), "{status}");
    }
    assert_eq!(refused(open(run + 1, "bad", 0)).await.code(), Code::NotFound);
    let nothing = wire::LookIn { body: Some(In::InputEnded(true)) };
    assert_eq!(refused(nothing).await.code(), Code::InvalidArgument);

    drop(worker);
    let away = async {
        loop {
            let mut farm = wire::farm_client::FarmClient::new(channel.clone());
            let listed = farm.list_workers(with(CLIENT, wire::ListWorkersRequest {})).await.expect("a list");
            if listed.into_inner().workers.iter().all(|worker| !worker.connected) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, away).await.expect("its session ends");
    let status = refused(open(run, "bad", 0)).await;
    assert!(status.message().contains("w1 has what the test left, and is away"), "{status}");
    coordinator.stop().await;
}
