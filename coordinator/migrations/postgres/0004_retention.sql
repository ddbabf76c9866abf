-- Of a run that ended long enough ago only its own row stays, with its counts.
ALTER TABLE runs ADD COLUMN forgotten BIGINT NOT NULL DEFAULT 0;
CREATE INDEX runs_by_end ON runs (forgotten, ended_ms);

-- What is known of a test over all runs, and the last run that said something of it: with that one it goes, too.
ALTER TABLE history ADD COLUMN runs BIGINT NOT NULL DEFAULT 0;
ALTER TABLE history ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE history ADD COLUMN flakes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE history ADD COLUMN last_run BIGINT NOT NULL DEFAULT 0;
