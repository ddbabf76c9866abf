-- Enumerations are stored as the small numbers of store/codes.rs; times are UTC milliseconds since 1970.

CREATE TABLE runs (
    run           INTEGER PRIMARY KEY,
    project       TEXT    NOT NULL,
    repository    TEXT    NOT NULL,
    commit_id     TEXT    NOT NULL,
    git_ref       TEXT    NOT NULL,
    trigger_kind  INTEGER NOT NULL,
    requested_by  TEXT    NOT NULL,
    spec_digest   TEXT    NOT NULL,
    dedup_key     TEXT    UNIQUE,
    rerun_of      INTEGER,
    state         INTEGER NOT NULL,
    reason        TEXT    NOT NULL DEFAULT '',
    baseline_key  TEXT    NOT NULL DEFAULT '',
    created_ms    INTEGER NOT NULL,
    started_ms    INTEGER NOT NULL DEFAULT 0,
    ended_ms      INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_by_project ON runs (project, run);
CREATE INDEX runs_by_state ON runs (state);

CREATE TABLE suites_discovered (
    run   INTEGER NOT NULL,
    suite TEXT    NOT NULL,
    PRIMARY KEY (run, suite)
) WITHOUT ROWID;

CREATE TABLE tests (
    run     INTEGER NOT NULL,
    test    INTEGER NOT NULL,
    suite   TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    verdict INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, test)
) WITHOUT ROWID;

CREATE TABLE attempts (
    run           INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    test          INTEGER NOT NULL,
    work          INTEGER NOT NULL,
    fence         INTEGER NOT NULL,
    worker        TEXT    NOT NULL,
    lane          INTEGER NOT NULL,
    outcome       INTEGER NOT NULL DEFAULT 0,
    queue_ms      INTEGER NOT NULL,
    prepare_ms    INTEGER NOT NULL DEFAULT 0,
    rebase_us     INTEGER NOT NULL DEFAULT 0,
    run_ms        INTEGER NOT NULL DEFAULT 0,
    dirtied_bytes INTEGER,
    message       TEXT    NOT NULL DEFAULT '',
    driver        TEXT    NOT NULL DEFAULT '',
    started_ms    INTEGER NOT NULL DEFAULT 0,
    ended_ms      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, attempt)
) WITHOUT ROWID;
CREATE INDEX attempts_by_test ON attempts (run, test);

-- Output lives apart from the rows that lists and counts read.
CREATE TABLE logs (
    run     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    zstd    BLOB    NOT NULL,
    PRIMARY KEY (run, attempt)
);

CREATE TABLE notes (
    note  INTEGER PRIMARY KEY,
    run   INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    text  TEXT    NOT NULL,
    zstd  BLOB    NOT NULL
);
CREATE INDEX notes_by_run ON notes (run, note);

-- Leases that are out. A fence is never given twice: the highest one is remembered in `counters`.
CREATE TABLE leases (
    fence  INTEGER PRIMARY KEY,
    run    INTEGER NOT NULL,
    work   INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    suite  TEXT    NOT NULL,
    worker TEXT    NOT NULL,
    lane   INTEGER NOT NULL
);
CREATE INDEX leases_by_run ON leases (run);

CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('fence', 0);

-- How long a test took lately, and whether it failed the last time: what placement knows of it.
CREATE TABLE history (
    project     TEXT    NOT NULL,
    suite       TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    mean_ms     INTEGER NOT NULL,
    failed_last INTEGER NOT NULL,
    PRIMARY KEY (project, suite, id)
) WITHOUT ROWID;

CREATE TABLE baselines (
    key      TEXT    PRIMARY KEY,
    manifest BLOB    NOT NULL,
    at_ms    INTEGER NOT NULL
);

CREATE TABLE images (
    reference   TEXT    PRIMARY KEY,
    image_id    TEXT    NOT NULL,
    blob_digest TEXT    NOT NULL,
    blob_size   INTEGER NOT NULL
);
CREATE INDEX images_by_id ON images (image_id);
