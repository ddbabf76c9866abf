//! Files as other tools wrote them: `worker/tests/junit/`, whose README says which tool wrote which.

use super::{Case, CaseOutcome, read};
use crate::runner::matching::Index;

fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/junit").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases(name: &str) -> Vec<Case> {
    let report = read(&file(name)).unwrap();
    assert!(!report.cut_short, "{name}");
    report.cases
}

/// The ids that a project would use, and what becomes of each.
fn assert_ids(name: &str, expected: &[(&str, CaseOutcome)]) {
    let cases = cases(name);
    let index = Index::new(&cases);
    for (id, outcome) in expected {
        let judged = index.judge(id).unwrap_or_else(|| panic!("{name} has no {id}: {cases:#?}"));
        assert_eq!(judged.outcome, *outcome, "{name}: {id}");
    }
}

use CaseOutcome::{Failed, Passed, Skipped};

#[test]
fn pytest_s_own_ids_find_their_cases() {
    let expected = [
        ("test_shop.py::TestShop::test_sells", Passed),
        ("test_shop.py::TestShop::test_fails", Failed),
        ("test_shop.py::TestShop::test_skips", Skipped),
        ("test_shop.py::TestShop::test_table[<&>\"']", Passed),
        ("test_shop.py::test_error", Failed),
    ];
    assert_ids("pytest.xml", &expected);
}

#[test]
fn phpunit_s_nested_suites_errors_and_classes_are_read() {
    let expected = [
        ("Shop\\Tests\\ShopTest::testSells", Passed),
        ("Shop\\Tests\\ShopTest::testFails", Failed),
        ("Shop\\Tests\\ShopTest::testErrors", Failed),
        ("Shop\\Tests\\ShopTest::testSkips", Skipped),
        ("Shop\\Tests\\ShopTest::testTable with data set \"a b\"", Passed),
        ("Shop\\Tests\\ShopTest::testTable", Passed),
    ];
    assert_ids("phpunit.xml", &expected);
}

#[test]
fn ctest_s_bare_suite_tells_what_is_skipped_from_what_cannot_run() {
    let expected = [
        ("sells", Passed),
        ("fails (a|b)", Failed),
        ("skips", Skipped),
        ("disabled", Skipped),
        ("missing", Failed),
    ];
    assert_ids("ctest.xml", &expected);
}

#[test]
fn surefire_s_tries_and_times_are_read() {
    let expected = [
        ("com.example.ShopTest#sells", Passed),
        ("com.example.ShopTest.fails", Failed),
        ("com.example.ShopTest#breaks", Failed),
        ("com.example.ShopTest#skips", Skipped),
        ("com.example.ShopTest#flickers", Passed),
    ];
    assert_ids("surefire.xml", &expected);
    let cases = cases("surefire.xml");
    assert_eq!(cases[1].ms, 1_234_500);
    assert!(cases[1].message.starts_with("expected: <1> but was: <2>"), "{:?}", cases[1]);
    assert!(cases[1].log.contains("failure of an earlier try ---\norg.opentest4j"), "{}", cases[1].log);
    assert!(cases[4].log.contains("not yet"), "{}", cases[4].log);
}

#[test]
fn gradle_s_and_go_junit_report_s_names_are_ids() {
    let gradle = [
        ("com.example.ShopTest.sells()", Passed),
        ("com.example.ShopTest.fails()", Failed),
        ("com.example.ShopTest.skips()", Skipped),
        ("com.example.ShopTest.[1] a b", Passed),
    ];
    assert_ids("gradle.xml", &gradle);
    let go = [
        ("example.com/shop::TestSells", Passed),
        ("example.com/shop.TestFails", Failed),
        ("TestSkips", Skipped),
        ("example.com/shop::TestTable/a_b", Passed),
    ];
    assert_ids("go-junit-report.xml", &go);
    assert_eq!(cases("go-junit-report.xml")[2].message, "Skipped");
}

#[test]
fn the_files_of_javascript_and_nextest_are_read() {
    for (name, count, failed, skipped) in [
        ("jest-junit.xml", 10, 3, 1),
        ("vitest.xml", 10, 3, 2),
        ("node.xml", 9, 2, 2),
        ("nextest.xml", 6, 1, 0),
    ] {
        let cases = cases(name);
        let of = |outcome| cases.iter().filter(|case| case.outcome == outcome).count();
        assert_eq!((cases.len(), of(Failed), of(Skipped)), (count, failed, skipped), "{name}: {cases:#?}");
    }
}

#[test]
fn a_file_cut_anywhere_keeps_whole_cases_and_never_panics() {
    for name in ["pytest.xml", "phpunit.xml", "surefire.xml", "vitest.xml", "ctest.xml"] {
        let (bytes, whole) = (file(name), cases(name));
        for end in (0..bytes.len()).step_by(7) {
            if let Ok(report) = read(&bytes[..end]) {
                assert!(report.cases.len() <= whole.len());
                assert_eq!(report.cases, whole[..report.cases.len()], "{name} up to {end}");
            }
        }
    }
}

#[test]
fn an_external_entity_is_refused_and_no_file_is_opened() {
    let text = "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><testsuite><testcase name='&e;'/></testsuite>";
    assert_eq!(read(text.as_bytes()), Err(super::JunitRefused::Doctype));
    let reference = "<testsuite><testcase name='&e;'><failure>&e;</failure></testcase></testsuite>";
    let found = read(reference.as_bytes()).unwrap().cases;
    assert_eq!((found[0].name.as_str(), found[0].log.as_str()), ("&e;", "--- failure ---\n\u{fffd}\n"));
}
