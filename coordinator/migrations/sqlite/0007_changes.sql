-- What an attempt changed of its stack, as its worker tells it.
CREATE TABLE changes (
    run     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    changes TEXT NOT NULL,
    PRIMARY KEY (run, attempt)
);
