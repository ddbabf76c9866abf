-- What a run amounted to, entered once after its end. It stays when the run's tests are deleted.
ALTER TABLE runs ADD COLUMN entered INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_to_enter ON runs (run) WHERE entered = 0 AND state >= 5;
CREATE INDEX runs_by_commit ON runs (project, commit_id, run);
CREATE INDEX runs_by_ref ON runs (project, git_ref, run);
CREATE INDEX runs_by_baseline ON runs (baseline_key, run);

-- A number made of project, suite and id, so that a test is found over its runs; 0 until its run was entered.
ALTER TABLE tests ADD COLUMN name INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tests_by_name ON tests (name, run) WHERE name <> 0;

-- Suite '' is the whole run.
CREATE TABLE ledger_runs (
    project      TEXT    NOT NULL,
    suite        TEXT    NOT NULL,
    run          INTEGER NOT NULL,
    git_ref      TEXT    NOT NULL,
    commit_id    TEXT    NOT NULL,
    baseline_key TEXT    NOT NULL,
    farm         TEXT    NOT NULL,
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
    PRIMARY KEY (project, suite, run)
) WITHOUT ROWID;

-- A day's figures: store/ledger.rs says how they are written.
CREATE TABLE ledger_days (
    project TEXT    NOT NULL,
    day     INTEGER NOT NULL,
    suite   TEXT    NOT NULL,
    tally   BLOB    NOT NULL,
    PRIMARY KEY (project, day, suite)
) WITHOUT ROWID;

CREATE TABLE ledger_rebases (
    worker TEXT    NOT NULL,
    day    INTEGER NOT NULL,
    driver TEXT    NOT NULL,
    sketch BLOB    NOT NULL,
    PRIMARY KEY (worker, day, driver)
) WITHOUT ROWID;

-- Change points of a suite on a branch, as they were judged after its last run there.
CREATE TABLE ledger_shifts (
    project TEXT NOT NULL,
    git_ref TEXT NOT NULL,
    suite   TEXT NOT NULL,
    shifts  TEXT NOT NULL,
    PRIMARY KEY (project, git_ref, suite)
) WITHOUT ROWID;
