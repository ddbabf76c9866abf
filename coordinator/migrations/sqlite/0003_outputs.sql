-- What tests print lies in segment files beside the database (store/outputs.rs); a row says where. Logs of before the first
-- release are not carried over.
DROP TABLE logs;

CREATE TABLE outputs (
    run     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    digest  TEXT    NOT NULL,
    PRIMARY KEY (run, attempt)
) WITHOUT ROWID;
CREATE INDEX outputs_by_segment ON outputs (segment);

-- What a unit printed while it ran. `starts` and `raw_bytes` count what was printed, the rest is about where it lies, compressed.
CREATE TABLE pieces (
    run       INTEGER NOT NULL,
    fence     INTEGER NOT NULL,
    starts    INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    segment   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    digest    TEXT    NOT NULL,
    PRIMARY KEY (run, fence, starts)
) WITHOUT ROWID;
CREATE INDEX pieces_by_segment ON pieces (segment);
