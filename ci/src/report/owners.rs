//! `andon stats --owners` and `--owner`: whose tests fail, flake and take long. The values are those of the coordinator's JSON API, as in
//! `flow`; what is missing of them is shown as nothing.

use serde_json::Value;

use super::flow::{NAME_CHARS_MAX, count, line_facts, list, listed, millis, name};
use super::listing::table;
use super::text::cut;
use super::words;

/// All owners of a project's tests.
pub(crate) fn owners(of: &Value) -> String {
    let row = |owner: &Value| {
        vec![
            name(&owner["owner"]),
            count(&owner["tests"]),
            count(&owner["failing"]),
            count(&owner["flaky"]),
            millis(&owner["tests_ms"]),
        ]
    };
    let rows: Vec<Vec<String>> = list(&of["owners"]).iter().map(row).collect();
    if rows.is_empty() {
        return format!("{}: nobody owns a test that ran\n", name(&of["project"]));
    }
    let header = ["owner", "tests", "failing", "ever flaky", "one after the other"];
    format!("{} · owners\n\n{}", name(&of["project"]), table(&header, &rows))
}

/// One of them.
pub(crate) fn owner(of: &Value, now_unix_ms: u64) -> String {
    let flow = &of["flow"];
    let line = cut(flow["ref"].as_str().unwrap_or("all branches"), NAME_CHARS_MAX);
    let runs = words::plural(flow["runs"].as_u64().unwrap_or(0), "run");
    let mut said = format!("{} · {} · {line} · {runs}\n\n", name(&of["project"]), name(&of["owner"]));
    let tests = format!(
        "{}, {} failing, {} ever flaky, {} one after the other",
        count(&of["tests"]),
        count(&of["failing"]),
        count(&of["flaky"]),
        millis(&of["tests_ms"]),
    );
    let mut facts = vec![("tests", tests)];
    facts.extend(line_facts(flow, now_unix_ms));
    said.push_str(&listed(&facts));
    for (title, key) in [("failing", "failing_tests"), ("flaky", "flaky_tests"), ("slowest", "slow_tests")] {
        let rows: Vec<Vec<String>> = list(&of[key]).iter().map(row).collect();
        if !rows.is_empty() {
            let header = [title, "last verdict", "takes", "flaky in", "failed in", "run"];
            said.push_str(&format!("\n{}", table(&header, &rows)));
        }
    }
    said
}

fn row(test: &Value) -> Vec<String> {
    let full =
        format!("{}/{}", test["suite"].as_str().unwrap_or_default(), test["id"].as_str().unwrap_or_default());
    vec![
        cut(&full, 2 * NAME_CHARS_MAX),
        cut(&test["verdict"].as_str().unwrap_or_default().replace('_', " "), NAME_CHARS_MAX),
        millis(&test["mean_ms"]),
        format!("{} of {}", count(&test["flakes"]["hits"]), count(&test["flakes"]["of"])),
        count(&test["failures"]),
        count(&test["run"]),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_owner_is_told_with_what_fails_flakes_and_takes_long() {
        let test = json!({ "suite": "it", "id": "a.py::x\u{1b}[2J", "run": 7, "verdict": "timed_out", "mean_ms": 1_500,
                           "failures": 2, "flakes": { "hits": 1, "of": 9 } });
        let said = owner(
            &json!({
                "project": "shop", "owner": "@shop/cart", "tests": 3, "failing": 1, "flaky": 1, "tests_ms": 4_200,
                "flow": { "ref": "refs/heads/main", "runs": 5, "restore_p50_ms": 60_000 },
                "failing_tests": [test], "flaky_tests": [], "slow_tests": [test],
            }),
            0,
        );
        for line in [
            "shop · @shop/cart · refs/heads/main · 5 runs",
            "tests            3, 1 failing, 1 ever flaky, 4.2 s one after the other",
            "time to restore  p50 1m 00s",
        ] {
            assert!(said.lines().any(|known| known == line), "{line}\nis not in\n{said}");
        }
        assert!(said.contains("it/a.py::x\\x1b[2J") && said.contains("timed out"), "{said}");
        assert!(
            said.contains("1 of 9") && said.contains("\nfailing") && said.contains("\nslowest"),
            "{said}"
        );
        assert!(!said.contains("\nflaky  "), "{said}");
    }

    #[test]
    fn owners_are_a_table_and_none_are_said() {
        let one = json!({ "owner": "@shop/cart", "tests": 3, "failing": 1, "flaky": 0, "tests_ms": 900 });
        let said = owners(&json!({ "project": "shop", "owners": [one] }));
        assert!(said.contains("@shop/cart") && said.contains("900 ms"), "{said}");
        assert_eq!(
            owners(&json!({ "project": "shop", "owners": [] })),
            "shop: nobody owns a test that ran\n"
        );
        assert!(owner(&json!(null), 0).contains("time to restore"));
    }
}
