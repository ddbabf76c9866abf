//! Worker boxes (placeholder)

use super::error::CliError;
use super::servers::Driver;
use andon_worker::engine::DockerEngine;

use std::path::PathBuf;
pub(crate) struct Wanted {
    pub(crate) count: u32,
    pub(crate) lanes: u32,
    pub(crate) driver: Option<Driver>,
    pub(crate) image: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) join_token: String,
}
pub(crate) struct Boxes {
    engine: DockerEngine,
    farm: String,
}
impl Boxes {
    pub(crate) fn new(engine: DockerEngine, farm: &str) -> Self {
        Self { engine, farm: farm.to_owned() }
    }
    pub(crate) async fn start_missing(&self, _w: &Wanted) -> Result<Vec<String>, CliError> {
        Ok(vec![])
    }
    pub(crate) async fn remove_all(&self) -> Result<usize, CliError> {
        Ok(0)
    }
    pub(crate) async fn first_dead<'a>(&self, _n: &[&'a String]) -> Result<Option<&'a str>, CliError> {
        Ok(None)
    }
    pub(crate) async fn log_tail(&self, _n: &str, _l: usize) -> String {
        String::new()
    }
}
