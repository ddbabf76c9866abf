//! What the operator of a farm may set.

use std::collections::BTreeMap;

/// Limits, times and shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long a lease lives without a heartbeat.
    pub lease_ttl_ms: u64,
    /// How long a lease of before a restart of the coordinator lives until its worker comes back.
    pub restart_grace_ms: u64,
    /// When a run that has no worker says so.
    pub no_worker_notice_ms: u64,
    /// How long a worker that failed everything gets nothing.
    pub quarantine_ms: u64,
    /// The most lanes that a project holds at a time; no entry: no limit.
    pub quotas: BTreeMap<String, u32>,
    /// A project's share beside the others'; no entry: 1.
    pub weights: BTreeMap<String, u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 15_000,
            restart_grace_ms: 30_000,
            no_worker_notice_ms: 5_000,
            quarantine_ms: 600_000,
            quotas: BTreeMap::new(),
            weights: BTreeMap::new(),
        }
    }
}
