//! The worker boxes of this machine's farm, on its own Docker engine: which there should be, which there are.
//!
//! `andon_worker::outer` knows how a box is made; this file knows which ones a farm wants.

use std::path::PathBuf;
use std::sync::Arc;

use andon_worker::engine::{DockerEngine, Status};
use andon_worker::host::Capabilities;
use andon_worker::outer::{BoxSpec, Outer, OuterError, WorkerBox, privileges};
use andon_worker::registry::RegistryConfig;

use super::doctor::chain;
use super::error::CliError;
use super::out;
use super::servers::Driver;

/// The boxes that `andon up` wants.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) count: u32,
    pub(crate) lanes: u32,
    pub(crate) driver: Option<Driver>,
    pub(crate) image: String,
    pub(crate) socket: PathBuf,
    pub(crate) join_token: String,
    pub(crate) registry: Option<RegistryConfig>,
}

/// The boxes of one farm.
pub(crate) struct Boxes {
    outer: Outer,
    farm: String,
}

impl Boxes {
    /// Finds out what privileges the host can give.
    pub(crate) fn new(engine: DockerEngine, farm: &str) -> Result<Self, CliError> {
        let bounding = Capabilities::bounding().map_err(|error| {
            CliError::infrastructure("cannot find out what this machine allows").because(&error)
        })?;
        Ok(Self { outer: Outer::new(Arc::new(engine), privileges(bounding)), farm: farm.to_owned() })
    }

    /// The names of a farm's boxes, the first `count` of them.
    fn names(&self, count: u32) -> Vec<String> {
        (1..=count).map(|number| format!("andon-{}-{number}", self.farm)).collect()
    }

    /// Starts those that do not run, and answers with the names of all that are wanted.
    pub(crate) async fn start_missing(&self, wanted: &Wanted) -> Result<Vec<String>, CliError> {
        let names = self.names(wanted.count);
        let there = self.outer.list(&self.farm).await?;
        for name in missing(&names, &there) {
            if let Some(ended) = there.iter().find(|found| found.name == *name)
                && let Some(how) = self.outer.end_of(&ended.id).await?
            {
                out::line(&format!("worker box {name} had ended: {how}"))?;
            }
            let spec = BoxSpec {
                name: name.clone(),
                farm: self.farm.clone(),
                image: wanted.image.clone(),
                socket: wanted.socket.clone(),
                join_token: wanted.join_token.clone(),
                lanes: Some(wanted.lanes),
                driver: wanted.driver.map(|driver| driver.of_worker().as_str().to_owned()),
                env: environment(wanted.registry.as_ref()),
                shm_bytes: 0,
            };
            self.outer.start_worker(&spec).await?;
            out::line(&format!("worker box {name} started"))?;
        }
        Ok(names)
    }

    /// Removes every box of the farm; answers with how many there were.
    pub(crate) async fn remove_all(&self) -> Result<usize, CliError> {
        Ok(self.outer.remove_all(&self.farm).await?)
    }

    /// The first of these boxes that does not run, with how it ended.
    pub(crate) async fn first_dead<'a>(
        &self,
        names: &[&'a String],
    ) -> Result<Option<(&'a str, String)>, CliError> {
        let there = self.outer.list(&self.farm).await?;
        let Some(name) = names.iter().find(|name| !runs(name, &there)) else { return Ok(None) };
        let how = match there.iter().find(|found| found.name == **name) {
            Some(found) => self.outer.end_of(&found.id).await?,
            None => None,
        };
        Ok(Some((name.as_str(), how.map(|how| format!(" ({how})")).unwrap_or_default())))
    }

    /// The last lines that a box wrote; why there are none where it cannot be asked.
    pub(crate) async fn log_tail(&self, name: &str, lines: u32) -> String {
        match self.outer.log_tail(name, lines).await {
            Ok(tail) if tail.trim().is_empty() => "nothing".to_owned(),
            Ok(tail) => tail,
            Err(error) => format!("(its log cannot be read: {})", chain(&error)),
        }
    }
}

fn missing<'a>(names: &'a [String], there: &[WorkerBox]) -> Vec<&'a String> {
    names.iter().filter(|name| !runs(name, there)).collect()
}

fn runs(name: &str, there: &[WorkerBox]) -> bool {
    there.iter().any(|found| found.name == name && found.status == Status::Running)
}

impl From<OuterError> for CliError {
    fn from(error: OuterError) -> Self {
        let said = error.to_string();
        let new = match &error {
            OuterError::NoImage { .. } => {
                Self::infrastructure(said).hint("andon up --image NAME, once `docker image ls` shows it")
            }
            OuterError::NotStarted { .. } => {
                Self::infrastructure(said).hint("`andon doctor` looks at what the machine allows")
            }
            OuterError::NameTaken { .. } | OuterError::Engine(_) => Self::infrastructure(said),
        };
        match std::error::Error::source(&error) {
            Some(cause) => new.because(cause),
            None => new,
        }
    }
}

/// What this machine's boxes are told: by the environment of whoever starts them, and of the registry.
fn environment(registry: Option<&RegistryConfig>) -> Vec<(String, String)> {
    let told = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    let told = super::servers::WORKER_VARIABLES.iter().filter_map(|name| told(name));
    told.chain(registry.map(super::registry::environment).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_run_is_started() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let found = |name: &str, status| WorkerBox { id: name.into(), name: name.into(), status };
        let there = [found("a", Status::Running), found("b", Status::Exited), found("z", Status::Running)];
        assert_eq!(missing(&names, &there), ["b", "c"]);
    }
}
