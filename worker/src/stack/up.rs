//! Starting a stack's containers in order, waiting until all are healthy, and stopping them cleanly.
//!
//! Knows the engine's trait; must not know pools, lanes, seeds. Invariants: a service that dies while it is waited for is
//! reported at once, with its exit code and last lines; every wait has a limit.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;

use super::fault::StackFault;
use super::health::Probe;
use super::order::Stage;
use super::plan::{ServicePlan, StackPlan};
use crate::engine::{Engine, EngineError, ExecSpec, HeadTail, LogsSpec};

/// How many of a service's last lines a message shows.
const LOG_LINES: u32 = 40;
/// Most bytes of them.
const LOG_BYTES_MAX: usize = 16 * 1024;
/// What is kept of a check's output, in bytes.
const CHECK_BYTES_MAX: usize = 4 * 1024;
/// Between two checks that are run from outside.
const OUTSIDE_PAUSE: Duration = Duration::from_millis(50);
/// A service that is waited for to complete.
const COMPLETE_LIMIT: Duration = Duration::from_secs(1800);
/// A killed container ends within this, or the daemon is in trouble.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// What a shell says for a command that is not there or cannot be run.
const NOT_RUNNABLE: std::ops::RangeInclusive<i64> = 126..=127;

/// Whether services that complete are run, or count as completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completing {
    /// While a baseline is built.
    Run,
    /// On a clone of a baseline: what they did is in it.
    Done,
}

/// Starts the containers (ids in the plan's order) as their conditions come true; answers when all are ready.
pub async fn bring_up(
    engine: &dyn Engine,
    plan: &StackPlan,
    containers: &[String],
    completing: Completing,
) -> Result<(), StackFault> {
    let mut stages = vec![Stage::Waiting; plan.services.len()];
    if completing == Completing::Done {
        for (place, service) in plan.services.iter().enumerate() {
            if service.completes {
                stages[place] = Stage::Ready;
            }
        }
    }
    let mut steps = FuturesUnordered::new();
    loop {
        for place in plan.order.startable(&stages) {
            stages[place] = Stage::Starting;
            steps.push(step(engine, &plan.services[place], &containers[place], place, Stage::Started));
        }
        // What is expected to end is not dead when it has ended.
        let Some(reached) = steps.next().await else { return Ok(()) };
        let (place, stage) = reached?;
        stages[place] = stage;
        if stage == Stage::Started {
            steps.push(step(engine, &plan.services[place], &containers[place], place, Stage::Ready));
        }
    }
}

async fn step(
    engine: &dyn Engine,
    service: &ServicePlan,
    container: &str,
    place: usize,
    to: Stage,
) -> Result<(usize, Stage), StackFault> {
    let began = tokio::time::Instant::now();
    match to {
        Stage::Started => start(engine, service, container).await?,
        _ if service.completes => wait_completed(engine, service, container).await?,
        _ => wait_healthy(engine, service, container).await?,
    }
    tracing::debug!(service = service.name, stage = ?to, took = ?began.elapsed(), "reached");
    Ok((place, to))
}

async fn start(engine: &dyn Engine, service: &ServicePlan, container: &str) -> Result<(), StackFault> {
    match engine.start_container(container).await {
        Ok(()) => Ok(()),
        Err(error @ (EngineError::Refused { .. } | EngineError::Conflict { .. })) => {
            // An own fault of the daemon reads the same; whoever builds a baseline asks the daemon before it blames.
            Err(StackFault::Unstartable { service: service.name.clone(), message: error.to_string() })
        }
        // A command that is not in the image is a 404 to some engines.
        Err(error @ EngineError::NotFound { .. }) => match engine.inspect_container(container).await {
            Ok(_) => {
                Err(StackFault::Unstartable { service: service.name.clone(), message: error.to_string() })
            }
            Err(_) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

async fn wait_completed(
    engine: &dyn Engine,
    service: &ServicePlan,
    container: &str,
) -> Result<(), StackFault> {
    match engine.wait_container(container, COMPLETE_LIMIT).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(ended(engine, service, container).await),
        Err(EngineError::TimedOut { .. }) => Err(StackFault::Endless {
            service: service.name.clone(),
            limit: COMPLETE_LIMIT,
            log: last_lines(engine, container).await,
        }),
        Err(error) => Err(error.into()),
    }
}

async fn wait_healthy(engine: &dyn Engine, service: &ServicePlan, container: &str) -> Result<(), StackFault> {
    let Some(probe) = &service.probe else {
        let state = engine.inspect_container(container).await?;
        return if state.is_running() { Ok(()) } else { Err(ended(engine, service, container).await) };
    };
    let mut said = HeadTail::with_limit(CHECK_BYTES_MAX);
    let outcome = tokio::select! {
        biased;
        // The exec of a dead container may hang or answer anything: its end is the better news.
        died = engine.wait_container(container, probe.limit + KILL_LIMIT) => {
            died?;
            Checked::Dead
        }
        outcome = check(engine, container, probe, &mut said) => outcome,
    };
    match outcome {
        Checked::Healthy => Ok(()),
        Checked::Dead => Err(ended(engine, service, container).await),
        Checked::NotInTime => {
            let check = probe.argv.join(" ");
            Err(StackFault::Unhealthy {
                service: service.name.clone(),
                limit: probe.limit,
                check,
                said: said.to_text().trim().lines().last().unwrap_or("nothing").to_owned(),
                log: last_lines(engine, container).await,
            })
        }
        Checked::Broken(error) => match engine.inspect_container(container).await {
            Ok(state) if state.is_running() => Err(error.into()),
            Ok(_) => Err(ended(engine, service, container).await),
            Err(gone) => Err(gone.into()),
        },
    }
}

enum Checked {
    Healthy,
    NotInTime,
    Dead,
    Broken(EngineError),
}

async fn check(engine: &dyn Engine, container: &str, probe: &Probe, said: &mut HeadTail) -> Checked {
    let waiting = ExecSpec::new(probe.waiting(), probe.limit);
    match engine.exec(container, &waiting, said).await {
        Ok(0) => Checked::Healthy,
        Ok(code) if NOT_RUNNABLE.contains(&code) => check_from_outside(engine, container, probe, said).await,
        Ok(_) => Checked::Broken(EngineError::Protocol {
            what: format!("wait for the health of {container}"),
            message: "the check was killed".to_owned(),
        }),
        Err(EngineError::TimedOut { .. }) => Checked::NotInTime,
        // Engines say so where there is no `sh`.
        Err(EngineError::Refused { .. } | EngineError::NotFound { .. }) => {
            check_from_outside(engine, container, probe, said).await
        }
        Err(error) => Checked::Broken(error),
    }
}

async fn check_from_outside(
    engine: &dyn Engine,
    container: &str,
    probe: &Probe,
    said: &mut HeadTail,
) -> Checked {
    let once = ExecSpec::new(probe.argv.clone(), probe.limit);
    let again = async {
        loop {
            match engine.exec(container, &once, said).await {
                Ok(0) => return Checked::Healthy,
                Ok(_) => {}
                Err(EngineError::Refused { message, .. }) => said.push(message.as_bytes()),
                Err(error) => return Checked::Broken(error),
            }
            tokio::time::sleep(OUTSIDE_PAUSE).await;
        }
    };
    tokio::time::timeout(probe.limit, again).await.unwrap_or(Checked::NotInTime)
}

async fn ended(engine: &dyn Engine, service: &ServicePlan, container: &str) -> StackFault {
    match engine.inspect_container(container).await {
        Ok(state) => StackFault::Ended {
            service: service.name.clone(),
            exit_code: state.exit_code,
            out_of_memory: state.out_of_memory(),
            log: last_lines(engine, container).await,
        },
        Err(error) => error.into(),
    }
}

/// The last lines that a container wrote; empty where they cannot be had.
pub async fn last_lines(engine: &dyn Engine, container: &str) -> String {
    let mut kept = HeadTail::with_limit(LOG_BYTES_MAX);
    tail(engine, container, LOG_LINES, &mut kept).await;
    kept.to_text()
}

/// Feeds the last lines that a container wrote; fewer, or none, where they cannot be had.
pub async fn tail(engine: &dyn Engine, container: &str, lines: u32, kept: &mut HeadTail) {
    if let Err(error) = engine.logs(container, LogsSpec::Tail(lines), kept).await {
        tracing::debug!(%error, container, "reading the last lines");
    }
}

/// Kills every process of these containers, all at once, and answers when none is left. One that does not run, or is not
/// there any more, is fine.
pub async fn kill_all(engine: &dyn Engine, containers: &[String]) -> Result<(), EngineError> {
    let killing = containers.iter().map(|container| async move {
        let killed = match engine.kill_container(container, "SIGKILL").await {
            Ok(()) => engine.wait_container(container, KILL_LIMIT).await.map(drop),
            Err(error) => Err(error),
        };
        match killed {
            Ok(()) => Ok(()),
            Err(error) if error.is_conflict() => {
                let state = engine.inspect_container(container).await?;
                if state.is_running() { Err(error) } else { Ok(()) }
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    });
    join_all(killing).await.into_iter().collect()
}

/// Stops the services in turn, dependents first, by their stop signals. One that must be killed, or ends with a code that
/// is neither 0 nor its stop signal's, is a fault.
pub async fn stop_cleanly(
    engine: &dyn Engine,
    plan: &StackPlan,
    containers: &[String],
) -> Result<(), StackFault> {
    for place in plan.order.sequence().iter().rev() {
        let (service, container) = (&plan.services[*place], &containers[*place]);
        let before = engine.inspect_container(container).await?;
        if !before.is_running() {
            if service.completes && before.exit_code == 0 {
                continue;
            }
            return Err(ended(engine, service, container).await);
        }
        let began = tokio::time::Instant::now();
        engine.stop_container(container, service.stop_grace).await?;
        let state = engine.inspect_container(container).await?;
        let killed = state.exit_code == 137 && began.elapsed() >= service.stop_grace;
        if killed && service.stop_signal != "SIGKILL" {
            return Err(StackFault::Killed {
                service: service.name.clone(),
                signal: service.stop_signal.clone(),
                grace: service.stop_grace,
                log: last_lines(engine, container).await,
            });
        }
        if state.exit_code != 0 && Some(state.exit_code) != signal_exit(&service.stop_signal) {
            return Err(StackFault::StoppedBadly {
                service: service.name.clone(),
                exit_code: state.exit_code,
                log: last_lines(engine, container).await,
            });
        }
    }
    Ok(())
}

/// The exit code of a process that a signal ended, as shells and engines tell it.
fn signal_exit(signal: &str) -> Option<i64> {
    let number = match signal.trim().to_ascii_uppercase().trim_start_matches("SIG") {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => 15,
        "WINCH" => 28,
        "RTMIN+3" => 37,
        other => other.parse().ok()?,
    };
    Some(128 + number)
}

#[cfg(test)]
#[path = "up_tests.rs"]
mod tests;
