//! What is written for each verdict, and that whatever is written keeps the schema's rules.

use proptest::prelude::*;

use super::*;
use crate::report::sample;

fn in_form(run: &Run, form: Form) -> String {
    let mut xml = Vec::new();
    write(run, form, &mut xml).expect("a report is written");
    String::from_utf8(xml).expect("a report is text")
}

fn written(run: &Run) -> String {
    in_form(run, Form::Usual)
}

#[test]
fn every_verdict_has_its_element() {
    // The compiler refuses direction controls in source text.
    let shown = written(&sample::mixed()).replace('\u{202e}', "<RLO>");
    insta::assert_snapshot!(shown, @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="shop" tests="7" failures="2" errors="1" time="90.000">
        <testsuite name="integration" tests="7" skipped="2" errors="1" failures="2" time="61.421">
            <properties>
                <property name="andon.run" value="12"/>
                <property name="andon.commit" value="4f2a9c1b7d3e8f60112233445566778899aabbcc"/>
                <property name="andon.ref" value="refs/heads/main"/>
                <property name="andon.baseline" value="b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1"/>
                <property name="andon.state" value="failed"/>
            </properties>
            <testcase name="test_place[1-b]" classname="tests.test_orders.TestOrders" time="0.900" file="tests/test_orders.py"/>
            <testcase name="test_cancel" classname="tests.test_orders.TestOrders" time="0.310" file="tests/test_orders.py">
                <failure message="AssertionError: assert 2 == 3" type="failed">AssertionError: assert 2 == 3
      stock was 2</failure>
                <rerunFailure message="AssertionError: assert 2 == 3" type="failed">AssertionError: assert 2 == 3
      stock was 2</rerunFailure>
            </testcase>
            <testcase name="test_flaky" classname="tests.test_stock" time="0.210" file="tests/test_stock.py">
                <flakyFailure message="OperationalError: deadlock" type="failed">OperationalError: deadlock</flakyFailure>
            </testcase>
            <testcase name="test_hangs" classname="tests.test_stock" time="60.000" file="tests/test_stock.py">
                <failure message="no end after 60 s" type="timed_out">no end after 60 s</failure>
            </testcase>
            <testcase name="test_skip" classname="tests.test_stock" time="0.001" file="tests/test_stock.py">
                <skipped message="needs a printer"/>
            </testcase>
            <testcase name="test_<RLO>x" classname="tests.test_evil" time="0.000" file="tests/test_evil.py">
                <error message="worker w1 was lost" type="infrastructure">worker w1 was lost</error>
            </testcase>
            <testcase name="test_never" classname="tests.test_late" file="tests/test_late.py">
                <skipped message="not run"/>
            </testcase>
        </testsuite>
    </testsuites>
    "#);
}

#[test]
fn infrastructure_is_never_a_failure_element() {
    let run = Run {
        tests: vec![sample::test(
            "a",
            Verdict::Infrastructure,
            vec![sample::attempt(1, 0, Outcome::Infrastructure, 0, "worker lost")],
        )],
        ..sample::mixed()
    };
    let xml = written(&run);
    assert!(xml.contains("<error") && !xml.contains("<failure"), "{xml}");
    assert!(xml.contains(r#"failures="0""#) && xml.contains(r#"errors="1""#), "{xml}");
}

#[test]
fn a_failure_before_a_lost_worker_keeps_its_message() {
    let attempts = vec![
        sample::attempt(1, 0, Outcome::Failed, 5, "assert 1 == 2"),
        sample::attempt(2, 0, Outcome::Infrastructure, 0, "worker lost"),
    ];
    let run = Run { tests: vec![sample::test("a", Verdict::Failed, attempts)], ..sample::mixed() };
    let xml = written(&run);
    assert!(xml.contains(r#"<failure message="assert 1 == 2""#), "{xml}");
    assert!(xml.contains("<rerunError"), "{xml}");
}

#[test]
fn hostile_names_and_messages_give_well_formed_xml() {
    let nasty = "a\u{0}b\u{1b}[31m\u{fffe}\u{ffff}]]>&<x y=\"\u{8}\">'\u{b}";
    let mut test =
        sample::test(nasty, Verdict::Failed, vec![sample::attempt(1, 0, Outcome::Failed, 5, nasty)]);
    test.suite = nasty.to_owned();
    let run = Run { project: nasty.to_owned(), tests: vec![test], ..sample::mixed() };
    let xml = written(&run);
    let allowed =
        |c: char| matches!(c, '\n' | '\t' | '\r') || (c >= ' ' && !matches!(c, '\u{fffe}'..='\u{ffff}'));
    assert!(xml.chars().all(allowed), "{xml:?}");
    let back = Report::deserialize_from_str(&xml).expect("the report is read back");
    assert_eq!(back.test_suites.len(), 1);
    assert_eq!(back.test_suites[0].test_cases.len(), 1);
}

/// Each verdict, with the attempts that lead to it, in a run whose every text is this.
fn of_all_verdicts(nasty: &str) -> Run {
    let attempt = |number, outcome| sample::attempt(number, 0, outcome, 1_234_567, nasty);
    let tests = [
        (Verdict::Passed, vec![attempt(1, Outcome::Passed)]),
        (
            Verdict::Flaky,
            vec![attempt(1, Outcome::Failed), attempt(2, Outcome::TimedOut), attempt(3, Outcome::Passed)],
        ),
        (
            Verdict::Failed,
            vec![
                attempt(1, Outcome::Failed),
                attempt(2, Outcome::Infrastructure),
                attempt(3, Outcome::Failed),
            ],
        ),
        (Verdict::TimedOut, vec![attempt(1, Outcome::TimedOut)]),
        (
            Verdict::Infrastructure,
            vec![attempt(1, Outcome::Infrastructure), attempt(2, Outcome::Infrastructure)],
        ),
        (Verdict::Skipped, vec![attempt(1, Outcome::Skipped)]),
        (Verdict::NotRun, vec![]),
        (Verdict::Unspecified, vec![attempt(1, Outcome::Unspecified)]),
    ];
    let tests = tests.into_iter().enumerate().map(|(number, (verdict, attempts))| {
        let mut test = sample::test(&format!("tests/{nasty}.py::{nasty}[{number}]"), verdict, attempts);
        test.suite = if number % 2 == 0 { nasty.to_owned() } else { "other".to_owned() };
        test
    });
    Run {
        project: nasty.to_owned(),
        git_ref: nasty.to_owned(),
        reason: nasty.to_owned(),
        tests: tests.collect(),
        ..sample::mixed()
    }
}

#[test]
fn what_is_written_keeps_the_rules_of_jenkins_schema() {
    for run in [sample::mixed(), Run::default(), of_all_verdicts("x"), of_all_verdicts("")] {
        assert_eq!(rules::broken(&in_form(&run, Form::Strict)), Vec::<String>::new());
        let usual = rules::broken(&in_form(&run, Form::Usual));
        let file_alone = usual.iter().all(|broken| broken == "testcase has the attribute file");
        assert!(file_alone, "{usual:?}");
    }
}

#[test]
fn the_rules_find_what_breaks_them() {
    let strict = in_form(&sample::mixed(), Form::Strict);
    for (right, wrong, said) in [
        ("<testsuites name", "<testsuites skipped=\"1\" name", "testsuites has the attribute skipped"),
        ("<failure message", "<failure time=\"1\" message", "failure has the attribute time"),
        (
            "<flakyFailure message=\"OperationalError: deadlock\" type=\"failed\"",
            "<flakyFailure",
            "flakyFailure has no type",
        ),
        ("<skipped message=\"not run\"/>", "<properties/>", "properties within testcase"),
        (" time=\"61.421\"", " time=\"1e3\"", "the time 1e3"),
        ("</properties>", "</properties>text", "text within testsuite"),
        (" errors=\"1\" failures=\"2\" time", " failures=\"2\" time", "testsuite has no errors"),
    ] {
        assert!(strict.contains(right), "{right}");
        let broken = rules::broken(&strict.replace(right, wrong));
        assert!(broken.iter().any(|broken| broken.contains(said)), "{said}: {broken:?}");
    }
    assert!(!rules::broken("<testcase name=\"x\"/>").is_empty(), "a case is no report");
    assert!(!rules::broken("<testsuites></testsuite>").is_empty(), "that is no XML");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_name_and_no_message_breaks_the_rules(nasty in any::<String>()) {
        let run = of_all_verdicts(&nasty);
        prop_assert_eq!(rules::broken(&in_form(&run, Form::Strict)), Vec::<String>::new());
    }
}

#[test]
fn a_quarantined_failure_is_skipped_and_says_what_failed_until_when_and_whose_it_is() {
    let attempt = sample::attempt(1, 0, Outcome::Failed, 5, "assert 1 == 2\nmore");
    let mut test = sample::test("a.py::x", Verdict::Quarantined, vec![attempt]);
    let owner = "@shop/cart".to_owned();
    // The end of the 14th.
    let until_unix_ms = 1_799_971_200_000;
    test.quarantine = Some(andon_proto::Quarantine { owner, until_unix_ms, ..Default::default() });
    let run = Run { tests: vec![test], ..sample::mixed() };
    let xml = written(&run);
    let said = "<skipped message=\"quarantined until 2027-01-14 by @shop/cart: assert 1 == 2\">assert 1 == 2\nmore</skipped>";
    assert!(xml.contains(said), "{xml}");
    assert!(xml.contains(r#"failures="0""#) && !xml.contains("<failure"), "{xml}");
    assert_eq!(rules::broken(&in_form(&run, Form::Strict)), Vec::<String>::new());
}
