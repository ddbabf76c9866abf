//! What the services of a stack had written when a test failed: the end of each one's log, kept among the unit's artifacts.
//!
//! Must not know verdicts beyond "failed". Invariants: what is kept is bounded; a log that cannot be read costs no verdict.

use std::path::{Path, PathBuf};

use futures::future::join_all;

use crate::engine::{Engine, HeadTail};
use crate::stack::tail;

/// In an archive of artifacts, where Andon's own logs lie.
pub(super) const FOLDER: &str = "service-logs";
/// Of one service, at one moment.
const LINES: u32 = 1_000;
const BYTES_MAX: usize = 256 << 10;
/// Of one unit, in all.
const UNIT_BYTES_MAX: usize = 16 << 20;

/// Of the unit that runs.
#[derive(Debug, Default)]
pub(super) struct ServiceLogs {
    /// Where each belongs in the unit's archive.
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
    pub(super) bytes: usize,
    /// Files that there was no room for.
    pub(super) left_out: u32,
}

impl ServiceLogs {
    /// Keeps what these services (name and container) have written by now, for these attempts: all that failed on this stand.
    pub(super) async fn keep(&mut self, engine: &dyn Engine, services: &[(String, String)], failed: &[u64]) {
        let (Some(first), Some(last)) = (failed.iter().min(), failed.iter().max()) else { return };
        let logs = services.iter().map(|(_, container)| async move {
            let mut log = HeadTail::tail_alone(BYTES_MAX);
            tail(engine, container, LINES, &mut log).await;
            log.to_bytes()
        });
        for ((name, _), log) in services.iter().zip(join_all(logs).await) {
            if self.bytes + log.len() > UNIT_BYTES_MAX {
                self.left_out += 1;
                continue;
            }
            self.bytes += log.len();
            self.files.push((Path::new(FOLDER).join(format!("{first}-{last}/{name}.log")), log));
        }
    }
}

/// Which service's log a file of an archive of artifacts is, where it was kept for this attempt.
#[must_use]
pub fn service_of_log(path: &Path, attempt: u64) -> Option<&str> {
    let (attempts, file) = path.strip_prefix(FOLDER).ok()?.to_str()?.split_once('/')?;
    let (first, last) = attempts.split_once('-')?;
    let is_of = (first.parse().ok()?..=last.parse().ok()?).contains(&attempt);
    file.strip_suffix(".log").filter(|_| is_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ContainerSpec;
    use crate::engine::fake::{FakeEngine, Script};

    async fn keep(logs: &mut ServiceLogs, engine: &FakeEngine, failed: &[u64]) {
        let services = ["db", "gone"].map(|name| (name.to_owned(), format!("lane-{name}")));
        logs.keep(engine, &services, failed).await;
    }

    async fn engine(said: &str) -> FakeEngine {
        let engine = FakeEngine::default();
        engine.add_image("i", Default::default());
        let spec = ContainerSpec { name: "lane-db".into(), image: "i".into(), ..Default::default() };
        let container = engine.create_container(&spec).await.unwrap();
        let said = said.to_owned();
        engine.on_start(move |_| Some(Script::prints(&said)));
        engine.start_container(&container).await.unwrap();
        engine
    }

    #[tokio::test]
    async fn each_services_log_is_kept_for_those_that_failed_together() {
        let engine = engine("ready\n").await;
        let mut logs = ServiceLogs::default();
        keep(&mut logs, &engine, &[]).await;
        assert!(logs.files.is_empty(), "none failed");
        keep(&mut logs, &engine, &[9, 7]).await;
        let (db, gone) = (&logs.files[0], &logs.files[1]);
        assert_eq!(
            (db.0.as_path(), db.1.as_slice()),
            (Path::new("service-logs/7-9/db.log"), &b"ready\n"[..])
        );
        assert_eq!((service_of_log(&gone.0, 8), gone.1.as_slice()), (Some("gone"), &b""[..]));
        assert_eq!((logs.files.len(), logs.left_out), (2, 0));
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_counted() {
        let engine = engine(&"x".repeat(BYTES_MAX)).await;
        let mut logs = ServiceLogs::default();
        let fit = UNIT_BYTES_MAX / BYTES_MAX;
        for attempt in 1..=fit as u64 + 3 {
            keep(&mut logs, &engine, &[attempt]).await;
        }
        let kept = logs.files.iter().filter(|(_, log)| !log.is_empty()).count();
        assert_eq!((kept, logs.left_out), (fit, 3));
    }

    #[test]
    fn a_log_is_of_the_attempts_that_its_folder_names() {
        let of = |path: &str| service_of_log(Path::new(path), 8).map(str::to_owned);
        assert_eq!(of("service-logs/7-9/db.log").as_deref(), Some("db"));
        assert_eq!(of("service-logs/8-8/db.main.log").as_deref(), Some("db.main"));
        for other in
            ["service-logs/9-9/db.log", "service-logs/db.log", "shots/7-9/db.log", "service-logs/7-9/db"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
