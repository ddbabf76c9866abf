//! A Docker API for the tests of one unit: a filtering server in front of the worker's own nested daemon.
//!
//! ```text
//!   test ──DOCKER_HOST=unix:///andon/docker.sock──> serve ──route──> judged, named, labelled ──> nested daemon
//!   test ──gateway:mapped port──> ports ──────────────────────────────────────────────────────> its container
//! ```
//!
//! What a test makes carries the lane's label and the unit's token; it sees that alone, may make so much of it, and all of it is
//! removed when the unit is over, before its stack is put back. `route.rs` says which calls there are, `create.rs` and
//! `mounts.rs` what may be asked of a container, `words.rs` how names differ, `ports.rs` how published ports are reached.
//!
//! Must not know stacks, rebases or leases. Invariants: a unit that made nothing costs its end nothing; whoever holds the
//! socket can reach neither the worker's files, nor its network, nor another unit's objects.

mod containers;
mod create;
mod daemon;
mod desk;
mod mounts;
mod networks;
mod ports;
mod refusal;
mod route;
mod serve;
mod words;

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Method;
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use create::Caps;
use daemon::Daemon;
use desk::Desk;
pub(crate) use desk::HaveImage;
use mounts::Reach;
pub(crate) use mounts::SOCKET_IN_BOX;
pub(crate) use ports::Home;
use words::Words;

/// Makes the folder of sockets anew, and removes what tests of an earlier life left: mounts, volumes. Containers and networks
/// go by the lanes' label.
pub(crate) async fn tidy(folder: &Path, daemon: Option<&Path>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    mounts::unmount_all(folder);
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => std::fs::create_dir_all(folder).map_err(failed)?,
    }
    match daemon {
        Some(daemon) => desk::sweep_volumes(daemon).await,
        None => Ok(()),
    }
}

/// What a unit's API is made from.
pub(crate) struct GuestSpec {
    /// The nested daemon's socket.
    pub(crate) daemon: PathBuf,
    /// Where this API's own socket is made; mounted into the unit's box.
    pub(crate) socket: PathBuf,
    /// In labels.
    pub(crate) lane: String,
    /// Never the same twice in a worker's life.
    pub(crate) serial: u64,
    /// The lane's network, by name.
    pub(crate) network: String,
    /// Where the source is in the box, and on the worker.
    pub(crate) workdir: String,
    /// See `workdir`.
    pub(crate) source: PathBuf,
    /// Of each container.
    pub(crate) caps: Caps,
    /// The id of the box's own image, which tests may use, too.
    pub(crate) suite_image: String,
    /// For images that are not there.
    pub(crate) have_image: HaveImage,
}

/// A running API. Dropping it cuts every connection and removes nothing; [`Guest::close`] does both.
#[derive(Debug)]
pub(crate) struct Guest {
    desk: Arc<Desk>,
    socket: PathBuf,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Guest {
    /// Listens from now on. The error is for a person.
    pub(crate) async fn open(spec: GuestSpec) -> Result<Self, String> {
        let daemon = Daemon::new(spec.daemon);
        let found = daemon.must(Method::GET, &format!("/networks/{}", spec.network), None).await;
        let network = found.map_err(|error| format!("network {}: {error}", spec.network))?;
        let home = home_of(&network).ok_or_else(|| format!("network {} has no gateway", spec.network))?;
        mounts::unlink(&spec.socket);
        let failed = |error: std::io::Error| format!("cannot listen on {}: {error}", spec.socket.display());
        let listener = UnixListener::bind(&spec.socket).map_err(failed)?;
        // Tests may run as any user; nobody else has the folder.
        std::fs::set_permissions(&spec.socket, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
        let token = format!("andon-guest{}-{}", spec.lane, spec.serial);
        let desk = Arc::new(Desk {
            daemon,
            words: Words { token, network: spec.network },
            lane: spec.lane,
            network_id: desk::id_of(&network),
            home,
            reach: Reach {
                workdir: spec.workdir,
                source: spec.source,
                mounts: spec.socket.with_extension("mount"),
                socket: spec.socket.clone(),
            },
            caps: spec.caps,
            suite_image: spec.suite_image,
            have_image: spec.have_image,
            life: desk::Life::default(),
        });
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve::serve(Arc::clone(&desk), listener, stop.clone()));
        Ok(Self { desk, socket: spec.socket, stop, serving })
    }

    /// On everything that tests make: `key=value`.
    pub(crate) fn label(&self) -> String {
        self.desk.words.label()
    }

    /// What a test's programs have to be told.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let gateway = self.desk.home.gateway.to_string();
        let socket = SOCKET_IN_BOX.to_owned();
        [
            ("DOCKER_HOST", format!("unix://{SOCKET_IN_BOX}")),
            ("TESTCONTAINERS_HOST_OVERRIDE", gateway),
            ("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", socket),
            // What it would clean up, the rebase does.
            ("TESTCONTAINERS_RYUK_DISABLED", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Removes what was made so far; the API stays. For a rebase between the tests of one process.
    #[allow(dead_code, reason = "for rebases that tests ask for themselves")]
    pub(crate) async fn clear(&self) -> Result<(), String> {
        self.desk.clear().await.map_err(|error| error.to_string())
    }

    /// Ends the API and removes what was made. Free where nothing was; may be called again after an error.
    pub(crate) async fn close(&self) -> Result<(), String> {
        self.stop.cancel();
        self.desk.close().await.map_err(|error| error.to_string())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.cancel();
        self.serving.abort();
        mounts::unlink(&self.socket);
    }
}

/// Where the agent is in a network.
pub(crate) async fn home(daemon: &Path, network: &str) -> Result<Home, String> {
    let daemon = Daemon::new(daemon.to_owned());
    let found = daemon.must(Method::GET, &format!("/networks/{network}"), None).await;
    let found = found.map_err(|error| format!("network {network}: {error}"))?;
    home_of(&found).ok_or_else(|| format!("network {network} has no gateway"))
}

/// Gateway and subnet of an inspected network.
fn home_of(network: &Value) -> Option<Home> {
    let config = network["IPAM"]["Config"].as_array()?.first()?;
    let (first, length) = config["Subnet"].as_str()?.split_once('/')?;
    let gateway: IpAddr = config["Gateway"].as_str()?.split('/').next()?.parse().ok()?;
    Some(Home { gateway, subnet: (first.parse().ok()?, length.parse().ok()?) })
}
