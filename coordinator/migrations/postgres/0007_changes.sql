-- What an attempt changed of its stack, as its worker tells it.
CREATE TABLE changes (
    run     BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    changes TEXT NOT NULL,
    PRIMARY KEY (run, attempt)
);
