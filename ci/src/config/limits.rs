//! How much a container may use: of suites in `andon.toml`, of services in compose's words. Zero is "not given".

use toml::de::DeValue;

use super::measure::{self, BYTES_FORM, CPUS_FORM};
use super::problem::{Findings, Located, quoted};
use super::table::{Table, wrong_type};

/// The least memory that engines take.
const MEMORY_MIN: u64 = 6 << 20;
/// The least that a lane may be let write: what a runner itself leaves.
const DISK_MIN: u64 = 4 << 20;
/// The most that may be named: against slips of the pen.
const SIZE_MAX: u64 = 16 << 40;
/// The most processes and threads that may be named.
pub(crate) const PIDS_MAX: u32 = 1 << 20;

/// Of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory; there is no swap beside it.
    pub memory_bytes: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Processes and threads.
    pub pids: u64,
    /// What the lane may write while a unit of the suite runs; of suites alone.
    pub disk_bytes: u64,
}

impl Limits {
    /// What is not given here is as there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let first = |own: u64, other: u64| if own == 0 { other } else { own };
        Self {
            memory_bytes: first(self.memory_bytes, other.memory_bytes),
            cpu_millis: first(self.cpu_millis, other.cpu_millis),
            pids: first(self.pids, other.pids),
            disk_bytes: first(self.disk_bytes, other.disk_bytes),
        }
    }
}

/// `[limits]`, or `limits` of a suite.
pub(crate) fn read(
    findings: &mut Findings<'_>,
    mut table: Table<'_, '_>,
    homes: &[(&str, &[&str])],
) -> Limits {
    let memory = table.text(findings, "memory");
    let memory_bytes = memory.and_then(|text| self::memory(findings, "memory", &text)).unwrap_or(0);
    let place = table.place_of(findings, "cpus");
    let cpus = match table.any("cpus") {
        None => None,
        Some(value) => match value.get_ref() {
            DeValue::Integer(number) => {
                // `0x10` is sixteen; what is no such number is shown as it is written.
                let read = u64::from_str_radix(number.as_str(), number.radix());
                Some(read.map_or_else(|_| number.to_string(), |cpus| cpus.to_string()))
            }
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            _ => {
                wrong_type(findings, "cpus", value, CPUS_FORM);
                None
            }
        },
    };
    let cpus = cpus.and_then(|text| self::cpus(findings, "cpus", &Located { value: text, place }));
    let pids = table.number(findings, "pids", 1..=PIDS_MAX).unwrap_or(0);
    let disk = table.text(findings, "disk");
    let disk_bytes = disk.and_then(|text| size(findings, "disk", &text, DISK_MIN)).unwrap_or(0);
    table.finish(findings, homes);
    Limits { memory_bytes, cpu_millis: cpus.unwrap_or(0), pids: pids.into(), disk_bytes }
}

/// A size that a container can have.
pub(crate) fn memory(findings: &mut Findings<'_>, key: &str, text: &Located<String>) -> Option<u64> {
    size(findings, key, text, MEMORY_MIN)
}

fn size(findings: &mut Findings<'_>, key: &str, text: &Located<String>, min: u64) -> Option<u64> {
    let bytes = measure::bytes(&text.value).filter(|bytes| (min..=SIZE_MAX).contains(bytes));
    if bytes.is_none() {
        let least = min >> 20;
        let message =
            format!("{key:?} is {}: write {BYTES_FORM}, at least \"{least}m\"", quoted(&text.value));
        findings.problem(text.place.clone(), message);
    }
    bytes
}

/// A number of processors, in thousandths.
pub(crate) fn cpus(findings: &mut Findings<'_>, key: &str, text: &Located<String>) -> Option<u64> {
    let millis = measure::cpu_millis(&text.value);
    if millis.is_none() {
        findings
            .problem(text.place.clone(), format!("{key:?} is {}: write {CPUS_FORM}", quoted(&text.value)));
    }
    millis
}
