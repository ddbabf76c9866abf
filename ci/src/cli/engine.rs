//! The Docker engine of this machine: which one, and a connection to it.

use andon_worker::engine::{DockerEngine, Engine as _};
use andon_worker::outer::engine_address;

use super::error::CliError;

/// `DOCKER_HOST`, or the default socket.
pub(crate) fn address() -> String {
    engine_address(std::env::var("DOCKER_HOST").ok())
}

/// Connects and makes sure that it answers.
pub(crate) async fn connect() -> Result<DockerEngine, CliError> {
    let address = address();
    let unreachable = |error: andon_worker::engine::EngineError| {
        CliError::infrastructure(format!("the Docker engine at {address} does not answer"))
            .because(&error)
            .hint("start it, or name another by DOCKER_HOST; `andon doctor` looks closer")
    };
    let engine = DockerEngine::connect(&address).await.map_err(unreachable)?;
    engine.ping().await.map_err(unreachable)?;
    Ok(engine)
}
