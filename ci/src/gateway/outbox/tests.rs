//! A forge that is away, slow, limited or refusing: nothing is lost, nothing is held up. Time comes in as an argument.

use std::sync::Mutex;

use super::*;
use crate::forge::client::OpenPull;
use crate::forge::{Author, State, Status};

/// Answers in order, then with success; remembers what it took and how often it was asked.
#[derive(Default)]
struct Played {
    answers: Mutex<Vec<ForgeError>>,
    taken: Mutex<Vec<(String, State)>>,
    asked: Mutex<usize>,
    /// Denied for ever.
    denied: Option<String>,
}

#[tonic::async_trait]
impl Forge for Played {
    async fn report(&self, status: &Status, _: Option<&str>) -> Result<Option<String>, ForgeError> {
        *self.asked.lock().unwrap() += 1;
        if self.denied.as_ref() == Some(&status.context) {
            return Err(ForgeError::Denied {
                host: "h".into(),
                what: "POST".into(),
                status: 404,
                said: String::new(),
            });
        }
        let mut answers = self.answers.lock().unwrap();
        if !answers.is_empty() {
            return Err(answers.remove(0));
        }
        self.taken.lock().unwrap().push((status.context.clone(), status.state));
        Ok(None)
    }

    async fn may(&self, _: &Author) -> Result<bool, ForgeError> {
        Ok(true)
    }

    async fn open_pulls(&self) -> Result<Vec<OpenPull>, ForgeError> {
        Ok(Vec::new())
    }
}

fn away() -> ForgeError {
    ForgeError::Away { host: "h".into(), why: "it answers 502".into() }
}

fn status(context: &str, state: State) -> Status {
    Status {
        commit: "a".repeat(40),
        context: context.into(),
        state,
        description: String::new(),
        target_url: None,
        annotations: vec![],
        failed: vec![],
    }
}

fn outbox(folder: &tempfile::TempDir, forge: &Arc<Played>) -> (Arc<Desk>, Outbox) {
    let desk = Arc::new(Desk::open(folder.path(), ["shop"].into_iter()).unwrap());
    let forge: Arc<dyn Forge> = Arc::clone(forge) as Arc<dyn Forge>;
    let wake = desk.sender("shop").unwrap();
    (Arc::clone(&desk), Outbox { project: "shop".into(), forge, desk, wake })
}

/// Rounds until nothing waits, with the waits between them.
async fn until_empty(outbox: &Outbox, troubles: &mut Troubles) -> Vec<Duration> {
    let (mut waits, mut now) = (Vec::new(), Instant::now());
    while let Some(pause) = outbox.round(troubles, now).await {
        waits.push(pause);
        now += pause;
    }
    waits
}

#[tokio::test]
async fn a_forge_that_is_away_gets_the_newest_of_each_context_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let forge = Arc::new(Played::default());
    forge.answers.lock().unwrap().extend((0..9).map(|_| away()));
    let (desk, outbox) = outbox(&folder, &forge);
    let mut troubles = Troubles::default();
    let now = clock::unix_ms();
    desk.put("shop", vec![status("andon/a", State::Pending), status("andon/b", State::Pending)], now)
        .unwrap();
    assert!(outbox.round(&mut troubles, Instant::now()).await.is_some(), "it is away");
    desk.put("shop", vec![status("andon/a", State::Running)], now).unwrap();
    desk.put("shop", vec![status("andon/a", State::Success)], now).unwrap();
    drop((desk, outbox));
    // A new gateway finds them where the old one left them.
    let (desk, outbox) = self::outbox(&folder, &forge);
    desk.put("shop", vec![status("andon/b", State::Failure)], now).unwrap();
    until_empty(&outbox, &mut troubles).await;
    let mut taken = forge.taken.lock().unwrap().clone();
    taken.sort();
    assert_eq!(taken, [("andon/a".to_owned(), State::Success), ("andon/b".to_owned(), State::Failure)]);
}

#[tokio::test]
async fn waits_grow_to_a_limit_and_what_the_forge_asks_for_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let forge = Arc::new(Played::default());
    forge.answers.lock().unwrap().extend((0..12).map(|_| away()));
    let asked = Duration::from_secs(1800);
    let slower = ForgeError::Slower { host: "h".into(), status: 429, wait: Some(asked) };
    forge.answers.lock().unwrap().push(slower);
    let (desk, outbox) = outbox(&folder, &forge);
    desk.put("shop", vec![status("andon/a", State::Success)], clock::unix_ms()).unwrap();
    let waits = until_empty(&outbox, &mut Troubles::default()).await;
    assert_eq!(waits.len(), 13);
    assert!(waits[0] < WAIT_MIN * 2 && waits[5] > waits[2] * 4, "{waits:?}");
    assert!(waits[..12].iter().all(|wait| *wait <= WAIT_MAX.mul_f64(1.11)), "{waits:?}");
    assert_eq!(waits[12], asked);
}

#[tokio::test]
async fn what_is_refused_or_denied_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let forge = Arc::new(Played { denied: Some("andon/denied".into()), ..Played::default() });
    let refused =
        ForgeError::Refused { host: "h".into(), what: "POST".into(), status: 422, said: String::new() };
    forge.answers.lock().unwrap().push(refused);
    let (desk, outbox) = outbox(&folder, &forge);
    let now = clock::unix_ms();
    desk.put("shop", vec![status("andon/denied", State::Success)], now).unwrap();
    desk.put("shop", vec![status("andon/refused", State::Success)], now + 1).unwrap();
    desk.put("shop", vec![status("andon/c", State::Success)], now + 2).unwrap();
    let mut troubles = Troubles::default();
    let start = Instant::now();
    let again = outbox.round(&mut troubles, start).await.expect("the denied one is tried again");
    assert_eq!(forge.taken.lock().unwrap().as_slice(), [("andon/c".to_owned(), State::Success)]);
    let waiting: Vec<_> = desk.waiting("shop").into_iter().map(|(_, queued)| queued.status.context).collect();
    assert_eq!(waiting, ["andon/denied"], "the refused one is gone, the denied one stays");
    let before = *forge.asked.lock().unwrap();
    outbox.round(&mut troubles, start).await;
    assert_eq!(*forge.asked.lock().unwrap(), before, "not before its time");
    outbox.round(&mut troubles, start + again).await;
    assert_eq!(*forge.asked.lock().unwrap(), before + 1);
}

#[tokio::test]
async fn what_nobody_wants_to_know_any_more_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let forge = Arc::new(Played::default());
    forge.answers.lock().unwrap().push(away());
    let (desk, outbox) = outbox(&folder, &forge);
    let old = u64::try_from(AGE_MAX.as_millis()).unwrap() + 1000;
    desk.put("shop", vec![status("andon/a", State::Success)], clock::unix_ms() - old).unwrap();
    until_empty(&outbox, &mut Troubles::default()).await;
    assert!(forge.taken.lock().unwrap().is_empty());
    assert!(desk.waiting("shop").is_empty());
}
