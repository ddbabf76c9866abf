//! For tests: real repositories made by the `git` program, and a coordinator's face that remembers what it was told.

mod farm;
mod repo;

pub(crate) use self::farm::FakeFarm;
pub(crate) use self::repo::{RawEntry, TestRepo, git};

/// The sample of the design page, with a compose file and what both name.
pub(crate) const SAMPLE: &str = r#"
[stack]
compose = "compose.yaml"              # the services; healthchecks are honoured

[baseline]
seed   = ["mysql -h db -uroot shop < db/seed.sql"]   # run in order, in the first suite's image, on the stack
inputs = ["db/**"]                    # files whose content is part of the baseline's key

[[suite]]
name     = "integration"
image    = { build = "." }            # or image = "registry/name@sha256:…"
discover = "pytest --collect-only -q" # prints one test id a line (or a preset: runner = "pytest")
run      = "pytest -q --junitxml={junit} {tests}"
timeout  = "60s"
retries  = 1
rebase   = "test"                     # test | class | file | batch | never

[policy]
max_failures = 50                     # the cord: stop the run, mark the rest "not run"
"#;

/// A compose file to go with [`SAMPLE`].
pub(crate) const SAMPLE_COMPOSE: &str = r#"
services:
  db:
    image: mysql:9
    environment: { MYSQL_ALLOW_EMPTY_PASSWORD: "yes" }
    volumes: ["data:/var/lib/mysql"]
    healthcheck: { test: mysqladmin ping, interval: 500ms }
volumes:
  data:
"#;
