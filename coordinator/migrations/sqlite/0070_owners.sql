-- What the tests of an owner amounted to in a run, as ledger_runs has it of a suite's.
CREATE TABLE ledger_owners (
    project      TEXT   NOT NULL,
    owner        TEXT   NOT NULL,
    run          INTEGER NOT NULL,
    git_ref      TEXT   NOT NULL,
    commit_id    TEXT   NOT NULL,
    baseline_key TEXT   NOT NULL,
    farm         TEXT   NOT NULL,
    pushed_ms    INTEGER NOT NULL,
    ended_ms     INTEGER NOT NULL,
    ending       INTEGER NOT NULL,
    tests        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    flaky        INTEGER NOT NULL,
    lane_ms      INTEGER NOT NULL,
    mean_us      INTEGER NOT NULL,
    p50_ms       INTEGER NOT NULL,
    PRIMARY KEY (project, owner, run)
) WITHOUT ROWID;

-- A test of an owner, as it was in the last run that gave it a verdict. The name is that of tests.
CREATE TABLE owned_tests (
    project  TEXT   NOT NULL,
    owner    TEXT   NOT NULL,
    name     INTEGER NOT NULL,
    run      INTEGER NOT NULL,
    test     INTEGER NOT NULL,
    git_ref  TEXT   NOT NULL,
    suite    TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    verdict  INTEGER NOT NULL,
    mean_ms  INTEGER NOT NULL,
    runs     INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    flakes   INTEGER NOT NULL,
    PRIMARY KEY (project, owner, name)
) WITHOUT ROWID;
CREATE INDEX owned_tests_by_name ON owned_tests (name, run);
CREATE INDEX owned_tests_by_run ON owned_tests (run);
