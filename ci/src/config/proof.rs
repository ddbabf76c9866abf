//! `[[baseline.proof]]`: commands whose output shows that a stack is what its baseline says.
//!
//! Pure: tables and shell texts. The texts of known engines print contents (as sums), schemas, users, settings; nothing that a
//! server changes by itself, and nothing that it derives from the machine's processors or memory.

use super::andon_toml::HOMES;
use super::problem::{Findings, quoted};
use super::quick::{ENGINES, Engine};
use super::table::Table;
use super::{Located, check};

/// The most proofs of a baseline.
pub const PROOFS_MAX: usize = 16;

/// One proof.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// In whose container it runs.
    pub service: Located<String>,
    /// A command of its shell.
    pub run: String,
    /// It changes nothing but caches and counters: it may warm a server.
    pub only_reads: bool,
}

/// The proofs, as far as they are not wrong.
pub(super) fn read(findings: &mut Findings<'_>, table: &mut Table<'_, '_>) -> Vec<Proof> {
    let tables = table.tables(findings, "proof", "[[baseline.proof]]");
    if tables.len() > PROOFS_MAX {
        let place = table.place_of(findings, "proof");
        findings.problem(place, format!("{} proofs, at most {PROOFS_MAX} are taken", tables.len()));
    }
    tables.into_iter().take(PROOFS_MAX).filter_map(|table| proof(findings, table)).collect()
}

fn proof(findings: &mut Findings<'_>, mut table: Table<'_, '_>) -> Option<Proof> {
    table.require(
        findings,
        "service",
        "the proof has no \"service\": name the one in whose container it runs",
    );
    let service = table.text(findings, "service");
    let run = table.text(findings, "run");
    let engine = table.choice(findings, "engine", &ENGINES);
    let (has_run, has_engine) = (table.has("run"), table.has("engine"));
    let only_reads = table.bool(findings, "only_reads");
    if has_run == has_engine {
        let name = service.as_ref().map_or_else(String::new, |name| format!(" of {}", quoted(&name.value)));
        let message = if has_run {
            format!("the proof{name} has both \"run\" and \"engine\": write one of them")
        } else {
            format!(
                "the proof{name} has no \"run\": write a command that prints what must not differ, or \"engine\" for \
                 a known server's"
            )
        };
        findings.problem(table.place(), message);
    }
    table.finish(findings, &HOMES);
    if let Some(run) = &run {
        check::command(findings, "a proof", run);
    }
    let run = match (run, engine) {
        (Some(run), _) => run.value,
        (None, Some(engine)) => command(engine).to_owned(),
        (None, None) => return None,
    };
    Some(Proof { service: service?, run, only_reads: only_reads.unwrap_or(engine.is_some()) })
}

/// What proves a server of this kind. It connects as the server's first user, by the password that the image's usual variable
/// holds.
fn command(engine: Engine) -> &'static str {
    match engine {
        // Images that stand in for each other have the one's name and the other's server.
        Engine::MySql => concat!(
            "case \"$(mysql --version 2>/dev/null || echo MariaDB)\" in *MariaDB*)\n",
            include_str!("proof/mariadb.sh"),
            "exit 0 ;;\nesac\n",
            include_str!("proof/mysql.sh"),
        ),
        Engine::MariaDb => include_str!("proof/mariadb.sh"),
        Engine::PostgreSql => include_str!("proof/postgresql.sh"),
        Engine::Redis => include_str!("proof/redis.sh"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_known_engines_are_shell() {
        for (name, engine) in ENGINES {
            let checked =
                std::process::Command::new("sh").args(["-n", "-c", command(engine)]).output().unwrap();
            assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
