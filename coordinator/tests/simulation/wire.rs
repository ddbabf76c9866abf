//! What is said over a link: the messages of `proto/farm.proto` with the core's types in them.

use andon_core::ids::{Fence, LaneIx, Lease};
use andon_core::model::{Report, Work};

/// From a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    pub(crate) seq: u64,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Hello { held: Vec<Lease>, reached: Option<Fence> },
    LaneReady { lane: LaneIx, baseline: String },
    Heartbeat { held: Vec<Lease> },
    Unfit { reason: Option<String> },
    Report { lease: Lease, report: Report },
}

/// To a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Word {
    Welcome { lease_ttl_ms: u64, heartbeat_ms: u64 },
    Ack { seq: u64 },
    Assign { lease: Lease, lane: LaneIx, work: Work },
    Revoke { lease: Lease },
    Superseded { lease: Lease },
}
