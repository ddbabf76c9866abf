//! Rewinds a real PostgreSQL again and again, every byte compared now and then, and prints what each step took.
//!
//! ```text
//! rewind_postgres BIN FOLDER ROUNDS
//! ```
//!
//! `BIN` has the server's programs (`initdb`, `postgres`, `pg_amcheck`), `FOLDER` is an empty folder that the user `postgres` can reach, best on a file
//! system with reflinks. The server is a cluster of its own, in namespaces of its own for processes, System V's objects and mounts, as a container's
//! would be. Each test is a new `psql` that connects, works and goes, or stays and is cut off by the rewind. At the end the server is killed
//! (`SIGKILL`), recovers, must be in the same state and clean by `pg_amcheck`, and a session that is killed must be found. Run it as root.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use andon_rewind::{Baseline, Broken, Check, Difference, Names, Pid, Step, Target, Tree, Unlike, available};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Every so many rounds all bytes are compared.
const COMPARED_EVERY: usize = 5;
/// Connections before the baseline: caches are filled.
const WARM: usize = 3;
/// Baselines that are tried to be taken.
const ATTEMPTS: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);

const SEED: &str = "create table item (id serial primary key, name text, amount int); create index on item (amount); \
    insert into item (name, amount) select 'item ' || i, i from generate_series(1, 20000) i; \
    create table owner (id int primary key, item int references item); create role reader; grant select on item to reader; \
    create sequence bill start 1000; select nextval('bill'); vacuum analyze; checkpoint";
const STATE: &str = "select count(*), sum(amount), max(id), md5(string_agg(name, ',' order by id)) from item; \
    select count(*) from owner; select last_value, is_called from bill; select last_value, is_called from item_id_seq; \
    select rolname, rolsuper from pg_roles order by 1; select relname, relkind, relacl from pg_class where oid >= 16384 order by 1; \
    select datname from pg_database order by 1; select name, setting from pg_settings where source <> 'default' order by 1; \
    select count(*) from pg_file_settings; select count(*) from pg_locks where locktype = 'advisory'; \
    select count(*) from pg_prepared_statements; select count(*) from pg_stat_activity where backend_type = 'client backend'; \
    select slot_name from pg_replication_slots";
const TESTS: &[&str] = &[
    "insert into item (name, amount) select 'new', i from generate_series(1, 50) i",
    "update item set amount = amount + 1 where id % 5 = 0",
    "delete from item where id % 3 = 0",
    "create table extra (id int primary key, what text); insert into extra values (1, 'x'); alter table item add column colour text default 'red'",
    "drop table owner; drop table item cascade",
    "create role vandal login superuser; grant all on item to vandal; revoke select on item from reader; drop role reader",
    "alter system set work_mem = '64MB'; select pg_reload_conf()",
    "create temp table mine as select * from item; insert into mine select * from mine; select count(*) from mine",
    "select nextval('bill') from generate_series(1, 100); insert into item (name) values ('by sequence')",
    "create table large as select i, repeat(md5(i::text), 32) what from generate_series(1, 45000) i; update large set i = i + 1 where i % 50 = 0",
    "select pg_terminate_backend(pg_backend_pid())",
    "set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; \
        select count(*), sum(length(name)) from item where amount % 7 = 1; checkpoint",
    "create database another",
    "truncate item cascade; vacuum full owner; reindex table owner",
    "select pg_create_physical_replication_slot('slot'); select pg_switch_wal()",
];
/// What a client has under way when it is cut off.
const UNFINISHED: &[&str] = &[
    "begin; insert into item (name) values ('never committed'); lock table owner; select pg_advisory_lock(7); select pg_sleep(1000)",
    "update item set amount = 0; begin; create table half (i int); insert into half select generate_series(1, 100000); select pg_sleep(1000)",
    "listen news; begin; declare c cursor with hold for select * from item; fetch 5 from c; select count(*) from generate_series(1, 1000000000)",
];

struct Server {
    bin: PathBuf,
    folder: PathBuf,
    unshare: Child,
}

fn done(command: &mut Command) -> Outcome<String> {
    let out = command.output()?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!(
        "{command:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
    .into())
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

/// Asks until it is so.
fn eventually(what: &str, mut is: impl FnMut() -> bool) -> Outcome<()> {
    let begun = Instant::now();
    while !is() {
        if begun.elapsed() > LIMIT {
            return Err(format!("not within {LIMIT:?}: {what}").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

impl Server {
    fn make(bin: &Path, folder: &Path) -> Outcome<Self> {
        for name in ["data", "run"] {
            fs::create_dir(folder.join(name))?;
            done(Command::new("chown").arg("postgres").arg(folder.join(name)))?;
        }
        done(as_postgres(&bin.join("initdb")).args(["-A", "trust", "-D"]).arg(folder.join("data")))?;
        Self::start(bin, folder)
    }

    fn start(bin: &Path, folder: &Path) -> Outcome<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        let within = "mount -t tmpfs shm /dev/shm && exec setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"";
        command.arg(within).arg("sh").arg(bin.join("postgres")).arg("-D").arg(folder.join("data"));
        command.arg("-k").arg(folder.join("run")).args(["-c", "listen_addresses="]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
        let mut unshare = command.spawn()?;
        let mut said = unshare.stderr.take().ok_or("no standard error")?;
        let mut log = File::options().create(true).append(true).open(folder.join("log"))?;
        std::thread::spawn(move || io::copy(&mut said, &mut log));
        let server = Self { bin: bin.into(), folder: folder.into(), unshare };
        eventually("the server answers", || server.ask("select 1").is_ok())?;
        Ok(server)
    }

    fn psql(&self, questions: &str) -> Command {
        let mut command = Command::new("psql");
        command.arg("-h").arg(self.folder.join("run")).args(["-U", "postgres", "-XAtq"]);
        // Each question in a transaction of its own.
        for question in questions.split(';').map(str::trim).filter(|question| !question.is_empty()) {
            command.args(["-c", question]);
        }
        command
    }

    fn ask(&self, questions: &str) -> Outcome<String> {
        done(self.psql(questions).args(["-v", "ON_ERROR_STOP=1"]))
    }

    /// The first process of the server's namespace.
    fn root(&self) -> Outcome<Pid> {
        Ok(children(self.unshare.id().try_into()?).first().copied().ok_or("no server")?)
    }

    /// Waits until no session is left, nor anything that does what is put off.
    fn alone(&self) -> Outcome<()> {
        let root = self.root()?;
        let passing = |pid: &Pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.is_empty() || line.contains("[local]") || line.contains("worker")
        };
        eventually("all sessions have ended", || !children(root).iter().any(passing))
    }

    fn baseline(&self) -> Outcome<Baseline> {
        let root = self.root()?;
        let shm = PathBuf::from(format!("/proc/{root}/root/dev/shm"));
        for attempt in 0.. {
            self.ask("checkpoint")?;
            self.alone()?;
            let kept = |name: &str| {
                let path = self.folder.join(format!("{name}{root}-{attempt}"));
                fs::create_dir(&path).map(|()| path)
            };
            let names = Names::Fixed { through: shm.clone(), beneath: Vec::new() };
            let trees = vec![
                Tree { live: self.folder.join("data"), kept: kept("kept")?, names: Names::Pinned },
                Tree { live: shm.clone(), kept: kept("kept-shm")?, names },
            ];
            match Baseline::take(&[Target { root, trees }]) {
                Err(refused) if refused.passes() && attempt < ATTEMPTS => {}
                other => return Ok(other?),
            }
        }
        Err("no baseline".into())
    }

    /// The end of everything in its namespace, at once.
    fn kill(mut self) -> Outcome<(PathBuf, PathBuf)> {
        done(Command::new("kill").args(["-9", &self.root()?.to_string()]))?;
        self.unshare.wait()?;
        Ok((self.bin.clone(), self.folder.clone()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The first process took another user, and so does not die with its starter.
        if let Ok(root) = self.root() {
            let _ = done(Command::new("kill").args(["-9", &root.to_string()]));
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn print(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    if !took.is_empty() {
        println!("{name}: p50 {:?} p99 {:?} of {}", percentile(&took, 50), percentile(&took, 99), took.len());
    }
}

/// A client that is in the middle of something.
fn unfinished(server: &Server, question: &str) -> Outcome<Child> {
    let client =
        server.psql(question).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // Until its last question is being answered.
    let last = "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() \
        and (query like '%pg_sleep(1000)%' or query like '%1000000000%')";
    eventually("a client is busy", || server.ask(last).is_ok_and(|count| count.trim() == "1"))?;
    Ok(client)
}

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [bin, folder, rounds] = &arguments[..] else {
        return Err("rewind_postgres BIN FOLDER ROUNDS".into());
    };
    println!("{:?}", available()?);
    let server = Server::make(Path::new(bin), Path::new(folder))?;
    server.ask(SEED)?;
    for _ in 0..WARM {
        server.ask(STATE)?;
    }
    let before = server.ask(STATE)?;
    let mut baseline = server.baseline()?;
    println!("{:?}", baseline.taken());
    let mut steps: BTreeMap<Step, Vec<Duration>> = BTreeMap::new();
    let (mut all, mut compared, mut first, mut ended) = (Vec::new(), 0, Vec::new(), 0);
    for round in 0..rounds.parse()? {
        let which = round % (TESTS.len() + UNFINISHED.len());
        let (test, mut client) = match TESTS.get(which) {
            Some(test) => {
                // One of them ends its own session.
                if let Err(error) = server.ask(test)
                    && !test.contains("pg_terminate_backend")
                {
                    return Err(error);
                }
                (*test, None)
            }
            None => {
                let test = UNFINISHED[which - TESTS.len()];
                (test, Some(unfinished(&server, test)?))
            }
        };
        let deep = (round / (TESTS.len() + UNFINISHED.len())).is_multiple_of(COMPARED_EVERY);
        let rewound = baseline.rewind(if deep { Check::Bytes } else { Check::Identity }, Unlike::Kill)?;
        let asked = Instant::now();
        server.ask("select 1")?;
        first.push(asked.elapsed());
        if let Some(client) = &mut client {
            client.wait()?;
        }
        let after = server.ask(STATE)?;
        if after != before {
            return Err(format!("round {round}: {test}: was\n{before}is\n{after}").into());
        }
        ended += rewound.processes;
        for (step, took) in &rewound.steps {
            steps.entry(*step).or_default().push(*took);
        }
        if deep {
            compared += 1;
        } else {
            all.push(rewound.took());
        }
        if round < TESTS.len() + UNFINISHED.len() {
            println!(
                "{:.60} | {:?} {:?}, {} processes, {} files",
                test,
                rewound.took(),
                rewound.written,
                rewound.processes,
                rewound.files.len()
            );
        }
    }
    for (step, took) in steps {
        print(&step.to_string(), took);
    }
    print("total without comparison", all);
    print("first connection after it, by psql", first);
    println!("rewinds {rounds}, compared to the last byte {compared}, processes ended {ended}, wrong 0");

    baseline.rewind(Check::Bytes, Unlike::Kill)?;
    drop(baseline);
    let (bin, folder) = server.kill()?;
    let server = Server::start(&bin, &folder)?;
    let after = server.ask(STATE)?;
    if after != before {
        return Err(format!("after kill -9 and recovery: was\n{before}is\n{after}").into());
    }
    server.ask("create extension amcheck")?;
    let check = ["--all", "--heapallindexed", "--parent-check", "--install-missing", "-U", "postgres", "-h"];
    done(Command::new(bin.join("pg_amcheck")).args(check).arg(folder.join("run")))?;
    println!("killed, recovered, the same by SQL, clean by pg_amcheck");

    let mut baseline = server.baseline()?;
    let mut client = unfinished(&server, UNFINISHED[0])?;
    let session = server.ask(
        "select pid from pg_stat_activity where query like '%pg_sleep(1000)%' and pid <> pg_backend_pid()",
    )?;
    let inside = format!("kill -9 {}", session.trim());
    done(Command::new("nsenter").args(["-t", &server.root()?.to_string(), "-p", "sh", "-c", &inside]))?;
    client.wait()?;
    eventually("the server has restarted its processes", || server.ask("select 1").is_ok())?;
    match baseline.rewind(Check::Identity, Unlike::RunOn) {
        Err(Broken::Differs(differences))
            if differences.iter().any(|one| matches!(one, Difference::ProcessGone(_))) =>
        {
            println!(
                "a session that was killed: found, {}",
                differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            );
        }
        other => return Err(format!("a session that was killed: {other:?}").into()),
    }
    Ok(())
}
