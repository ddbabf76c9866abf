//! `name=value` arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) workers: u32,
    pub(crate) tests: u32,
    pub(crate) unit: u32,
    pub(crate) think: Duration,
    pub(crate) seconds: u64,
    pub(crate) state: PathBuf,
    /// Be the coordinator, there.
    pub(crate) serve: Option<SocketAddr>,
}

impl Options {
    pub(crate) fn from_args(args: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            workers: 1_000,
            tests: 100_000,
            unit: 1,
            think: Duration::from_millis(100),
            seconds: 20,
            state: std::env::temp_dir().join(format!("andon-load-{}", std::process::id())),
            serve: None,
        };
        for arg in args {
            let (name, value) = arg.split_once('=').ok_or_else(|| format!("{arg:?}: write name=value"))?;
            match name {
                "workers" => options.workers = value.parse()?,
                "tests" => options.tests = value.parse()?,
                "unit" => options.unit = value.parse()?,
                "think_ms" => options.think = Duration::from_millis(value.parse()?),
                "seconds" => options.seconds = value.parse()?,
                "state" => options.state = value.into(),
                "serve" => options.serve = Some(value.parse()?),
                other => return Err(format!("there is no option {other:?}").into()),
            }
        }
        Ok(options)
    }
}
