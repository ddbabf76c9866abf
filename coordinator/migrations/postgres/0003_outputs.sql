-- What tests print lies in segment files beside the database (store/outputs.rs); a row says where. Logs of before the first
-- release are not carried over.
DROP TABLE logs;

CREATE TABLE outputs (
    run     BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    segment BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    bytes   BIGINT NOT NULL,
    digest  TEXT    NOT NULL,
    PRIMARY KEY (run, attempt)
);
CREATE INDEX outputs_by_segment ON outputs (segment);

-- What a unit printed while it ran. `starts` and `raw_bytes` count what was printed, the rest is about where it lies, compressed.
CREATE TABLE pieces (
    run       BIGINT NOT NULL,
    fence     BIGINT NOT NULL,
    starts    BIGINT NOT NULL,
    raw_bytes BIGINT NOT NULL,
    segment   BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    digest    TEXT    NOT NULL,
    PRIMARY KEY (run, fence, starts)
);
CREATE INDEX pieces_by_segment ON pieces (segment);
