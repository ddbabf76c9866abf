-- Why tests failed, as experiments found out (`andon why`): the latest word on each.
CREATE TABLE causes (
    project TEXT   NOT NULL,
    suite   TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    run     BIGINT NOT NULL,
    told_ms BIGINT NOT NULL,
    finding TEXT   NOT NULL,
    said    TEXT   NOT NULL,
    PRIMARY KEY (project, suite, id)
);
