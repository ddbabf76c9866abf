-- What the tests of an owner amounted to in a run, as ledger_runs has it of a suite's.
CREATE TABLE ledger_owners (
    project      TEXT   NOT NULL,
    owner        TEXT   NOT NULL,
    run          BIGINT NOT NULL,
    git_ref      TEXT   NOT NULL,
    commit_id    TEXT   NOT NULL,
    baseline_key TEXT   NOT NULL,
    farm         TEXT   NOT NULL,
    pushed_ms    BIGINT NOT NULL,
    ended_ms     BIGINT NOT NULL,
    ending       BIGINT NOT NULL,
    tests        BIGINT NOT NULL,
    attempts     BIGINT NOT NULL,
    failed       BIGINT NOT NULL,
    flaky        BIGINT NOT NULL,
    lane_ms      BIGINT NOT NULL,
    mean_us      BIGINT NOT NULL,
    p50_ms       BIGINT NOT NULL,
    PRIMARY KEY (project, owner, run)
);

-- A test of an owner, as it was in the last run that gave it a verdict. The name is that of tests.
CREATE TABLE owned_tests (
    project  TEXT   NOT NULL,
    owner    TEXT   NOT NULL,
    name     BIGINT NOT NULL,
    run      BIGINT NOT NULL,
    test     BIGINT NOT NULL,
    git_ref  TEXT   NOT NULL,
    suite    TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    verdict  BIGINT NOT NULL,
    mean_ms  BIGINT NOT NULL,
    runs     BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    flakes   BIGINT NOT NULL,
    PRIMARY KEY (project, owner, name)
);
CREATE INDEX owned_tests_by_name ON owned_tests (name, run);
CREATE INDEX owned_tests_by_run ON owned_tests (run);
