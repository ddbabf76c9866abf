//! The coordinator, in a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use andon_coordinator::{CoordinatorConfig, CoreConfig, WhereLed};
use tokio_util::sync::CancellationToken;

use crate::Failure;

pub(crate) const CLIENT: &str = "client-token-of-the-load";
pub(crate) const JOIN: &str = "join-token-of-the-load-too";
/// Clock ticks a second in /proc; a constant of Linux's interface.
const TICKS: u32 = 100;
const PAGE_BYTES: u64 = 4_096;

pub(crate) async fn serve(state: &Path, address: SocketAddr) -> Result<(), Failure> {
    let config = CoordinatorConfig {
        state_dir: state.to_owned(),
        store: None,
        listen: Some(address),
        socket: None,
        client_token: CLIENT.into(),
        role_tokens: Vec::new(),
        join_token: JOIN.into(),
        core: CoreConfig::default(),
        keep_runs: None,
        where_led: WhereLed::Refuse,
        traces: None,
    };
    Ok(andon_coordinator::serve(config, CancellationToken::new()).await?)
}

/// Killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn spawn(state: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(state)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(std::env::current_exe()?)
            .arg(format!("serve={address}"))
            .arg(format!("state={}", state.display()))
            .spawn()?;
        Ok(Self { child, address })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resident.
    pub(crate) fn memory_bytes(&self) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages = text.split(' ').nth(1).ok_or("statm has a second field")?;
        Ok(pages.parse::<u64>()? * PAGE_BYTES)
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = text.rsplit_once(')').ok_or("stat has a name")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
        Ok(Duration::from_secs(1) * ticks / TICKS)
    }

    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
