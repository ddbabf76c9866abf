//! The sandboxes that a lane's unit boxes join, in turn: while the box of one unit is being killed in one, the box of the
//! next is made in another. Those of a lane without services reach nothing but themselves.
//!
//! Where a lane has several stands a box finds services by their fronts (`stack/front.rs`), and its berth leads it to the one
//! stand that is its own; every other is out of its reach.
//!
//! Knows sandboxes; must not know boxes or rebases. Invariants: a sandbox is used by one box at a time, and again only
//! when it was put back; where none is free the caller goes without, and the box has a network of its own - but never
//! where it has to be led.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::engine::{NetworkMode, SharedEngine};
use crate::hands::chain;
use crate::stack::{Lead, RigFault, Sandbox, SandboxSpec, Wire, lane_labels};

/// The one in use, the one being made ready, and one whose last box is still being removed.
const BERTHS_MAX: u32 = 3;
/// Where boxes are led, none goes without, and units may follow each other faster than boxes are removed.
const LED_BERTHS_MAX: u32 = 8;
/// A box is removed within this, or the daemon is in trouble.
const TAKE_LIMIT: Duration = Duration::from_secs(30);

/// All of a lane, made as they are needed. They go with the lane, by its label.
#[derive(Debug)]
pub(crate) struct Berths {
    engine: SharedEngine,
    lane: String,
    /// `None` for a lane without services.
    network: Option<String>,
    /// Fronts for their /etc/hosts; `None` where the network's own names serve.
    hosts: Option<String>,
    moored: Mutex<Moored>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Moored {
    made: u32,
    free: Vec<Mooring>,
}

#[derive(Debug)]
struct Mooring {
    sandbox: Sandbox,
    /// Its interface on each network that it is connected to.
    devices: BTreeMap<String, u32>,
}

/// One, taken.
#[derive(Debug)]
pub(crate) struct Berth {
    mooring: Mooring,
    home: Arc<Berths>,
}

/// The way to a stand's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// The stand's network.
    pub(crate) network: String,
    /// Each front, and where it leads there.
    pub(crate) leads: Vec<(Ipv4Addr, Ipv4Addr)>,
}

impl Berths {
    /// `hosts` where boxes are led.
    pub(crate) fn new(engine: SharedEngine, lane: &str, network: &str, hosts: Option<String>) -> Arc<Self> {
        Self::on(engine, lane, Some(network.to_owned()), hosts)
    }

    /// Of a lane without services.
    pub(crate) fn apart(engine: SharedEngine, lane: &str) -> Arc<Self> {
        Self::on(engine, lane, None, None)
    }

    fn on(engine: SharedEngine, lane: &str, network: Option<String>, hosts: Option<String>) -> Arc<Self> {
        let lane = lane.to_owned();
        Arc::new(Self { engine, lane, network, hosts, moored: Mutex::default(), freed: Notify::new() })
    }

    fn moored(&self) -> MutexGuard<'_, Moored> {
        self.moored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of theirs.
    pub(crate) fn lane(&self) -> &str {
        &self.lane
    }

    /// Whether a box without a berth would find no services, or wrong ones.
    pub(crate) fn lead(&self) -> bool {
        self.hosts.is_some()
    }

    /// A free one, or a new one, or none. Where boxes are led it waits for one.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Berth> {
        let overdue = tokio::time::Instant::now() + TAKE_LIMIT;
        let most = if self.lead() { LED_BERTHS_MAX } else { BERTHS_MAX };
        let number = loop {
            let freed = self.freed.notified();
            {
                let mut moored = self.moored();
                if let Some(mooring) = moored.free.pop() {
                    return Some(Berth { mooring, home: Arc::clone(self) });
                }
                if moored.made < most {
                    moored.made += 1;
                    break moored.made;
                }
            }
            if !self.lead() || tokio::time::timeout_at(overdue, freed).await.is_err() {
                return None;
            }
        };
        match self.make(number).await {
            Ok(mooring) => Some(Berth { mooring, home: Arc::clone(self) }),
            Err(error) => {
                tracing::warn!(error = %chain(&error), lane = self.lane, "making a sandbox for units");
                None
            }
        }
    }

    async fn make(&self, number: u32) -> Result<Mooring, RigFault> {
        let network = self.network.clone();
        let spec = SandboxSpec {
            // Two dots: no service's sandbox can be called so.
            name: format!("andon-lane{}..unit{number}", self.lane),
            labels: lane_labels(&self.lane),
            network: network
                .clone()
                .map_or(NetworkMode::None, |network| NetworkMode::Named { network, aliases: Vec::new() }),
            hosts: self.hosts.clone().unwrap_or_default(),
            ..SandboxSpec::default()
        };
        let sandbox = Sandbox::make(self.engine.as_ref(), spec).await?;
        let mut devices = BTreeMap::new();
        if let (true, Some(network), Some(wire), Some(address)) =
            (self.lead(), network, sandbox.wire(), sandbox.address())
        {
            let device = on_wire(&sandbox, &wire, move |wire| {
                let (device, prefix) = wire.device_of(address)?;
                let gateway = wire.gateway()?;
                wire.bar(address, prefix)?;
                // What the worker itself serves to its boxes is there.
                gateway.map_or(Ok(()), |gateway| wire.reach(gateway, device))?;
                Ok(device)
            });
            devices.insert(network, device.await?);
        }
        Ok(Mooring { sandbox, devices })
    }
}

impl Berth {
    /// What a box joins.
    pub(crate) fn network(&self) -> NetworkMode {
        self.mooring.sandbox.joined()
    }

    /// Leads whatever is in it to a stand, and ends the connections that it has to any other.
    pub(crate) async fn lead_to(&mut self, way: &Way) -> Result<(), RigFault> {
        let device = self.device_on(&way.network).await?;
        let Some(wire) = self.mooring.sandbox.wire() else { return Ok(()) };
        let leads = way.leads.clone();
        on_wire(&self.mooring.sandbox, &wire, move |wire| {
            for (to, via) in &leads {
                wire.lead(Lead { to: *to, via: *via, device })?;
            }
            wire.cut(&leads.iter().map(|(front, _)| *front).collect::<HashSet<_>>()).map(drop)
        })
        .await
    }

    /// Connects it where it was not yet. The network's other addresses stay out of reach.
    async fn device_on(&mut self, network: &str) -> Result<u32, RigFault> {
        if let Some(device) = self.mooring.devices.get(network) {
            return Ok(*device);
        }
        let (engine, sandbox) = (self.home.engine.as_ref(), &self.mooring.sandbox);
        engine.connect_network(network, sandbox.container(), &[]).await?;
        let state = engine.inspect_container(sandbox.container()).await?;
        let device = match (sandbox.wire(), state.addresses.get(network)) {
            (Some(wire), Some(IpAddr::V4(address))) => {
                let address = *address;
                let barred = on_wire(sandbox, &wire, move |wire| {
                    let (device, prefix) = wire.device_of(address)?;
                    wire.bar(address, prefix).map(|()| device)
                });
                barred.await?
            }
            // On an engine in memory.
            _ => 0,
        };
        self.mooring.devices.insert(network.to_owned(), device);
        Ok(device)
    }

    /// Fails where its sandbox has ended.
    pub(crate) async fn check(&self) -> Result<(), RigFault> {
        self.mooring.sandbox.check(self.home.engine.as_ref()).await
    }

    /// As it was made, for the next unit of the box that has it. What joined it has to be dead.
    pub(crate) async fn put_back(&self) -> Result<(), RigFault> {
        self.mooring.sandbox.put_back(self.home.engine.as_ref()).await
    }

    /// Ready for another box. What joined it has to be dead. One that cannot be put back is not used again.
    pub(crate) async fn leave(self) {
        let Self { mooring, home } = self;
        match mooring.sandbox.put_back(home.engine.as_ref()).await {
            Ok(()) => {
                home.moored().free.push(mooring);
                home.freed.notify_waiters();
            }
            // The lane may be gone already, and its sandboxes with it.
            Err(error) => tracing::debug!(error = %chain(&error), lane = home.lane, "leaving a sandbox"),
        }
    }
}

/// Some messages to the kernel.
async fn on_wire<T: Send + 'static>(
    sandbox: &Sandbox,
    wire: &Arc<Wire>,
    work: impl FnOnce(&Wire) -> io::Result<T> + Send + 'static,
) -> Result<T, RigFault> {
    let wire = Arc::clone(wire);
    let failed = |source| RigFault::Wire { name: sandbox.name().to_owned(), source };
    let done = tokio::task::spawn_blocking(move || work(&wire)).await;
    done.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeEngine;
    use crate::engine::{Engine as _, NetworkSpec};

    async fn berths(hosts: Option<String>) -> (Arc<FakeEngine>, Arc<Berths>) {
        let engine = FakeEngine::new();
        for name in ["n", "m"] {
            engine
                .create_network(&NetworkSpec { name: name.into(), ..NetworkSpec::default() })
                .await
                .unwrap();
        }
        let berths = Berths::new(engine.clone(), "0", "n", hosts);
        (engine, berths)
    }

    #[tokio::test]
    async fn a_berth_is_used_again_once_it_was_put_back_and_nobody_waits_for_one() {
        let (engine, berths) = berths(None).await;
        let mut taken = Vec::new();
        for _ in 0..BERTHS_MAX {
            taken.push(berths.take().await.unwrap());
        }
        assert!(berths.take().await.is_none());
        let first = taken.remove(0);
        let network = first.network();
        first.leave().await;
        assert_eq!(berths.take().await.unwrap().network(), network);
        // That one was dropped and never put back, so it is lost; and so is one whose sandbox has ended.
        engine.end_container("andon-lane0..unit2", 137, true);
        assert!(taken[0].check().await.is_err());
        taken.remove(0).leave().await;
        assert!(berths.take().await.is_none());
    }

    #[tokio::test]
    async fn where_boxes_are_led_none_goes_without_a_berth() {
        let (engine, berths) = berths(Some("198.19.0.1\tdb\n".to_owned())).await;
        let mut taken = Vec::new();
        for _ in 0..LED_BERTHS_MAX {
            taken.push(berths.take().await.unwrap());
        }
        let mut last = taken.pop().unwrap();
        let way = Way { network: "m".into(), leads: vec![([198, 19, 0, 1].into(), [10, 213, 1, 2].into())] };
        last.lead_to(&way).await.unwrap();
        last.lead_to(&way).await.unwrap();
        let connected = engine.calls().iter().filter(|call| call.starts_with("connect-network m")).count();
        assert_eq!(connected, 1, "once a network");
        let (waited, ()) = tokio::join!(berths.take(), last.leave());
        assert!(waited.is_some());
    }
}
