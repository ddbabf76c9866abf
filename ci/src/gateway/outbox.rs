//! Sends what waits on the [`Desk`] to one project's forge, one at a time, for as long as it takes.
//!
//! A forge that is away or wants fewer requests is left alone for a while that grows; nothing else waits for it. What
//! it refuses for good is said and dropped; what it does not let us do is tried for a day, beside the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::changes::spread;
use super::desk::{Desk, Queued};
use crate::clock;
use crate::forge::{Forge, ForgeError};
use crate::hook::{blocking, chain};

/// The first wait after a failure; it doubles.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait that is not asked for by the forge.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// How long a status is of interest to anybody.
const AGE_MAX: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// How long what is denied is tried: somebody may give the token its scope.
const DENIED_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A wait before a try: doubling, with a jitter of a tenth that is other for each project and try.
fn wait(project: &str, failures: u32) -> Duration {
    let doubled = WAIT_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    spread(doubled.min(WAIT_MAX), project, u64::from(failures))
}

/// One project's sender.
pub(super) struct Outbox {
    pub(super) project: String,
    pub(super) forge: Arc<dyn Forge>,
    pub(super) desk: Arc<Desk>,
    pub(super) wake: Arc<Notify>,
}

/// What is known of failures, in memory: after a restart everything is tried at once.
#[derive(Default)]
struct Troubles {
    /// In a row, of the forge as a whole.
    failures: u32,
    /// What was said last.
    said: Option<String>,
    /// Single statuses that were denied: how often, and not before when.
    denied: HashMap<String, (u32, Instant)>,
}

impl Outbox {
    /// Sends until dropped.
    pub(super) async fn run(self) {
        let mut troubles = Troubles::default();
        loop {
            let pause = self.round(&mut troubles, Instant::now()).await;
            match pause {
                // A wake-up that came meanwhile is kept by the Notify.
                None => self.wake.notified().await,
                Some(pause) if troubles.failures > 0 => tokio::time::sleep(pause).await,
                Some(pause) => {
                    let _ = tokio::time::timeout(pause, self.wake.notified()).await;
                }
            }
        }
    }

    /// Sends what is due. Answers how long to wait for the next try; `None` where nothing waits.
    async fn round(&self, troubles: &mut Troubles, now: Instant) -> Option<Duration> {
        let (desk, project) = (Arc::clone(&self.desk), self.project.clone());
        let waiting = blocking(move || desk.waiting(&project)).await;
        let mut next: Option<Instant> = None;
        troubles.denied.retain(|key, _| waiting.iter().any(|(waits, _)| waits == key));
        for (key, queued) in waiting {
            if let Some((_, not_before)) = troubles.denied.get(&key).filter(|(_, at)| *at > now) {
                next = Some(next.map_or(*not_before, |next| next.min(*not_before)));
                continue;
            }
            if let Some(pause) = self.send(&key, &queued, troubles, now).await {
                return Some(pause);
            }
            if let Some((_, not_before)) = troubles.denied.get(&key) {
                next = Some(next.map_or(*not_before, |next| next.min(*not_before)));
            }
        }
        next.map(|at| at.saturating_duration_since(now))
    }

    /// Sends one. Answers with a pause where the forge as a whole needs one.
    async fn send(
        &self,
        key: &str,
        queued: &Queued,
        troubles: &mut Troubles,
        now: Instant,
    ) -> Option<Duration> {
        let known = self.desk.id(key);
        let age = Duration::from_millis(clock::unix_ms().saturating_sub(queued.since_unix_ms));
        match self.forge.report(&queued.status, known.as_deref()).await {
            Ok(id) => {
                if troubles.said.take().is_some() {
                    tracing::info!(project = self.project, "the forge takes statuses again");
                }
                troubles.failures = 0;
                self.leave(key, queued, id).await;
                None
            }
            Err(error @ ForgeError::Refused { .. }) => {
                self.say(troubles, &error, "dropped");
                self.leave(key, queued, None).await;
                None
            }
            Err(error @ ForgeError::Denied { .. }) => {
                if age > DENIED_AGE_MAX {
                    self.say(troubles, &error, "dropped after a day");
                    self.leave(key, queued, None).await;
                } else {
                    self.say(troubles, &error, "trying again for a day");
                    let tries = troubles.denied.get(key).map_or(1, |(tries, _)| tries + 1);
                    let at = now + wait(key, tries);
                    troubles.denied.insert(key.to_owned(), (tries, at));
                }
                None
            }
            Err(error) => {
                if age > AGE_MAX {
                    self.say(troubles, &error, "the oldest are dropped");
                    self.leave(key, queued, None).await;
                } else {
                    self.say(troubles, &error, "trying again");
                }
                troubles.failures = troubles.failures.saturating_add(1);
                let asked = if let ForgeError::Slower { wait: asked, .. } = error { asked } else { None };
                let usual = wait(&self.project, troubles.failures);
                Some(asked.map_or(usual, |asked| asked.max(usual)))
            }
        }
    }

    async fn leave(&self, key: &str, queued: &Queued, id: Option<String>) {
        let (desk, owned, sent) = (Arc::clone(&self.desk), key.to_owned(), queued.clone());
        if let Err(error) = blocking(move || desk.sent(&owned, &sent, id)).await {
            // It is told once more later, which forges take.
            tracing::error!(project = self.project, "{}", chain(&error));
        }
    }

    /// A lasting trouble is said once.
    fn say(&self, troubles: &mut Troubles, error: &ForgeError, then: &str) {
        let text = error.to_string();
        if troubles.said.as_ref() != Some(&text) {
            tracing::warn!(project = self.project, "status not sent: {text}; {then}");
            troubles.said = Some(text);
        }
    }
}

#[cfg(test)]
mod tests;
