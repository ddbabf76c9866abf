//! The wire contract of the farm: `farm.proto` and the code generated from it.
//!
//! No conversions and no logic live here: each side turns these messages into its own types in one file at its edge.
#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("andon.farm.v1");
