-- Files that tests left, as an archive in the blob store; one a unit.
CREATE TABLE artifacts (
    run         BIGINT NOT NULL,
    fence       BIGINT NOT NULL,
    blob_digest TEXT    NOT NULL,
    blob_size   BIGINT NOT NULL,
    files       BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    left_out    BIGINT NOT NULL,
    PRIMARY KEY (fence)
);
CREATE INDEX artifacts_by_run ON artifacts (run, fence);
CREATE INDEX artifacts_by_blob ON artifacts (blob_digest);
