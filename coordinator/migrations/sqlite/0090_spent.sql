-- What a runner took to start is a part of what was prepared; what a report took comes after the test.
ALTER TABLE attempts ADD COLUMN start_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN report_us INTEGER NOT NULL DEFAULT 0;

-- What was spent on a run phase by phase, on how many lanes, and what it dirtied. Runs that were entered before have nothing here.
ALTER TABLE ledger_runs ADD COLUMN queue_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_runs ADD COLUMN set_up_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_runs ADD COLUMN rebase_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_runs ADD COLUMN start_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_runs ADD COLUMN test_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_runs ADD COLUMN report_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_runs ADD COLUMN lanes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_runs ADD COLUMN dirtied_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN queue_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN set_up_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN rebase_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN start_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN test_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN report_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN lanes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_owners ADD COLUMN dirtied_bytes INTEGER NOT NULL DEFAULT 0;

-- When a run had its baseline, if it needs one.
ALTER TABLE runs ADD COLUMN based_ms INTEGER NOT NULL DEFAULT 0;
