//! Forges over real HTTP: each client against the fake one, and the whole way from a push to a status and a rerun by
//! comment, with a real coordinator, a real gateway and real repositories.

#[path = "forges/clients.rs"]
mod clients;
#[path = "support/forge.rs"]
mod forge;
mod support;
#[path = "forges/whole.rs"]
mod whole;
#[path = "support/worker.rs"]
mod worker;
