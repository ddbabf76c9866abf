//! What a run amounts to, for people, scripts and CI systems: text, JSON, JUnit, exit codes.
//!
//! Everything here is a function of the farm's messages: no connection, no terminal, no
//! clock. It must not know how a run was asked for, nor where its output goes.

pub(crate) mod attempts;
pub(crate) mod congruence;
pub(crate) mod exit;
pub(crate) mod flow;
pub(crate) mod ids;
pub(crate) mod inexact;
pub(crate) mod inspection;
pub(crate) mod json;
pub(crate) mod junit;
pub(crate) mod listing;
pub(crate) mod owners;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod stats;
pub(crate) mod summary;
pub(crate) mod trace;
pub(crate) mod unread;
pub(crate) mod why;
pub(crate) mod words;

pub(crate) use andon_figures::text;

#[cfg(test)]
pub(crate) mod sample;
