-- Tests by verdict of a run that has ended, as JSON: nothing of it changes any more, and lists need not count.
ALTER TABLE runs ADD COLUMN counts TEXT NOT NULL DEFAULT '';
