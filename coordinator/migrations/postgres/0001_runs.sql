-- The rows of a JSON array, as SQLite's function of that name gives them: so one text of SQL serves both.
CREATE FUNCTION json_each(rows TEXT) RETURNS TABLE (value JSONB) LANGUAGE sql IMMUTABLE AS
    'SELECT jsonb_array_elements(rows::jsonb)';

-- Enumerations are stored as the small numbers of store/codes.rs; times are UTC milliseconds since 1970.

CREATE TABLE runs (
    run           BIGINT PRIMARY KEY,
    project       TEXT    NOT NULL,
    repository    TEXT    NOT NULL,
    commit_id     TEXT    NOT NULL,
    git_ref       TEXT    NOT NULL,
    trigger_kind  BIGINT NOT NULL,
    requested_by  TEXT    NOT NULL,
    spec_digest   TEXT    NOT NULL,
    dedup_key     TEXT    UNIQUE,
    rerun_of      BIGINT,
    state         BIGINT NOT NULL,
    reason        TEXT    NOT NULL DEFAULT '',
    baseline_key  TEXT    NOT NULL DEFAULT '',
    created_ms    BIGINT NOT NULL,
    started_ms    BIGINT NOT NULL DEFAULT 0,
    ended_ms      BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX runs_by_project ON runs (project, run);
CREATE INDEX runs_by_state ON runs (state);

CREATE TABLE suites_discovered (
    run   BIGINT NOT NULL,
    suite TEXT    NOT NULL,
    PRIMARY KEY (run, suite)
);

CREATE TABLE tests (
    run     BIGINT NOT NULL,
    test    BIGINT NOT NULL,
    suite   TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    verdict BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (run, test)
);

CREATE TABLE attempts (
    run           BIGINT NOT NULL,
    attempt       BIGINT NOT NULL,
    test          BIGINT NOT NULL,
    work          BIGINT NOT NULL,
    fence         BIGINT NOT NULL,
    worker        TEXT    NOT NULL,
    lane          BIGINT NOT NULL,
    outcome       BIGINT NOT NULL DEFAULT 0,
    queue_ms      BIGINT NOT NULL,
    prepare_ms    BIGINT NOT NULL DEFAULT 0,
    rebase_us     BIGINT NOT NULL DEFAULT 0,
    run_ms        BIGINT NOT NULL DEFAULT 0,
    dirtied_bytes BIGINT,
    message       TEXT    NOT NULL DEFAULT '',
    driver        TEXT    NOT NULL DEFAULT '',
    started_ms    BIGINT NOT NULL DEFAULT 0,
    ended_ms      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (run, attempt)
);
CREATE INDEX attempts_by_test ON attempts (run, test);

-- Output lives apart from the rows that lists and counts read.
CREATE TABLE logs (
    run     BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    zstd    BYTEA    NOT NULL,
    PRIMARY KEY (run, attempt)
);

CREATE TABLE notes (
    note  BIGSERIAL PRIMARY KEY,
    run   BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    text  TEXT    NOT NULL,
    zstd  BYTEA    NOT NULL
);
CREATE INDEX notes_by_run ON notes (run, note);

-- Leases that are out. A fence is never given twice: the highest one is remembered in `counters`.
CREATE TABLE leases (
    fence  BIGINT PRIMARY KEY,
    run    BIGINT NOT NULL,
    work   BIGINT NOT NULL,
    kind   BIGINT NOT NULL,
    suite  TEXT    NOT NULL,
    worker TEXT    NOT NULL,
    lane   BIGINT NOT NULL
);
CREATE INDEX leases_by_run ON leases (run);

CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('fence', 0), ('epoch', 0);

-- How long a test took lately, and whether it failed the last time: what placement knows of it.
CREATE TABLE history (
    project     TEXT    NOT NULL,
    suite       TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    mean_ms     BIGINT NOT NULL,
    failed_last BIGINT NOT NULL,
    PRIMARY KEY (project, suite, id)
);

CREATE TABLE baselines (
    key      TEXT    PRIMARY KEY,
    manifest BYTEA    NOT NULL,
    at_ms    BIGINT NOT NULL
);

CREATE TABLE images (
    reference   TEXT    PRIMARY KEY,
    image_id    TEXT    NOT NULL,
    blob_digest TEXT    NOT NULL,
    blob_size   BIGINT NOT NULL
);
CREATE INDEX images_by_id ON images (image_id);
