//! Every way a unit's tests can end.

use super::*;
use proptest::prelude::*;

fn unit(ids: &[&str]) -> Progress {
    let tests =
        ids.iter().enumerate().map(|(n, id)| TestCase { attempt: n as u64 + 1, id: (*id).to_owned() });
    Progress::new(tests.collect())
}

fn start(id: &str) -> Event {
    Event::Start { id: id.to_owned() }
}

fn result(id: &str, outcome: EventOutcome) -> Event {
    Event::Result { id: id.to_owned(), outcome, ms: Some(2.6), message: "m".to_owned(), log: "l".to_owned() }
}

fn ended(step: Step) -> Vec<(u64, Outcome)> {
    match step {
        Step::Ended(all) => all.into_iter().map(|one| (one.attempt, one.outcome)).collect(),
        other => panic!("{other:?} is no ending"),
    }
}

#[test]
fn a_unit_that_goes_well_reports_each_test_once() {
    let mut unit = unit(&["a", "b"]);
    assert_eq!(unit.take(start("a"), 1000), Step::Started);
    let Step::Ended(first) = unit.take(result("a", EventOutcome::Passed), 1003) else { panic!() };
    assert_eq!((first[0].attempt, first[0].run_ms, first[0].started_unix_ms), (1, 3, 1000));
    assert_eq!(unit.take(result("a", EventOutcome::Failed), 1004), Step::Nothing);
    assert_eq!(unit.take(result("stranger", EventOutcome::Passed), 1004), Step::Nothing);
    unit.take(start("b"), 1005);
    assert_eq!(ended(unit.take(result("b", EventOutcome::Skipped), 1006)), [(2, Outcome::Skipped)]);
    assert!(unit.is_complete());
    assert_eq!(
        unit.exited(&Exit { code: 0, out_of_memory: false, memory_bytes: 0, disk: None }, 1007, Vec::new()),
        None
    );
}

#[test]
fn a_process_that_dies_fails_the_test_that_ran_and_leaves_the_rest() {
    let mut unit = unit(&["a", "b", "c"]);
    unit.take(start("a"), 1);
    unit.take(result("a", EventOutcome::Passed), 2);
    unit.take(start("b"), 10);
    let died = unit
        .exited(&Exit { code: 139, out_of_memory: false, memory_bytes: 0, disk: None }, 25, b"boom".to_vec())
        .unwrap();
    assert_eq!((died.attempt, died.outcome, died.run_ms), (2, Outcome::Failed, 15));
    assert!(died.message.contains("exit code 139 (SIGSEGV)"), "{}", died.message);
    assert!(!unit.is_complete());
}

#[test]
fn want_of_memory_is_said() {
    let mut unit = unit(&["a"]);
    unit.take(start("a"), 1);
    let died = unit
        .exited(&Exit { code: 137, out_of_memory: true, memory_bytes: 64 << 20, disk: None }, 2, Vec::new())
        .unwrap();
    assert!(died.message.contains("out of memory: limit 64 MiB"), "{}", died.message);
}

#[test]
fn a_full_disk_of_the_lane_is_said_and_is_the_tests_own() {
    let mut unit = unit(&["a"]);
    unit.take(start("a"), 1);
    let disk = Overrun { limit_bytes: 64 << 20, written_bytes: 80 << 20, mostly: "volume/data".into() };
    let exit = Exit { code: 137, out_of_memory: false, memory_bytes: 0, disk: Some(disk) };
    let died = unit.exited(&exit, 2, Vec::new()).unwrap();
    assert_eq!(died.outcome, Outcome::Failed);
    let said = "disk limit of the lane: 64 MiB; 80 MiB were written, most of it in volume/data";
    assert!(died.message.contains(said), "{}", died.message);
}

#[test]
fn a_runner_that_ends_before_any_test_fails_the_first_with_its_output() {
    let mut unit = unit(&["a", "b"]);
    let died = unit
        .exited(
            &Exit { code: 4, out_of_memory: false, memory_bytes: 0, disk: None },
            2,
            b"ImportError: no x\n".to_vec(),
        )
        .unwrap();
    assert_eq!((died.attempt, died.outcome), (1, Outcome::Failed));
    assert!(died.message.contains("exit code 4") && died.message.contains("ImportError"), "{}", died.message);
}

#[test]
fn a_hanging_test_is_timed_out_and_one_that_never_started_too() {
    let mut hangs = unit(&["a", "b"]);
    hangs.take(start("b"), 1);
    assert_eq!(
        hangs.take(Event::Timeout { id: "b".into(), log: "stack".into() }, 9),
        Step::Overdue("stack".into())
    );
    let late = hangs.overdue(1500, None, b"stack".to_vec()).unwrap();
    assert_eq!((late.attempt, late.outcome, late.run_ms), (2, Outcome::TimedOut, 1500));
    assert_eq!(late.message, "the time limit of 1.500 s passed");
    let mut never = unit(&["a"]);
    assert!(
        never
            .overdue(60_000, None, Vec::new())
            .unwrap()
            .message
            .starts_with("no test started and the time limit of 60 s")
    );
    assert_eq!(never.overdue(60_000, None, Vec::new()), None);
}

#[test]
fn missing_tests_fail_with_the_reason_why_they_could_not_be_collected() {
    let mut unit = unit(&["a", "b", "c"]);
    unit.take(
        Event::CollectError { id: "f.py".into(), message: "SyntaxError".into(), log: "line 3".into() },
        1,
    );
    let Step::Ended(all) =
        unit.take(Event::Collected { missing: vec!["a".into(), "c".into(), "z".into()] }, 2)
    else {
        panic!()
    };
    assert_eq!(all.iter().map(|one| one.attempt).collect::<Vec<_>>(), [1, 3]);
    assert!(all.iter().all(|one| one.outcome == Outcome::Failed && one.message.contains("SyntaxError")));
}

#[test]
fn a_message_has_at_most_twenty_lines_and_four_kibibytes() {
    let long = short(&"é".repeat(5000));
    assert!(long.len() <= MESSAGE_BYTES_MAX && long.len() > MESSAGE_BYTES_MAX - 2);
    assert_eq!(short(&"x\n".repeat(50)).lines().count(), MESSAGE_LINES_MAX);
    let tail = last_lines(&format!("{}\nthe end\n", "é".repeat(9000)));
    assert!(tail.ends_with("the end") && tail.len() <= MESSAGE_BYTES_MAX);
}

proptest! {
    #[test]
    fn no_test_ends_twice_and_an_ended_process_leaves_at_least_one_result(
        moves in proptest::collection::vec((0usize..5, 0usize..4), 0..30)
    ) {
        let ids = ["a", "b", "c", "stranger"];
        let mut unit = unit(&ids[..3]);
        let mut seen = Vec::new();
        for (what, which) in moves {
            let id = ids[which].to_owned();
            let step = match what {
                0 => unit.take(start(&id), 1),
                1 => unit.take(result(&id, EventOutcome::Passed), 2),
                2 => unit.take(Event::Collected { missing: vec![id] }, 3),
                3 => unit.take(Event::Timeout { id, log: String::new() }, 4),
                _ => unit.take(Event::CollectError { id, message: "m".into(), log: "l".into() }, 5),
            };
            if let Step::Ended(all) = step { seen.extend(all.into_iter().map(|one| one.attempt)); }
        }
        seen.extend(unit.exited(&Exit { code: 1, out_of_memory: false, memory_bytes: 0, disk: None }, 6, Vec::new()).map(|one| one.attempt));
        prop_assert!(!seen.is_empty());
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), count);
        prop_assert!(seen.iter().all(|attempt| (1..=3).contains(attempt)));
    }
}
