//! Looks over the wire: the worker's end of what the coordinator joins.

use andon_proto::look_open::What;
use andon_proto::{
    LookCall, LookChanges, LookEnded, LookIn, LookOpen, LookOut, TerminalSize, look_in, look_out,
};

use super::*;
use crate::hands::LookLine;

fn open() -> LookOpen {
    let what = Some(What::Changes(LookChanges { files_max: 9 }));
    LookOpen { run: 7, test: "a".into(), attempt: 3, what }
}

async fn looked_at(scene: &mut Scene) -> (LookOpen, LookLine, oneshot::Sender<LookEnded>) {
    match scene.call().await {
        Call::Look(open, line, done) => (open, line, done),
        other => panic!("expected a look, got {other:?}"),
    }
}

#[tokio::test]
async fn a_look_is_shown_on_a_stream_of_its_own_with_the_ticket_first_and_its_end_last() {
    let mut scene = Scene::new(1);
    let talk = scene.farm.welcomed().await;
    let call = LookCall { ticket: "t".into(), open: Some(open()) };
    talk.say(coordinator_message::Body::LookCall(call)).await;
    let mut shown = scene.farm.shown().await;
    let (asked, mut line, done) = looked_at(&mut scene).await;
    assert_eq!(asked, open());
    let mut next = async || {
        let message = soon("something that is shown", shown.hear.message()).await;
        message.expect("the stream goes on").and_then(|LookOut { body }| body)
    };
    assert_eq!(next().await, Some(look_out::Body::Ticket("t".into())));
    let size = look_in::Body::Size(TerminalSize { rows: 1, columns: 2 });
    shown.say.send(Ok(LookIn { body: Some(size.clone()) })).await.expect("it is read");
    assert_eq!(soon("what was typed", line.hear.recv()).await, Some(size));
    line.say.send(look_out::Body::Output(b"x".to_vec())).await.expect("it is passed on");
    assert_eq!(next().await, Some(look_out::Body::Output(b"x".to_vec())));
    let ended = LookEnded { exit_code: 4, ..LookEnded::default() };
    done.send(ended.clone()).expect("somebody waits");
    drop(line);
    assert_eq!(next().await, Some(look_out::Body::Ended(ended)));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_crew_whose_looker_is_gone_hears_that_and_the_lanes_do_not_care() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    let call = LookCall { ticket: "t".into(), open: Some(open()) };
    talk.say(coordinator_message::Body::LookCall(call)).await;
    let shown = scene.farm.shown().await;
    let (_, mut line, _done) = looked_at(&mut scene).await;
    assert_eq!(talk.lane_ready().await.lane, 0);
    drop(shown);
    assert_eq!(soon("the end", line.hear.recv()).await, None);
    // An order without a question is none.
    let empty = LookCall { ticket: "u".into(), open: None };
    talk.say(coordinator_message::Body::LookCall(empty)).await;
    talk.assign(1, 0, &scene.spec, assign::Work::PrepareBaseline(PrepareBaseline {})).await;
    assert!(matches!(scene.call().await, Call::Prepare(_)));
}
