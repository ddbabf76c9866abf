-- Baselines and discoveries of runs that have not ended which came to nothing, each with who had it.
CREATE TABLE losses (
    run    BIGINT NOT NULL,
    kind   BIGINT NOT NULL,
    suite  TEXT    NOT NULL,
    worker TEXT    NOT NULL
);
CREATE INDEX losses_by_run ON losses (run);
