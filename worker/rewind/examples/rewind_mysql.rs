//! Rewinds a real MySQL again and again, every byte compared now and then, and prints what each step took.
//!
//! ```text
//! rewind_mysql CONTAINER LIVE KEPT ROUNDS [COMPARED_EVERY]
//! ```
//!
//! `CONTAINER` runs mysqld as its first process with its data in the folder `LIVE` of this machine and native AIO off; `KEPT` is an empty folder on the same
//! file system. Clients are `mysql` inside the container, one for each test, as a test's would be: they connect, work and go.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use andon_rewind::{Baseline, Check, Names, Step, Target, Tree, Unlike, available};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Every so many rounds all bytes are compared, where nothing else is said.
const COMPARED_EVERY: usize = 10;
/// Questions before the baseline: threads are made, caches are filled.
const WARM: usize = 5;
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

const SEED: &str = "create database if not exists shop; use shop; drop table if exists item; \
    create table item (id int primary key auto_increment, name varchar(60), amount int, key (amount)); \
    insert into item (name, amount) with recursive n as (select 1 i union all select i + 1 from n where i < 900) \
    select concat('item ', i), i from n;";
const STATE: &str = "select count(*), sum(amount), @@global.max_connections from shop.item; checksum table shop.item; \
    select count(*) from information_schema.tables; select user, host from mysql.user order by 1, 2;";
const TESTS: &[&str] = &[
    "insert into shop.item (name, amount) values ('one', 1)",
    "update shop.item set amount = amount + 1",
    "create table shop.extra (id int primary key); insert into shop.extra values (1), (2)",
    "create user vandal identified by 'x'; grant all on shop.* to vandal",
    "set global max_connections = 77; delete from shop.item where id % 3 = 0",
    "drop table shop.item",
];

struct Server(String);

impl Server {
    fn ask(&self, question: &str) -> Outcome<String> {
        let mut docker = Command::new("docker");
        let out = docker.args(["exec", &self.0, "mysql", "-uroot", "-N", "-e", question]).output()?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(format!("{question}: {}", String::from_utf8_lossy(&out.stderr)).into())
    }

    fn pid(&self) -> Outcome<i32> {
        let mut docker = Command::new("docker");
        let out = docker.args(["inspect", "-f", "{{.State.Pid}}", &self.0]).output()?;
        Ok(String::from_utf8(out.stdout)?.trim().parse()?)
    }

    /// A baseline with dirty pages would flush them again after each rewind.
    fn flush(&self) -> Outcome<()> {
        self.ask("set global innodb_max_dirty_pages_pct = 0, global innodb_max_dirty_pages_pct_lwm = 0")?;
        let begun = Instant::now();
        while !self.ask("show global status like 'innodb_buffer_pool_pages_dirty'")?.trim().ends_with("\t0") {
            if begun.elapsed() > FLUSH_LIMIT {
                return Err("pages stay dirty".into());
            }
        }
        self.ask("set global innodb_max_dirty_pages_pct = 90, global innodb_max_dirty_pages_pct_lwm = 10")?;
        Ok(())
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [container, live, kept, rounds, every @ ..] = &arguments[..] else {
        return Err("rewind_mysql CONTAINER LIVE KEPT ROUNDS [COMPARED_EVERY]".into());
    };
    let every = every.first().map_or(Ok(COMPARED_EVERY), |every| every.parse())?;
    println!("{:?}", available()?);
    let server = Server(container.clone());
    server.ask(SEED)?;
    for _ in 0..WARM {
        server.ask(STATE)?;
    }
    server.flush()?;
    let before = server.ask(STATE)?;
    let trees = vec![Tree { live: live.into(), kept: kept.into(), names: Names::Pinned }];
    let mut baseline = Baseline::take(&[Target { root: server.pid()?, trees }])?;
    println!("{:?}", baseline.taken());
    let mut steps: BTreeMap<Step, Vec<Duration>> = BTreeMap::new();
    let (mut all, mut first) = (Vec::new(), Vec::new());
    for round in 0..rounds.parse()? {
        server.ask(TESTS[round % TESTS.len()])?;
        let compared = round % every == 0;
        let check = if compared { Check::Bytes } else { Check::Identity };
        let rewound = baseline.rewind(check, Unlike::Kill)?;
        let asked = Instant::now();
        let after = server.ask(STATE)?;
        first.push(asked.elapsed());
        if after != before {
            return Err(format!("round {round}: was\n{before}is\n{after}").into());
        }
        for (step, took) in &rewound.steps {
            steps.entry(*step).or_default().push(*took);
        }
        if !compared {
            all.push(rewound.took());
        }
        if round < TESTS.len() {
            println!("{} | {:?} {:?}", TESTS[round], rewound.took(), rewound.written);
        }
    }
    for (step, mut took) in steps {
        took.sort_unstable();
        println!("{step}: min {:?} p50 {:?} p99 {:?}", took[0], percentile(&took, 50), percentile(&took, 99));
    }
    all.sort_unstable();
    println!(
        "total: min {:?} p50 {:?} p99 {:?} of {}",
        all[0],
        percentile(&all, 50),
        percentile(&all, 99),
        all.len()
    );
    first.sort_unstable();
    println!("a client beside it, and the first answers: p50 {:?}", percentile(&first, 50));
    Ok(())
}
