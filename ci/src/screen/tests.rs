//! Inputs in, effects and frames out: at two sizes, with hostile names, and with more than there is room for.

use std::time::Duration;

use andon_proto::run_event::Event;
use andon_proto::{Counts, Outcome, Run, RunEvent, RunState, Test, Verdict, Worker};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::report::sample;

const KEYS: [Key; 13] = [
    Key::Up,
    Key::Down,
    Key::PageUp,
    Key::PageDown,
    Key::First,
    Key::Last,
    Key::Enter,
    Key::Back,
    Key::Next,
    Key::Filter,
    Key::Help,
    Key::Filter,
    Key::Leave,
];

/// The frame as text, a line for each row.
fn drawn(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory takes every frame");
    terminal.draw(|frame| draw(screen, frame, true)).expect("memory takes every frame");
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let symbols: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        symbols.trim_end().to_owned()
    };
    (0..height).map(row).collect::<Vec<_>>().join("\n")
}

fn event(screen: &mut Screen, event: Event) -> Vec<Effect> {
    let number = screen.number();
    screen.step(Input::Event(number, Box::new(RunEvent { event: Some(event) })))
}

fn wanted(test: &str) -> Wanted {
    Wanted { run: 12, test: format!("integration/{test}") }
}

fn running() -> Run {
    let counts = Counts {
        total: 40,
        passed: 6,
        failed: 2,
        timed_out: 1,
        flaky: 1,
        open: 30,
        running: 3,
        ..Counts::default()
    };
    Run {
        state: RunState::Running.into(),
        ended_unix_ms: 0,
        counts: Some(counts),
        tests: Vec::new(),
        ..sample::mixed()
    }
}

fn workers() -> Vec<Worker> {
    let worker = |name: &str, busy, connected, unfit: &str| Worker {
        name: name.to_owned(),
        connected,
        lanes: 2,
        lanes_busy: busy,
        driver: "standby".to_owned(),
        unfit: unfit.to_owned(),
        ..Worker::default()
    };
    vec![
        worker("w1", 1, true, ""),
        worker("w0", 2, true, ""),
        worker("w2", 0, false, ""),
        worker("w3", 0, true, "the disk is full"),
    ]
}

/// A run in its midst, with other runs, workers and a log.
fn busy() -> Screen {
    let mut screen = Screen::new(12);
    screen.step(Input::Now(Duration::from_secs(61)));
    screen.step(Input::Runs(vec![
        running(),
        Run { run: 11, ..sample::green() },
        Run { run: 10, ..sample::mixed() },
    ]));
    screen.step(Input::Workers(workers()));
    event(&mut screen, Event::Run(running()));
    for test in sample::mixed().tests {
        event(&mut screen, Event::Verdict(test));
    }
    let log = "setting up\nE   assert 2 == 3\nE   stock was 2\n";
    screen.step(Input::Log(wanted("tests/test_orders.py::TestOrders::test_cancel"), Ok(log.into())));
    screen
}

#[test]
fn a_terminal_of_80_by_24_has_runs_lanes_failures_and_a_log() {
    let shown = drawn(&busy(), 80, 24);
    for words in [
        "run 12 running",
        " Runs ",
        " Lanes ",
        "w0 ■■ 2/2 standby",
        "w2 away",
        "Failures (4)",
        "E   assert 2 == 3",
        "tab runs",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn a_small_terminal_has_the_failures_and_the_keys() {
    let shown = drawn(&busy(), 40, 12);
    assert!(shown.contains("Failures (4)") && shown.contains("q quit"), "{shown}");
    assert!(!shown.contains(" Lanes ") && !shown.contains("Log of"), "{shown}");
}

#[test]
fn a_log_fills_the_screen_where_it_is_asked_for() {
    let mut screen = busy();
    screen.step(Input::Key(Key::Enter));
    let shown = drawn(&screen, 40, 12);
    assert!(
        shown.contains("Log of") && shown.contains("E   stock was 2") && !shown.contains("Failures"),
        "{shown}"
    );
}

#[test]
fn a_queued_run_on_a_farm_without_workers_says_so() {
    let mut screen = Screen::new(1);
    assert!(drawn(&screen, 80, 24).contains("connecting"));
    let run =
        Run { run: 1, state: RunState::Queued.into(), counts: None, tests: Vec::new(), ..sample::mixed() };
    event(&mut screen, Event::Run(run.clone()));
    screen.step(Input::Runs(vec![run]));
    let shown = drawn(&screen, 80, 24);
    for words in ["run 1 queued", "no workers", "no failures", "q quit"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    screen.step(Input::Lost);
    assert!(drawn(&screen, 80, 24).contains("the coordinator does not answer"));
}

#[test]
fn the_keys_are_told_on_every_size() {
    for (width, height) in [(80, 24), (40, 12)] {
        let mut screen = busy();
        screen.step(Input::Key(Key::Help));
        let shown = drawn(&screen, width, height);
        for words in ["Ctrl-C", "failures, or all tests", "any key closes this"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        screen.step(Input::Key(Key::Down));
        assert!(!drawn(&screen, width, height).contains("any key closes this"));
    }
}

#[test]
fn the_log_of_what_is_chosen_is_fetched_once() {
    let mut screen = Screen::new(12);
    let mut tests = sample::mixed().tests.into_iter();
    let passed = tests.next().unwrap();
    assert_eq!(event(&mut screen, Event::Verdict(passed)), [], "what passed is no failure");
    let fetched = event(&mut screen, Event::Verdict(tests.next().unwrap()));
    assert_eq!(fetched, [Effect::Fetch(wanted("tests/test_orders.py::TestOrders::test_cancel"))]);
    for test in tests {
        assert_eq!(event(&mut screen, Event::Verdict(test)), [], "the person's choice stays");
    }
    assert_eq!(screen.step(Input::Key(Key::Up)), []);
    let down = screen.step(Input::Key(Key::Down));
    assert_eq!(down, [Effect::Fetch(wanted("tests/test_stock.py::test_flaky"))]);
    let late = Ok(b"late".to_vec());
    screen.step(Input::Log(wanted("tests/test_orders.py::TestOrders::test_cancel"), late));
    assert!(!drawn(&screen, 80, 24).contains("late"), "an answer that nobody waits for is dropped");
    screen.step(Input::Log(wanted("tests/test_stock.py::test_flaky"), Err("gone \u{1b}[2J".to_owned())));
    assert!(drawn(&screen, 80, 24).contains("cannot be had: gone \\x1b[2J"));
}

#[test]
fn f_shows_all_tests_and_failures_again() {
    let mut screen = busy();
    assert!(!drawn(&screen, 80, 24).contains("PASSED"));
    screen.step(Input::Key(Key::Filter));
    assert!(drawn(&screen, 80, 30).contains("PASSED"));
    let first = screen.step(Input::Key(Key::First));
    assert_eq!(first, [Effect::Fetch(wanted("tests/test_orders.py::TestOrders::test_place[1-b]"))]);
    let back = screen.step(Input::Key(Key::Filter));
    assert_eq!(
        back,
        [Effect::Fetch(wanted("tests/test_orders.py::TestOrders::test_cancel"))],
        "the nearest one"
    );
}

#[test]
fn a_long_log_is_shown_from_its_end_and_scrolled() {
    let mut screen = busy();
    let log: String = (1..=700).map(|n| format!("line {n}\n")).collect();
    screen.step(Input::Log(wanted("tests/test_orders.py::TestOrders::test_cancel"), Ok(log.into_bytes())));
    screen.step(Input::Key(Key::Enter));
    assert!(drawn(&screen, 40, 12).contains("line 700"));
    screen.step(Input::Key(Key::Up));
    let shown = drawn(&screen, 40, 12);
    assert!(shown.contains("line 699") && !shown.contains("line 700"), "{shown}");
    screen.step(Input::Key(Key::First));
    let shown = drawn(&screen, 40, 12);
    assert!(shown.contains("line 201") && !shown.contains("line 200\n"), "the last 500 are kept: {shown}");
    screen.step(Input::Key(Key::Last));
    assert!(drawn(&screen, 40, 12).contains("line 700"));
    screen.step(Input::Key(Key::Back));
    assert!(drawn(&screen, 40, 12).contains("Failures"));
}

#[test]
fn a_run_that_is_told_again_is_not_doubled() {
    let mut screen = busy();
    let before = drawn(&screen, 80, 24);
    screen.step(Input::Lost);
    event(&mut screen, Event::Run(Run { tests: sample::mixed().tests, ..running() }));
    assert_eq!(drawn(&screen, 80, 24), before);
}

#[test]
fn another_run_is_followed_and_the_one_before_is_heard_no_more() {
    let mut screen = busy();
    screen.step(Input::Key(Key::Next));
    screen.step(Input::Key(Key::Down));
    assert_eq!(screen.step(Input::Key(Key::Enter)), [Effect::Follow(11)]);
    let told = RunEvent { event: Some(Event::Verdict(sample::mixed().tests.swap_remove(1))) };
    assert_eq!(screen.step(Input::Event(12, Box::new(told))), []);
    let shown = drawn(&screen, 80, 24);
    assert!(shown.contains("run 11 connecting") && shown.contains("no failures"), "{shown}");
    screen.step(Input::Key(Key::Next));
    assert_eq!(screen.step(Input::Key(Key::Enter)), [], "it is followed already");
}

#[test]
fn q_leaves_from_everywhere() {
    for before in KEYS.into_iter().filter(|key| *key != Key::Leave) {
        let mut screen = busy();
        screen.step(Input::Key(before));
        assert_eq!(screen.step(Input::Key(Key::Leave)), [Effect::Leave], "{before:?}");
    }
}

/// Escape sequences, direction, zero width, wide and combining characters, and a megabyte.
fn hostile() -> Run {
    let huge = "\u{1b}[2J\u{202e}x\u{200b}日本🙂e\u{301}\t\r\n\u{9b}31m".repeat(40_000);
    let tests = (0..30).map(|number| {
        let id = if number == 0 { huge.clone() } else { format!("\u{1b}]0;t\u{7}{number}\u{2066}") };
        let attempts = vec![sample::attempt(1, 0, Outcome::Failed, 5, &huge)];
        Test { suite: "\u{202e}s".to_owned(), ..sample::test(&id, Verdict::Failed, attempts) }
    });
    Run {
        project: huge.clone(),
        git_ref: huge.clone(),
        commit: huge.clone(),
        reason: huge.clone(),
        tests: tests.collect(),
        ..running()
    }
}

#[test]
fn hostile_names_and_logs_are_inert_at_every_size() {
    let mut screen = Screen::new(12);
    let run = hostile();
    let huge = run.project.clone();
    screen.step(Input::Runs(vec![run.clone(); 3]));
    let worker = Worker {
        name: huge.clone(),
        unfit: huge.clone(),
        connected: true,
        lanes: 9_999,
        ..Worker::default()
    };
    screen.step(Input::Workers(vec![worker]));
    event(&mut screen, Event::Notice(huge.clone()));
    event(&mut screen, Event::Run(run));
    screen.step(Input::Key(Key::Down));
    let of = Wanted { run: 12, test: "\u{202e}s/\u{1b}]0;t\u{7}1\u{2066}".to_owned() };
    screen.step(Input::Log(of, Ok([huge.as_bytes(), b"\xff\xfe\n"].concat())));
    for focus in [None, Some(Key::Enter), Some(Key::Back), Some(Key::Next), Some(Key::Help)] {
        focus.map(|key| screen.step(Input::Key(key)));
        for (width, height) in [(1, 1), (2, 3), (5, 4), (40, 12), (80, 24), (200, 60)] {
            let shown = drawn(&screen, width, height);
            let inert = |c: char| c == '\n' || (!c.is_control() && !"\u{202e}\u{2066}\u{200b}".contains(c));
            assert!(shown.chars().all(inert), "{width}x{height}: {shown:?}");
            assert_eq!(shown.split('\n').count(), usize::from(height), "{width}x{height}");
        }
    }
}

#[test]
fn a_name_that_is_too_long_is_shown_and_its_log_not_asked_for() {
    let mut screen = Screen::new(12);
    let huge = sample::test(&"x".repeat(1 << 20), Verdict::Failed, Vec::new());
    assert_eq!(event(&mut screen, Event::Verdict(huge)), []);
    assert!(drawn(&screen, 80, 24).contains("FAILED"));
}

#[test]
fn many_verdicts_are_bounded() {
    let mut screen = Screen::new(12);
    for number in 0..6_000 {
        event(&mut screen, Event::Verdict(sample::test(&format!("t{number}"), Verdict::Failed, Vec::new())));
    }
    assert!(drawn(&screen, 80, 24).contains("Failures (5,000)"));
    screen.step(Input::Key(Key::Last));
    assert!(drawn(&screen, 80, 24).contains("t4999"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_order_of_keys_and_verdicts_loses_the_choice(steps in proptest::collection::vec((0usize..20, 0usize..7), 0..60)) {
        let tests = sample::mixed().tests;
        let mut screen = Screen::new(12);
        for (step, which) in steps {
            match KEYS.get(step) {
                Some(key) => drop(screen.step(Input::Key(*key))),
                None if step < 17 => drop(event(&mut screen, Event::Verdict(tests[which].clone()))),
                None => drop(screen.step(Input::Runs(vec![sample::green(); which]))),
            }
            drawn(&screen, 60, 20);
            if let Some(chosen) = screen.chosen_place() {
                prop_assert!(chosen, "what is chosen is listed");
            }
        }
    }
}
