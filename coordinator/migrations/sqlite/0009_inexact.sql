-- Stands that were put back and were not what their baseline says, as workers tell it. `number` counts each worker's from 1.
CREATE TABLE inexact (
    worker       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    number       INTEGER NOT NULL,
    heard_ms     INTEGER NOT NULL,
    found_ms     INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    run          INTEGER NOT NULL,
    suite        TEXT    NOT NULL,
    baseline_key TEXT    NOT NULL,
    driver       TEXT    NOT NULL,
    deep         INTEGER NOT NULL,
    parts        TEXT    NOT NULL,
    left_out     INTEGER NOT NULL,
    PRIMARY KEY (worker, id)
);
