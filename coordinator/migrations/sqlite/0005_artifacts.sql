-- Files that tests left, as an archive in the blob store; one a unit.
CREATE TABLE artifacts (
    run         INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    blob_digest TEXT    NOT NULL,
    blob_size   INTEGER NOT NULL,
    files       INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    left_out    INTEGER NOT NULL,
    PRIMARY KEY (fence)
);
CREATE INDEX artifacts_by_run ON artifacts (run, fence);
CREATE INDEX artifacts_by_blob ON artifacts (blob_digest);
