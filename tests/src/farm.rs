//! A farm of its own for one test: made by `andon up`, gone when dropped.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::{eventually, ok, run, stage};

/// So many farms at a time on a machine: one works while another waits for its servers. The test runner's own limit
/// (`.config/nextest.toml`) is the same, or less; these locks hold for any other that starts the tests.
const FARMS_MAX: usize = 4;

/// For whom the way back to the baseline is not what is tested: the one that costs least, and is least in use elsewhere. Where the kernel
/// cannot, or a stack, the farm takes the next by itself.
pub const QUICKLY_BACK: [&str; 2] = ["--driver", "rewind"];

/// A running farm.
pub struct Farm {
    state: PathBuf,
    _folder: TempDir,
    _turn: File,
}

impl Farm {
    /// Starts coordinator and worker boxes, shares the base image, and waits until they are ready.
    #[must_use]
    pub fn up(workers: u32, lanes: u32, more: &[&str]) -> Self {
        Self::up_with_store(workers, lanes, more, None)
    }

    /// None that is up yet: one that is started there by other means is taken down with this value.
    #[must_use]
    pub fn none_yet(state: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { state: state.to_owned(), _folder: folder, _turn: turn() }
    }

    /// The same with its runs in a PostgreSQL database.
    #[must_use]
    pub fn up_with_store(workers: u32, lanes: u32, more: &[&str], store: Option<&str>) -> Self {
        let turn = turn();
        let folder = tempfile::tempdir().expect("a folder for the state");
        let farm = Self { state: folder.path().join("state"), _folder: folder, _turn: turn };
        if store.is_none() {
            farm.begin_with_images();
        }
        let image = stage("ANDON_TEST_WORKER_IMAGE");
        let (workers, lanes) = (workers.to_string(), lanes.to_string());
        let mut up = farm.andon();
        up.envs(store.map(|url| ("ANDON_STORE", url)));
        // In tests rebases are doubted more often.
        up.env("ANDON_DEEP_CHECK_EVERY", "5");
        up.args([
            "up",
            "--workers",
            &workers,
            "--lanes",
            &lanes,
            "--image",
            &image,
            "--listen",
            "127.0.0.1:0",
        ]);
        ok(up.args(more));
        farm.add_images(&[stage("ANDON_TEST_BASE_IMAGE")]);
        farm
    }

    /// Gives it also what the fixtures on a database need: the sample's server, and the image of most suites.
    #[must_use]
    pub fn with_database(self) -> Self {
        self.add_images(&["ANDON_TEST_DB_IMAGE", "ANDON_TEST_SUITE_IMAGE"].map(stage));
        self
    }

    /// Its coordinator is one that has the tests' images: nothing is saved and packed for each farm again. Bytes in a blob store never
    /// change, so farms share them by links where the file system has any.
    fn begin_with_images(&self) {
        let (from, to) =
            (Path::new(&stage("ANDON_TEST_FARM")).join("coordinator"), self.state.join("coordinator"));
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(&to).expect("a state folder can be made");
        // That one is down: its write-ahead log, if it left one, is whole.
        for name in ["farm.db", "farm.db-wal"].into_iter().filter(|name| from.join(name).exists()) {
            std::fs::copy(from.join(name), to.join(name)).expect("the database can be copied");
        }
        let blobs = [from.join("blobs"), to];
        if !run(Command::new("cp").args(["--archive", "--link"]).args(&blobs)).status.success() {
            ok(Command::new("cp").arg("--archive").args(&blobs));
        }
    }

    /// Gives images of this machine's engine to the workers.
    pub fn add_images(&self, images: &[String]) {
        ok(self.andon().args(["image", "add"]).args(images));
    }

    /// The `andon` command, pointed at this farm.
    #[must_use]
    pub fn andon(&self) -> Command {
        let mut command = Command::new(stage("ANDON_TEST_BIN"));
        command.env("ANDON_STATE", &self.state).env_remove("ANDON_COORDINATOR").env_remove("ANDON_TOKEN");
        command.env_remove("ANDON_STORE");
        command
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where the coordinator listens on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        let address = std::fs::read_to_string(self.state.join("coordinator/address")).expect("it listens");
        let address: std::net::SocketAddr = address.trim().parse().expect("an address");
        address.port()
    }

    /// A JSON answer of the command.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = ok(self.andon().args(arguments).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{arguments:?} wrote no JSON: {error}\n{text}"))
    }

    /// A run without its tests: what is asked again and again, which costs little.
    #[must_use]
    pub fn glance(&self, run: u64) -> Value {
        let mut list = self.json(&["list"]);
        let rows = list.as_array_mut().expect("a list of runs");
        rows.iter_mut().find(|row| row["run"] == run).expect("the run is listed").take()
    }

    /// How many tests of the run have a verdict.
    #[must_use]
    pub fn decided(&self, run: u64) -> u64 {
        let counts = &self.glance(run)["counts"];
        counts["total"].as_u64().expect("total") - counts["open"].as_u64().expect("open")
    }

    /// A run with its tests.
    #[must_use]
    pub fn show(&self, run: u64) -> Value {
        self.json(&["show", &run.to_string()])
    }

    /// Waits until the run is over.
    #[must_use]
    pub fn ended(&self, run: u64) -> Value {
        eventually(&format!("run {run} ends"), || (self.glance(run)["over"] == true).then_some(()));
        self.show(run)
    }

    /// Waits until so many tests of the run have a verdict.
    pub fn progressed(&self, run: u64, verdicts: u64) {
        eventually(&format!("run {run} has {verdicts} verdicts"), || {
            (self.decided(run) >= verdicts).then_some(())
        });
    }

    /// Runs `andon run` on a working copy to its end.
    #[must_use]
    pub fn run(&self, copy: &Path, more: &[&str]) -> Output {
        run(self.andon().current_dir(copy).arg("run").args(more))
    }

    /// The number of the newest run.
    #[must_use]
    pub fn newest(&self) -> u64 {
        let list = self.json(&["list"]);
        let runs = list.as_array().expect("a list of runs");
        runs.first().expect("there is a run")["run"].as_u64().expect("a run has a number")
    }

    /// The names of this farm's worker boxes on the engine.
    #[must_use]
    pub fn boxes(&self) -> Vec<String> {
        let file = std::fs::read_to_string(self.state.join("farm.json")).expect("the farm's file");
        let file: Value = serde_json::from_str(&file).expect("the farm's file is JSON");
        let label = format!("label=dev.andon.farm={}", file["farm"].as_str().expect("the farm has a name"));
        let listed = ok(Command::new("docker").args(["ps", "--format", "{{.Names}}", "--filter", &label]));
        let mut names: Vec<_> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// What the gateway has said.
    #[must_use]
    pub fn gateway_log(&self) -> String {
        std::fs::read_to_string(self.state.join("logs/gateway.log")).unwrap_or_default()
    }

    /// Kills the coordinator as a crash would, and starts it again.
    pub fn crash_coordinator(&self) {
        let path = self.state.join("pids/coordinator.json");
        let process: Value =
            serde_json::from_str(&std::fs::read_to_string(path).expect("a pid file")).expect("JSON");
        ok(Command::new("kill").args(["-9", &process["pid"].to_string()]));
        ok(self.andon().args(["up", "--workers", "0"]));
    }
}

/// One of the places: a free one, else the one that this process waits for.
fn turn() -> File {
    let place = |at: usize| {
        let path = std::env::temp_dir().join(format!("andon-tests.{at}.lock"));
        File::create(path).expect("a lock file can be made")
    };
    let free = (0..FARMS_MAX).map(place).find(|file| file.try_lock().is_ok());
    free.unwrap_or_else(|| {
        let file = place(std::process::id() as usize % FARMS_MAX);
        file.lock().expect("the lock can be waited for");
        file
    })
}

impl Drop for Farm {
    fn drop(&mut self) {
        let down = run(self.andon().args(["down", "--purge"]));
        if !down.status.success() && !std::thread::panicking() {
            panic!("`andon down` failed: {}", String::from_utf8_lossy(&down.stderr));
        }
    }
}
