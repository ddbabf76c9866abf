//! The services of a stand as they run at one moment, and the way back to that moment without ending them: the driver `rewind`.
//!
//! ```text
//!   healthy ──settle──> still ──arm──> armed ──unit──> used ──rewind──> armed ──> …
//!                                │ refused: by what                │ other processes, not exact, failed: all are killed, and the
//!                                │                                 └──> stand is restarted and armed again; too often: given up
//!                                └──> may pass: armed after the next restart; else standby, restart
//! ```
//!
//! Knows processes and folders of its stand; must not know units, and how a process is rewound (`andon-rewind` does). Invariants: a
//! stand is armed only while it is pristine; after a rewind that did not go well none of its processes runs; whatever a service can
//! write to is a tree of its own here, or rewinding is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use andon_rewind::{Baseline, Broken, Check, How, Names, Pid, Refused, Rewound, Target, Tree, Unlike};
use andon_snapshot::{ChangeKind, Changes, FileChange, Footprint, PoolKind, TreeChanges};
use thiserror::Error;
use tokio::sync::oneshot;

use super::exact::note_exact;
use super::{CHANGED_FILES_MAX, Doomed, Rebased, Stand, StandFault};
use crate::baseline::SOURCE_TREE;
use crate::engine::EngineError;
use crate::hands::{Driver, WorkFailure, blocking, chain};
use crate::host::mounts;

/// A stand is still when its services wrote nothing and hardly ran for so long: longer than the second after which servers
/// do what they put off.
const STILL: Duration = Duration::from_millis(1100);
/// When a stand has just been put up it is waited for at least so long: MySQL writes what its start left dirty up to 2.6 s after it was last busy, and as
/// part of the moment that would be written again after each rewind. Where a rewind did not go well somebody waits, and it costs only time.
const AT_FIRST: Duration = Duration::from_millis(2700);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So long it is waited for. A busy one is armed all the same: what it is at, it does again after each rewind.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// Moments that are tried before rewinding is given up.
const MOMENTS_MAX: u32 = 5;
/// Of the processors' time, while it is still: in clock ticks of 10 ms.
const STILL_TICKS_MAX: u64 = 3;
/// File systems in memory, of which a container has some of its own.
const IN_MEMORY: [&str; 2] = ["tmpfs", "mqueue"];

/// What a worker knows of rewinding.
#[derive(Debug, Default)]
pub(crate) struct Rewinding {
    available: OnceLock<Result<(), String>>,
    /// A rewind was not exact: none is made by this worker any more.
    inexact: AtomicBool,
}

impl Rewinding {
    /// Tries it out, once. Blocking, some milliseconds.
    pub(crate) fn available(&self) -> Result<(), String> {
        let tried = || match andon_rewind::available() {
            Ok(facts) => {
                tracing::info!(kernel = facts.kernel, smallest = ?facts.rewind, "rebase driver `rewind` works here");
                Ok(())
            }
            Err(unavailable) => Err(chain(&unavailable)),
        };
        self.available.get_or_init(tried).clone()
    }
}

/// Why a stand is not armed.
#[derive(Debug, Error)]
pub(crate) enum Unarmed {
    #[error("{0}")]
    Unavailable(String),
    #[error("a rewind on this worker was not exact")]
    NotTrusted,
    #[error("too many rewinds did not go well")]
    GivenUp,
    #[error("in a pool of the kind {0} files have no second names: in `reflink` and `copy` they have")]
    Pool(PoolKind),
    #[error("what came in to the services' networks cannot be told: one has a network of its own")]
    Network,
    #[error("processes of its services come and go: none of {MOMENTS_MAX} moments had only such that stay")]
    Restless,
    #[error("the first process of service `{0}` has no process namespace of its own")]
    NotApart(String),
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Worker(#[from] WorkFailure),
}

impl Unarmed {
    /// Whether it may be otherwise after another start of the services.
    fn passes(&self) -> bool {
        match self {
            Self::Restless | Self::Engine(_) | Self::Worker(_) => true,
            Self::Refused(refused) => refused.passes() || self.killed(),
            _ => false,
        }
    }

    /// Whether the services had to be killed.
    fn killed(&self) -> bool {
        matches!(self, Self::Refused(Refused::Killed(_)))
    }
}

/// A rewind that did not go well.
#[derive(Debug, Error)]
enum Astray {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Stand(#[from] StandFault),
}

/// A moment of a stand's services.
#[derive(Debug)]
pub(super) struct Live {
    baseline: Baseline,
    /// Trees as a rewind numbers them, and as the pool names them.
    trees: Vec<String>,
    #[allow(dead_code, reason = "what is kept goes with it")]
    kept: Kept,
}

/// Folders with a moment's bytes, which go with it.
#[derive(Debug, Default)]
struct Kept(Vec<PathBuf>);

impl Kept {
    /// An empty folder. What an earlier moment left there goes.
    fn make(&mut self, folder: PathBuf) -> Result<PathBuf, Unarmed> {
        let path = folder.clone();
        let failed = |source| Unarmed::File { what: "make the folder", path, source };
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        self.0.push(folder.clone());
        Ok(folder)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for folder in &self.0 {
            // What cannot be removed goes with the lane's clone.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A service that runs.
struct Running {
    name: String,
    layer: String,
    upper: PathBuf,
    root: Pid,
}

/// A folder to put back, and where its bytes may be kept.
struct Place {
    name: String,
    live: PathBuf,
    kept: PathBuf,
    names: Names,
}

impl Stand {
    /// As [`Stand::arm`] for a stand that was just put up, which is warmed before.
    pub(crate) async fn arm_at_first(&mut self) -> Result<bool, StandFault> {
        if !self.warm().await {
            self.restart(Driver::Restart, &Doomed::nobody(), false).await?;
        }
        self.arm(AT_FIRST).await
    }

    /// Has its services' present state to go back to, not before `patience` is over. They have to be pristine, and healthy, and are so afterwards. Answers
    /// whether the stand is to be rewound from now on: where what is in the way may pass, it is restarted once, and tried again.
    pub(crate) async fn arm(&mut self, patience: Duration) -> Result<bool, StandFault> {
        let unarmed = match self.take_moment(patience).await {
            Ok(()) => {
                self.rewinds.note_moment(true);
                return Ok(true);
            }
            Err(unarmed) => unarmed,
        };
        self.rewinds.note_moment(false);
        let again = unarmed.passes() && !self.rewinds.is_hopeless();
        tracing::warn!(lane = self.ground.lane, again, error = %chain(&unarmed), "a stand cannot be rewound");
        if unarmed.killed() {
            self.restart(Driver::Restart, &Doomed::nobody(), false).await?;
        }
        Ok(again)
    }

    async fn take_moment(&mut self, patience: Duration) -> Result<(), Unarmed> {
        self.disarm().await;
        let rewinding = self.ground.rewinding.clone();
        blocking(move || rewinding.available()).await?.map_err(Unarmed::Unavailable)?;
        if self.ground.rewinding.inexact.load(Ordering::Relaxed) {
            return Err(Unarmed::NotTrusted);
        }
        if self.rewinds.is_hopeless() {
            return Err(Unarmed::GivenUp);
        }
        let kind = self.ground.pool.kind();
        if !matches!(kind, PoolKind::Reflink | PoolKind::Copy) {
            return Err(Unarmed::Pool(kind));
        }
        let live = self.moment(patience).await?;
        let taken = live.baseline.taken();
        tracing::info!(
            lane = self.ground.lane, took = ?taken.took, processes = taken.processes, threads = taken.threads,
            kept_bytes = taken.kept, "a stand is armed for rewinding"
        );
        self.live = Some(live);
        self.pristine = self.rig.frames_in().map(|frames| (Instant::now(), frames));
        Ok(())
    }

    /// Takes a moment that can be gone back to: what has just begun may be about to end, as sessions of a health check do, and a process that has ended
    /// cannot be made again.
    async fn moment(&self, patience: Duration) -> Result<Live, Unarmed> {
        let began = Instant::now();
        for attempt in 1.. {
            let running = self.running().await?;
            let places = self.places(&running)?;
            let roots: Vec<Pid> = running.iter().map(|service| service.root).collect();
            settle(&roots, patience.saturating_sub(began.elapsed())).await;
            match blocking(move || Live::take(roots, places)).await? {
                Ok(live) if live.baseline.taken().youngest >= STILL => return Ok(live),
                Ok(live) => blocking(move || drop(live)).await?,
                Err(Unarmed::Refused(refused)) if refused.passes() && attempt < MOMENTS_MAX => {}
                Err(unarmed) => return Err(unarmed),
            }
            if attempt >= MOMENTS_MAX {
                break;
            }
        }
        Err(Unarmed::Restless)
    }

    /// Forgets the moment it was armed at.
    pub(super) async fn disarm(&mut self) {
        if let Some(live) = self.live.take() {
            let _ = blocking(move || drop(live)).await;
        }
    }

    async fn running(&self) -> Result<Vec<Running>, Unarmed> {
        let own = fs::read_link("/proc/self/ns/pid").ok();
        let services = self.ground.plan.services.iter().zip(&self.rig.containers).zip(&self.layers);
        let mut running = Vec::new();
        for ((service, container), upper) in services {
            let state = self.ground.engine.inspect_container(container).await?;
            if service.completes && !state.is_running() {
                continue;
            }
            let root = Pid::try_from(state.pid).unwrap_or_default();
            let namespace = fs::read_link(format!("/proc/{root}/ns/pid")).ok();
            // Whatever else goes wrong: never is a process taken that is not a container's.
            if namespace.is_none() || namespace == own {
                return Err(Unarmed::NotApart(service.name.clone()));
            }
            let (name, layer) = (service.name.clone(), service.layer.clone());
            running.push(Running { name, layer, upper: upper.clone(), root });
        }
        if self.rig.frames_in().is_none() {
            return Err(Unarmed::Network);
        }
        Ok(running)
    }

    /// All that services can write to.
    fn places(&self, running: &[Running]) -> Result<Vec<Place>, Unarmed> {
        let aside = self.clone.dir().join("rewind");
        let mut places = Vec::new();
        let trees = self.ground.baseline.trees().iter().map(|tree| &tree.name);
        let volumes = trees.filter_map(|tree| Some((tree.clone(), self.clone.path(tree).ok()?)));
        for (number, (name, live)) in volumes.enumerate() {
            let kept = aside.join(format!("volume{number}"));
            places.push(Place { name, live, kept, names: Names::Pinned });
        }
        if let Some(written) = &self.written
            && let Ok(live) = written.path(SOURCE_TREE)
        {
            let kept = written.dir().join("rewind");
            places.push(Place { name: SOURCE_TREE.to_owned(), live, kept, names: Names::Pinned });
        }
        for (place, service) in running.iter().enumerate() {
            let inside = PathBuf::from(format!("/proc/{}/root", service.root));
            let mounts = Mounts::read(service.root)?;
            let names = Names::Fixed { through: inside.clone(), beneath: mounts.beneath };
            let (name, live) = (service.layer.clone(), service.upper.clone());
            places.push(Place { name, live, kept: aside.join(format!("layer{place}")), names });
            for (number, mount) in mounts.in_memory.into_iter().enumerate() {
                let live = inside.join(mount.trim_start_matches('/'));
                places.push(Place {
                    name: format!("{} in memory at {mount}", service.name),
                    names: Names::Fixed { through: live.clone(), beneath: Vec::new() },
                    live,
                    kept: aside.join(format!("memory{place}-{number}")),
                });
            }
        }
        Ok(places)
    }

    /// Goes back to the moment it was armed at, once `doomed` is dead. `None` where there is no way back: what is left of its
    /// processes is to be killed.
    pub(super) async fn rewind(&mut self, doomed: &Doomed, deep: bool) -> Option<Rebased> {
        let live = Arc::new(Mutex::new(self.live.take()?));
        match self.go_back(&live, doomed, deep).await {
            Ok(rebased) => {
                self.rewinds.note(true);
                self.live = Arc::into_inner(live).and_then(|live| live.into_inner().ok());
                Some(rebased)
            }
            Err(astray) => {
                // Its folders are to be gone before it is armed again.
                let _ = blocking(move || drop(live)).await;
                self.rewinds.note(false);
                tracing::warn!(lane = self.ground.lane, error = %chain(&astray), "a rewind did not go well: the stand is restarted");
                if let Astray::Broken(Broken::Inexact(differences)) = &astray {
                    self.ground.rewinding.inexact.store(true, Ordering::Relaxed);
                    let part = |difference: &andon_rewind::Difference| andon_proto::InexactPart {
                        r#where: "rewind".to_owned(),
                        what: String::new(),
                        difference: difference.to_string(),
                    };
                    self.tell(
                        "rewind",
                        deep,
                        differences.iter().take(CHANGED_FILES_MAX).map(part).collect(),
                        0,
                    );
                }
                None
            }
        }
    }

    async fn go_back(
        &mut self,
        live: &Arc<Mutex<Live>>,
        doomed: &Doomed,
        deep: bool,
    ) -> Result<Rebased, Astray> {
        let engine = self.ground.engine.clone();
        doomed.kill(engine.as_ref()).await.map_err(StandFault::from)?;
        let gone = Instant::now();
        let check = if deep { Check::Bytes } else { Check::Identity };
        let rewinding = Arc::clone(live);
        let rewinding = blocking(move || {
            let mut live = rewinding.lock().unwrap_or_else(PoisonError::into_inner);
            let rewound = live.baseline.rewind(check, Unlike::Kill)?;
            let changes = live.changes(&rewound);
            Ok::<_, Broken>((rewound, changes))
        });
        let (rewound, networks) = tokio::join!(rewinding, self.rig.put_live_networks_back(engine.as_ref()));
        let (rewound, changes) = rewound.map_err(StandFault::from)??;
        networks.map_err(StandFault::from)?;
        let took = gone.elapsed();
        tracing::debug!(lane = self.ground.lane, ?took, steps = ?rewound.steps, written = ?rewound.written, "rewound");
        if deep {
            note_exact(&self.ground.lane);
        }
        let (sender, footprint) = oneshot::channel();
        // Nobody waits for it any more: its lease is over.
        let _ = sender.send(changes);
        self.pristine = self.rig.frames_in().map(|frames| (Instant::now(), frames));
        Ok(Rebased { took, footprint, driver: Driver::Rewind })
    }
}

impl Live {
    /// Blocking.
    fn take(roots: Vec<Pid>, places: Vec<Place>) -> Result<Self, Unarmed> {
        let mut kept = Kept::default();
        let (mut names, mut trees) = (Vec::new(), Vec::new());
        for place in places {
            names.push(place.name);
            trees.push(Tree { live: place.live, kept: kept.make(place.kept)?, names: place.names });
        }
        let mut trees = Some(trees);
        let target = |root| Target { root, trees: trees.take().unwrap_or_default() };
        let targets: Vec<Target> = roots.into_iter().map(target).collect();
        Ok(Self { baseline: Baseline::take(&targets)?, trees: names, kept })
    }

    /// What a rewind found changed, as other drivers tell it.
    fn changes(&self, rewound: &Rewound) -> Changes {
        let mut by_tree: BTreeMap<usize, Vec<FileChange>> = BTreeMap::new();
        for found in &rewound.files {
            let change = match found.how {
                How::Added => ChangeKind::Added,
                How::Removed => ChangeKind::Removed,
                How::Written => ChangeKind::Content,
            };
            let change = FileChange { path: found.path.clone(), change, bytes: found.bytes };
            by_tree.entry(found.tree).or_default().push(change);
        }
        let mut all = Changes::default();
        for (number, mut files) in by_tree {
            let footprint =
                Footprint { files: files.len() as u64, bytes: files.iter().map(|change| change.bytes).sum() };
            files.sort_by(|one, other| (other.bytes, &one.path).cmp(&(one.bytes, &other.path)));
            let left_out = files.len().saturating_sub(CHANGED_FILES_MAX) as u64;
            files.truncate(CHANGED_FILES_MAX);
            let tree = self.trees.get(number).cloned().unwrap_or_default();
            all.footprint += footprint;
            all.trees.push(TreeChanges { tree, footprint, files, left_out });
        }
        all
    }
}

/// Waits until services have done what they put off when they started, and for `patience` at least.
async fn settle(roots: &[Pid], patience: Duration) {
    let began = Instant::now();
    let (mut since, mut before) = (began, Doing::of_all(roots));
    while began.elapsed() < SETTLE_LIMIT {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Doing::of_all(roots);
        if now.written != before.written || now.ticks.saturating_sub(before.ticks) > STILL_TICKS_MAX {
            (since, before) = (Instant::now(), now);
        } else if since.elapsed() >= STILL && began.elapsed() >= patience {
            return;
        }
    }
}

/// A process with all that descend from it. Who ends meanwhile is left out.
fn tree(root: Pid) -> Vec<Pid> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let listed = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
        let listed: String = listed.flatten().collect();
        all.extend(listed.split_whitespace().filter_map(|child| child.parse::<Pid>().ok()));
        next += 1;
    }
    all
}

/// How much processes have done so far.
#[derive(Debug, Default, Clone, Copy)]
struct Doing {
    ticks: u64,
    written: u64,
}

impl Doing {
    fn of_all(roots: &[Pid]) -> Self {
        let mut all = Self::default();
        for pid in roots.iter().flat_map(|root| tree(*root)) {
            let read = |file: &str| fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(file));
            let one = Self::parse(&read("stat").unwrap_or_default(), &read("io").unwrap_or_default());
            all.ticks += one.ticks;
            all.written += one.written;
        }
        all
    }

    /// proc_pid_stat(5), proc_pid_io(5).
    fn parse(stat: &str, io: &str) -> Self {
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        // utime and stime: the 14th and the 15th of all.
        let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")?.trim().parse().ok());
        Self { ticks, written: written.unwrap_or_default() }
    }
}

/// Where a process can write besides volumes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    /// Its file systems in memory.
    in_memory: Vec<String>,
    /// The layers beneath its own.
    beneath: Vec<PathBuf>,
}

impl Mounts {
    fn read(root: Pid) -> Result<Self, Unarmed> {
        let path = PathBuf::from(format!("/proc/{root}/mountinfo"));
        let failed = |source| Unarmed::File { what: "read the mounts in", path: path.clone(), source };
        let mounts = Self::parse(&fs::read(&path).map_err(failed)?);
        // Without them a name that hides one beneath could not be told from one that does not.
        let told = !mounts.beneath.is_empty() && mounts.beneath.iter().all(|layer| layer.is_dir());
        if told { Ok(mounts) } else { Err(failed(io::Error::other("the layers of its root are not there"))) }
    }

    fn parse(mountinfo: &[u8]) -> Self {
        let mut all = Self::default();
        for mount in mounts::parse(mountinfo) {
            if mount.point == Path::new("/") && mount.kind == "overlay" {
                let layers = mount.about.split(',').find_map(|option| option.strip_prefix("lowerdir="));
                all.beneath = layers.unwrap_or_default().split(':').map(PathBuf::from).collect();
            }
            // A file that is mounted over one of another file system cannot be written to, and has no names in it.
            let is_own = mount.root == Path::new("/") && IN_MEMORY.contains(&mount.kind.as_str());
            if is_own && !mount.is_read_only() {
                all.in_memory.push(mount.point.to_string_lossy().into_owned());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use andon_rewind::{Obstacle, Unfreezable};

    use super::*;

    #[test]
    fn what_a_process_did_is_read_whatever_its_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 9";
        let doing = Doing::parse(stat, "rchar: 1\nwchar: 20\nsyscr: 3\n");
        assert_eq!((doing.ticks, doing.written), (110, 20));
    }

    #[test]
    fn what_is_in_the_way_of_a_moment_may_pass_or_never_will() {
        let ended = Unarmed::Refused(Refused::Unfreezable(Unfreezable::Ended(7)));
        assert!(ended.passes() && !ended.killed());
        assert!(Unarmed::Restless.passes());
        assert!(!Unarmed::GivenUp.passes() && !Unarmed::Network.passes());
        let obstacle = Refused::Obstacles(vec![Obstacle::Aio { pid: 7 }]);
        assert!(!Unarmed::Refused(obstacle).passes());
        let killed = Unarmed::Refused(Refused::Killed(io::ErrorKind::Other.into()));
        assert!(killed.killed() && killed.passes());
    }

    #[test]
    fn what_a_service_can_write_to_is_read_from_its_mounts() {
        let mountinfo = "\
            900 899 0:50 / / rw,relatime master:2 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w\n\
            901 900 0:53 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k\n\
            902 901 0:55 / /dev/shm rw,nosuid - tmpfs shm rw\n\
            903 901 0:56 / /dev/mqueue rw,nosuid - mqueue mqueue rw\n\
            904 900 0:57 / /my\\040tmp rw - tmpfs tmpfs rw\n\
            905 900 0:53 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw\n\
            906 900 0:58 / /proc/acpi ro,relatime - tmpfs tmpfs ro\n";
        let mounts = Mounts::parse(mountinfo.as_bytes());
        assert_eq!(mounts.in_memory, ["/dev", "/dev/shm", "/dev/mqueue", "/my tmp"]);
        assert_eq!(mounts.beneath, [PathBuf::from("/l/A"), PathBuf::from("/l/B")]);
    }
}
