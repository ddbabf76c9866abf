//! Looking into a kept stack: what it changed, a command beside it, its ports.
//!
//! ```text
//!   changes ──> the kept trees are compared with the baseline's
//!   shell   ──> a stand on the kept state, beside the lanes ──> a box on its network, or a service's container ──> the command
//!   port    ──> one connection to a service of such a stand
//! ```
//!
//! Knows stands and boxes; must not know how whoever looks is connected. Invariants: what is looked into is a clone, so the kept
//! state stays as it was; what a look started goes when it ends, or with the sweep of all lanes; so many at a time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use andon_proto::look_in::Body as Heard;
use andon_proto::look_open::What;
use andon_proto::look_out::Body as Said;
use andon_proto::{LookBegun, LookChanges, LookEnded, LookOpen, LookPort, LookShell, TerminalSize};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use super::kept::{Asked, Kept};
use super::stand::{Ground, Stand, network_of};
use super::unit_box::{BoxPlan, UnitBox};
use super::workshop::{Place, Workshop};
use crate::engine::{AttachSpec, Attached, OutputStream, SharedEngine};
use crate::hands::{LookLine, WorkFailure, blocking, chain};
use crate::stack::sweep;

/// Stacks that are looked into at a time.
const LOOKS_MAX: usize = 2;
/// Connections to their services at a time.
const PORTS_MAX: usize = 64;
/// How long what is asked for may still be at work.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most paths of one tree that are told.
const FILES_MAX: u32 = 10_000;
/// Of one message, in bytes.
const PIECE_BYTES: usize = 32 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What runs where nobody names a command.
const SHELL: [&str; 3] = ["sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"];

/// Those that look.
#[derive(Debug)]
pub(crate) struct Looks {
    turns: Semaphore,
    ports: Semaphore,
    serial: AtomicU64,
    /// Where each service of a stack that is looked into is reached.
    open: Mutex<HashMap<String, HashMap<String, SocketAddr>>>,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(LOOKS_MAX),
            ports: Semaphore::new(PORTS_MAX),
            serial: AtomicU64::new(1),
            open: Mutex::default(),
        }
    }
}

/// Why nothing is shown.
#[derive(Debug)]
enum Refusal {
    Gone,
    Because(String),
}

impl From<WorkFailure> for Refusal {
    fn from(failure: WorkFailure) -> Self {
        Self::Because(failure.reason)
    }
}

impl Refusal {
    fn by(error: &dyn std::error::Error) -> Self {
        Self::Because(chain(error))
    }
}

/// Forgets an open look when it is over.
struct Opened<'a>(&'a Looks, String);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.open().remove(&self.1);
    }
}

impl Looks {
    fn open(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, SocketAddr>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one that looks, until they are gone or have seen it.
    pub(crate) async fn serve(&self, workshop: &Workshop, open: LookOpen, line: LookLine) -> LookEnded {
        let LookOpen { run, attempt, what, .. } = open;
        let served = match what {
            Some(What::Port(port)) => self.port(&port, line).await.map(|()| 0),
            Some(What::Changes(wanted)) => match kept_of(workshop, run, attempt).await {
                Ok(kept) => changes(kept, wanted, &line.say).await.map(|()| 0),
                Err(refusal) => Err(refusal),
            },
            Some(What::Shell(shell)) => self.shell(workshop, (run, attempt), shell, line).await,
            None => Err(Refusal::Because("this worker does not know what is to be looked at".to_owned())),
        };
        match served {
            Ok(exit_code) => LookEnded { exit_code, ..LookEnded::default() },
            Err(Refusal::Gone) => LookEnded { gone: true, ..LookEnded::default() },
            Err(Refusal::Because(refused)) => LookEnded { refused, ..LookEnded::default() },
        }
    }

    async fn shell(
        &self,
        workshop: &Workshop,
        (run, attempt): (u64, u64),
        shell: LookShell,
        mut line: LookLine,
    ) -> Result<i64, Refusal> {
        let _turn = self.turns.try_acquire().map_err(|_| {
            Refusal::Because(format!("{LOOKS_MAX} stacks are looked into on this worker already"))
        })?;
        let kept = kept_of(workshop, run, attempt).await?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("look{serial}");
        let _ = line.say.send(Said::Notice("starting the stack on what the test left".to_owned())).await;
        let place = place_of(&kept, &name).await?;
        let engine = workshop.options.engine.clone();
        let showing = self.show(workshop, &kept, attempt, place, shell, &mut line);
        // Who goes while it starts is not served to the end.
        let shown = Box::pin(showing).await;
        if let Err(error) = sweep(engine.as_ref(), Some(&name)).await {
            tracing::warn!(error = %chain(&error), name, "removing what was looked into");
        }
        // It may be the last to have it.
        blocking(move || drop(kept)).await?;
        shown
    }

    /// With a stand of its own; what it leaves in the engine is swept.
    async fn show(
        &self,
        workshop: &Workshop,
        kept: &Kept,
        attempt: u64,
        place: Place,
        shell: LookShell,
        line: &mut LookLine,
    ) -> Result<i64, Refusal> {
        let Place { ground, mut box_plan } = place;
        let Some(ground) = ground else { return Err(Refusal::Gone) };
        let plan = Arc::clone(&ground.plan);
        let names: Vec<String> = plan.services.iter().map(|service| service.name.clone()).collect();
        let wanted = names.iter().position(|name| *name == shell.service);
        if wanted.is_none() && !shell.service.is_empty() {
            let (wanted, known) = (&shell.service, names.join(", "));
            return Err(Refusal::Because(format!("the stack has no service `{wanted}`; it has: {known}")));
        }
        let (stand, _) = tokio::select! {
            raised = Box::pin(Stand::raise(ground)) => raised.map_err(|error| Refusal::by(&error))?,
            () = until_gone(&mut line.hear) => return Ok(0),
        };
        let mut addresses = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            let address = stand.address_of(at).await.map_err(|error| Refusal::by(&error))?;
            addresses.extend(address.map(|address| (name.clone(), SocketAddr::new(address, 0))));
        }
        let look = hex::encode(rand::random::<[u8; 16]>());
        self.open().insert(look.clone(), addresses);
        let opened = Opened(self, look);
        let mut unit_box = None;
        let container = match wanted {
            Some(at) => stand.containers().get(at).cloned().unwrap_or_default(),
            None => {
                box_plan.env.extend([
                    ("ANDON_RUN_ID".to_owned(), kept.run().to_string()),
                    ("ANDON_ATTEMPT".to_owned(), attempt.to_string()),
                ]);
                let made = Box::pin(UnitBox::make(box_plan, workshop.next_serial(), false, None)).await?;
                let container = made.cell(std::collections::BTreeMap::new()).container;
                unit_box = Some(made);
                container
            }
        };
        let begun = LookBegun {
            look: opened.1.clone(),
            services: names,
            tests_after: u32::try_from(kept.tests_after(attempt)).unwrap_or(u32::MAX),
            kept_for_ms: u64::try_from(kept.left().as_millis()).unwrap_or(u64::MAX),
        };
        let _ = line.say.send(Said::Begun(begun)).await;
        let ended = converse(&workshop.options.engine, &container, shell, line).await;
        drop(opened);
        if let Some(unit_box) = unit_box
            && let Err(failure) = unit_box.remove().await
        {
            tracing::warn!(reason = failure.reason, "removing the box of a look");
        }
        if let Err(error) = stand.lower().await {
            tracing::warn!(error = %chain(&error), "taking down what was looked into");
        }
        ended
    }

    async fn port(&self, port: &LookPort, line: LookLine) -> Result<(), Refusal> {
        let _turn = self.ports.try_acquire().map_err(|_| {
            Refusal::Because(format!("{PORTS_MAX} connections are open to stacks of this worker already"))
        })?;
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| Refusal::Because(format!("{} is no port", port.port)))?;
        let address = {
            let open = self.open();
            let services = open.get(&port.look).ok_or(Refusal::Gone)?;
            let mut all = services.iter();
            let found = match (services.get(&port.service), all.next(), all.next()) {
                (Some(address), ..) => Some(address),
                (None, Some((_, only)), None) if port.service.is_empty() => Some(only),
                _ => None,
            };
            let known = || services.keys().cloned().collect::<Vec<_>>().join(", ");
            *found.ok_or_else(|| Refusal::Because(format!("which service? there are: {}", known())))?
        };
        let address = SocketAddr::new(address.ip(), number);
        let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Refusal::Because(format!("port {number}: {error}"))),
            Err(_) => return Err(Refusal::Because(format!("port {number} does not answer"))),
        };
        let _ = line.say.send(Said::Begun(LookBegun::default())).await;
        relay(stream, line).await;
        Ok(())
    }
}

async fn kept_of(workshop: &Workshop, run: u64, attempt: u64) -> Result<Arc<Kept>, Refusal> {
    match workshop.kept.find(run, attempt, PATIENCE).await {
        Asked::Found(kept) => Ok(kept),
        Asked::Running => Err(Refusal::Because(
            "the tests that share its stack still run: it is kept when they are over".to_owned(),
        )),
        Asked::Gone => Err(Refusal::Gone),
    }
}

/// As its unit's, on what is kept, under a name that no lane has.
async fn place_of(kept: &Arc<Kept>, name: &str) -> Result<Place, Refusal> {
    let making = Arc::clone(kept);
    let whole = blocking(move || making.whole()).await?.map_err(|error| Refusal::by(&error))?;
    let Place { ground, box_plan } = kept.place().clone();
    let baseline = whole.ok_or(Refusal::Gone)?;
    let ground = ground.map(|ground| Ground {
        baseline,
        lane: name.to_owned(),
        slot: 0,
        fronted: false,
        deep_every: 0,
        doubted: false,
        // It is no pristine stand, and nobody says that it is.
        proofs: super::stand::Proofs::default(),
        teller: None,
        ..ground
    });
    let mut env = box_plan.env;
    for (key, value) in &mut env {
        if key == "ANDON_LANE" {
            name.clone_into(value);
        }
    }
    let box_plan = BoxPlan { network: Some(network_of(name)), lane: name.to_owned(), env, ..box_plan };
    Ok(Place { ground, box_plan })
}

async fn changes(kept: Arc<Kept>, wanted: LookChanges, say: &mpsc::Sender<Said>) -> Result<(), Refusal> {
    let most = wanted.files_max.clamp(1, FILES_MAX) as usize;
    let compared = blocking(move || kept.changes(most)).await?.map_err(|error| Refusal::by(&error))?;
    let text = serde_json::to_vec(&compared).expect("plain data is JSON");
    for piece in text.chunks(PIECE_BYTES) {
        if say.send(Said::Changes(piece.to_vec())).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// What comes before it can be used is nothing.
async fn until_gone(hear: &mut mpsc::Receiver<Heard>) {
    while hear.recv().await.is_some() {}
}

/// Runs the command until it ends or whoever looks is gone; answers with its exit code.
async fn converse(
    engine: &SharedEngine,
    container: &str,
    shell: LookShell,
    line: &mut LookLine,
) -> Result<i64, Refusal> {
    let argv = if shell.command.is_empty() { SHELL.map(str::to_owned).to_vec() } else { shell.command };
    let spec = AttachSpec { argv, env: Vec::new(), terminal: shell.terminal.as_ref().map(size_of) };
    let attached = engine.attach(container, &spec).await.map_err(|error| Refusal::by(&error))?;
    let Attached { exec, mut input, mut output } = attached;
    let writing = async {
        while let Some(heard) = line.hear.recv().await {
            match heard {
                // A command may end without reading all of its input.
                Heard::Input(bytes) => drop(input.write_all(&bytes).await),
                Heard::InputEnded(_) => drop(input.shutdown().await),
                Heard::Size(size) => {
                    let (rows, columns) = size_of(&size);
                    let _ = engine.resize_attached(&exec, rows, columns).await;
                }
                Heard::Open(_) => {}
            }
        }
    };
    let reading = async {
        while let Some(piece) = output.next().await {
            let (stream, bytes) = piece.map_err(|error| Refusal::by(&error))?;
            let said = match stream {
                OutputStream::Stdout => Said::Output(bytes.to_vec()),
                OutputStream::Stderr => Said::Errors(bytes.to_vec()),
            };
            if line.say.send(said).await.is_err() {
                break;
            }
        }
        Ok::<_, Refusal>(())
    };
    tokio::select! {
        read = reading => read?,
        // They are gone; what still runs goes with its container.
        () = writing => return Ok(0),
    }
    engine.attached_exit(&exec).await.map_err(|error| Refusal::by(&error))
}

fn size_of(size: &TerminalSize) -> (u16, u16) {
    let cut = |value: u32| u16::try_from(value.clamp(1, 4_096)).unwrap_or(u16::MAX);
    (cut(size.rows), cut(size.columns))
}

/// Until one side is gone.
async fn relay(stream: TcpStream, line: LookLine) {
    let LookLine { mut hear, say } = line;
    let (mut from, mut to) = stream.into_split();
    let writing = async {
        while let Some(heard) = hear.recv().await {
            let written = match heard {
                Heard::Input(bytes) => to.write_all(&bytes).await,
                Heard::InputEnded(_) => to.shutdown().await,
                Heard::Open(_) | Heard::Size(_) => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
    };
    let reading = async {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(got) = from.read(&mut piece).await {
            let Some(bytes) = piece.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
            if say.send(Said::Output(bytes.to_vec())).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}
