//! Tables for a person: runs, workers, baselines. Columns are as wide as what they hold; nothing is cut but text
//! from outside, which is escaped and bounded.

use andon_proto::{BaselineManifest, Run, Worker};

use super::exit;
use super::text::cut;
use super::words;

/// Longest name or branch shown in a column.
const COLUMN_CHARS_MAX: usize = 40;

/// Aligns cells by column, two spaces between, no trailing spaces.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut said = line(&mut header.iter().copied());
    for row in rows {
        said.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    said
}

/// `andon list`.
pub(crate) fn runs(runs: &[Run], now_unix_ms: u64) -> String {
    if runs.is_empty() {
        return "no runs yet\n".to_owned();
    }
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let over = exit::is_over(run.state());
            let wall = if over {
                words::millis(run.ended_unix_ms.saturating_sub(run.created_unix_ms))
            } else {
                String::new()
            };
            vec![
                run.run.to_string(),
                words::state_said(run.state()),
                cut(&run.project, COLUMN_CHARS_MAX),
                cut(words::short(&run.commit), COLUMN_CHARS_MAX),
                cut(branch(&run.git_ref), COLUMN_CHARS_MAX),
                words::counts(&run.counts.unwrap_or_default()),
                wall,
                words::ago(now_unix_ms, run.created_unix_ms),
            ]
        })
        .collect();
    table(&["RUN", "STATE", "PROJECT", "COMMIT", "BRANCH", "TESTS", "WALL", "ASKED"], &rows)
}

/// `andon worker list`.
pub(crate) fn workers(workers: &[Worker]) -> String {
    if workers.is_empty() {
        return "no workers\n".to_owned();
    }
    let rows: Vec<Vec<String>> = workers
        .iter()
        .map(|worker| {
            let state = match (worker.connected, worker.unfit.is_empty()) {
                (false, _) => "away".to_owned(),
                (true, true) => "ready".to_owned(),
                (true, false) => format!("unfit: {}", cut(&worker.unfit, 120)),
            };
            let state = match worker.inexact {
                0 => state,
                1 => format!("{state} (1 rebase was not exact: andon drift --inexact)"),
                count => format!("{state} ({count} rebases were not exact: andon drift --inexact)"),
            };
            vec![
                cut(&worker.name, COLUMN_CHARS_MAX),
                format!("{}/{}", worker.lanes_busy, worker.lanes),
                cut(&worker.pool, COLUMN_CHARS_MAX),
                cut(&worker.driver, COLUMN_CHARS_MAX),
                cut(&worker.version, COLUMN_CHARS_MAX),
                state,
            ]
        })
        .collect();
    table(&["WORKER", "BUSY", "POOL", "DRIVER", "VERSION", "STATE"], &rows)
}

/// `andon baseline list`.
pub(crate) fn baselines(baselines: &[BaselineManifest], now_unix_ms: u64) -> String {
    if baselines.is_empty() {
        return "no baselines yet\n".to_owned();
    }
    let rows: Vec<Vec<String>> = baselines
        .iter()
        .map(|baseline| {
            let services: Vec<&str> = baseline.services.iter().map(|service| service.name.as_str()).collect();
            vec![
                cut(words::short(&baseline.key), COLUMN_CHARS_MAX),
                cut(&services.join(","), COLUMN_CHARS_MAX),
                words::bytes(baseline.trees.iter().map(|tree| tree.bytes).sum()),
                words::bytes(baseline.trees.iter().map(super::json::packed).sum()),
                cut(words::short(&baseline.parent_key), COLUMN_CHARS_MAX),
                words::millis(baseline.build_ms),
                words::ago(now_unix_ms, baseline.built_unix_ms),
            ]
        })
        .collect();
    table(&["KEY", "SERVICES", "SIZE", "PACKED", "BUILT ON", "BUILT IN", "BUILT"], &rows)
}

/// `refs/heads/main` as a person calls it.
pub(crate) fn branch(git_ref: &str) -> &str {
    git_ref.strip_prefix("refs/heads/").or_else(|| git_ref.strip_prefix("refs/tags/")).unwrap_or(git_ref)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn runs_are_aligned() {
        let mut evil = sample::mixed();
        evil.git_ref = "refs/heads/\u{1b}[31mred".to_owned();
        evil.state = andon_proto::RunState::Running.into();
        insta::assert_snapshot!(runs(&[sample::green(), sample::mixed(), evil], 1_700_000_200_000), @r#"
        RUN  STATE    PROJECT  COMMIT        BRANCH       TESTS                                                                             WALL    ASKED
        13   passed   shop     4f2a9c1b7d3e  main         4 passed                                                                          16.0 s  3 min ago
        12   failed   shop     4f2a9c1b7d3e  main         1 passed, 1 failed, 1 timed out, 1 flaky, 1 skipped, 1 infrastructure, 1 not run  1m 30s  3 min ago
        12   running  shop     4f2a9c1b7d3e  \x1b[31mred  1 passed, 1 failed, 1 timed out, 1 flaky, 1 skipped, 1 infrastructure, 1 not run          3 min ago
        "#);
    }

    #[test]
    fn an_unfit_worker_says_why() {
        let ready = Worker {
            name: "w0".into(),
            connected: true,
            lanes: 2,
            lanes_busy: 1,
            version: "0.1.0".into(),
            pool: "xfs reflink".into(),
            driver: "restart".into(),
            ..Worker::default()
        };
        let unfit = Worker { name: "w1".into(), unfit: "disk full".into(), ..ready.clone() };
        let away = Worker { name: "w2".into(), connected: false, lanes_busy: 0, inexact: 2, ..ready.clone() };
        insta::assert_snapshot!(workers(&[ready, unfit, away]), @r#"
        WORKER  BUSY  POOL         DRIVER   VERSION  STATE
        w0      1/2   xfs reflink  restart  0.1.0    ready
        w1      1/2   xfs reflink  restart  0.1.0    unfit: disk full
        w2      0/2   xfs reflink  restart  0.1.0    away (2 rebases were not exact: andon drift --inexact)
        "#);
    }

    #[test]
    fn branches_are_called_by_their_names() {
        assert_eq!(branch("refs/heads/a/b"), "a/b");
        assert_eq!(branch("refs/tags/v1"), "v1");
        assert_eq!(branch("refs/pull/1"), "refs/pull/1");
    }
}
