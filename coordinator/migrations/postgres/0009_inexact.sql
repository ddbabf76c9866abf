-- Stands that were put back and were not what their baseline says, as workers tell it. `number` counts each worker's from 1.
CREATE TABLE inexact (
    worker       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    number       BIGINT NOT NULL,
    heard_ms     BIGINT NOT NULL,
    found_ms     BIGINT NOT NULL,
    lane         BIGINT NOT NULL,
    run          BIGINT NOT NULL,
    suite        TEXT    NOT NULL,
    baseline_key TEXT    NOT NULL,
    driver       TEXT    NOT NULL,
    deep         BIGINT NOT NULL,
    parts        TEXT    NOT NULL,
    left_out     BIGINT NOT NULL,
    PRIMARY KEY (worker, id)
);
