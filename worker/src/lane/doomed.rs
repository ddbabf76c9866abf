//! Whose end has to come before a stack is put back.
//!
//! Invariant: it is killed once, whoever asks, and however often: what was killed may have been made anew since, and lives on.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::engine::{Engine, EngineError};
use crate::stack::kill_all;

/// The container of a unit that is over; nobody's, where its tests go on beside the rebase.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doomed {
    container: Option<String>,
    killed: Arc<OnceCell<()>>,
}

impl Doomed {
    /// The container with this id.
    pub(crate) fn one(container: &str) -> Self {
        Self { container: Some(container.to_owned()), killed: Arc::default() }
    }

    /// Nobody has to end.
    pub(crate) fn nobody() -> Self {
        Self::default()
    }

    /// Whether nobody has to end.
    pub(crate) fn is_nobody(&self) -> bool {
        self.container.is_none()
    }

    /// Answers once no process of it is left.
    pub(crate) async fn kill(&self, engine: &dyn Engine) -> Result<(), EngineError> {
        let Some(container) = &self.container else { return Ok(()) };
        let killed = self.killed.get_or_try_init(|| kill_all(engine, std::slice::from_ref(container)));
        killed.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ContainerSpec;
    use crate::engine::fake::FakeEngine;

    #[tokio::test]
    async fn what_was_killed_and_started_again_is_not_killed_again() {
        let engine = FakeEngine::new();
        engine.add_image("i", crate::engine::ImageInfo { id: "i".into(), ..Default::default() });
        let spec = ContainerSpec { name: "c".into(), image: "i".into(), ..ContainerSpec::default() };
        engine.create_container(&spec).await.unwrap();
        engine.start_container("c").await.unwrap();
        let doomed = Doomed::one("c");
        let refused = EngineError::Refused { what: "kill".into(), status: 500, message: "busy".into() };
        engine.fail_next("kill c", refused);
        doomed.kill(engine.as_ref()).await.unwrap_err();
        doomed.kill(engine.as_ref()).await.unwrap();
        assert!(!engine.inspect_container("c").await.unwrap().is_running());
        engine.start_container("c").await.unwrap();
        doomed.clone().kill(engine.as_ref()).await.unwrap();
        assert!(engine.inspect_container("c").await.unwrap().is_running());
        Doomed::nobody().kill(engine.as_ref()).await.unwrap();
    }
}
