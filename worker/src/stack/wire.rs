//! Addresses and routes in another network namespace, by netlink sockets that were opened in it and are kept.
//!
//! A socket belongs for ever to the namespace that it was opened in (network_namespaces(7)), so one thread enters it once,
//! and each change after that is a message of some microseconds instead of two programs.
//!
//! Must not know stacks or lanes. Invariant: what an answer says is read before the next question is asked.

mod forget;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use forget::Learned;

/// Of one datagram; the kernel sends at most this in a dump (netlink(7)).
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// Loopback is the first interface of every namespace.
const LOOPBACK: u32 = 1;
const HOST_BITS: u8 = 32;

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    /// The one address that is reached.
    pub to: Ipv4Addr,
    /// On the link of `device`, without any other route to it.
    pub via: Ipv4Addr,
    /// An interface's number.
    pub device: u32,
}

/// A network namespace, at hand.
#[derive(Debug)]
pub struct Wire {
    route: Mutex<Line>,
    diag: Mutex<Line>,
    learned: Mutex<Learned>,
}

impl Wire {
    /// Enters the namespace that this file stands for. Blocking.
    pub fn enter(namespace: &Path) -> io::Result<Self> {
        let namespace = File::open(namespace)?;
        // The thread ends there: a namespace is entered by one thread, and nothing else may run on it after.
        let entered = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                let (route, diag) = (Line::open(NETLINK_ROUTE)?, Line::open(NETLINK_SOCK_DIAG)?);
                Ok::<_, io::Error>((route, diag, Learned::enter()?))
            });
            inside.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))
        });
        let (route, diag, learned) = entered??;
        Ok(Self { route: Mutex::new(route), diag: Mutex::new(diag), learned: Mutex::new(learned) })
    }

    /// Takes an address of its own, reachable by whoever has a route to it.
    pub fn own(&self, address: Ipv4Addr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = HOST_BITS;
        message.header.scope = AddressScope::Host;
        message.header.index = LOOPBACK;
        let address = IpAddr::V4(address);
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.route().tell(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The interface that has this address, and the length of its network's prefix.
    pub fn device_of(&self, address: Ipv4Addr) -> io::Result<(u32, u8)> {
        let mut question = AddressMessage::default();
        question.header.family = AddressFamily::Inet;
        let found = self.route().ask(RouteNetlinkMessage::GetAddress(question))?;
        let local = AddressAttribute::Local(IpAddr::V4(address));
        let has = |message: RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewAddress(one) if one.attributes.contains(&local) => {
                Some((one.header.index, one.header.prefix_len))
            }
            _ => None,
        };
        found.into_iter().find_map(has).ok_or_else(|| io::Error::other(format!("no interface has {address}")))
    }

    /// Where what has no other route goes.
    pub fn gateway(&self) -> io::Result<Option<Ipv4Addr>> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        let found = self.route().ask(RouteNetlinkMessage::GetRoute(question))?;
        let by_default = |message: RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRoute(route) if route.header.destination_prefix_length == 0 => {
                route.attributes.into_iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(address),
                    _ => None,
                })
            }
            _ => None,
        };
        Ok(found.into_iter().find_map(by_default))
    }

    /// Leads there from now on, wherever it led before.
    pub fn lead(&self, lead: Lead) -> io::Result<()> {
        let mut message = route_to(lead.to, HOST_BITS, RouteType::Unicast);
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(lead.via)));
        message.attributes.push(RouteAttribute::Oif(lead.device));
        message.header.flags = netlink_packet_route::route::RouteFlags::Onlink;
        self.route().tell(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Reaches this one address directly on the device's link.
    pub fn reach(&self, address: Ipv4Addr, device: u32) -> io::Result<()> {
        let mut message = route_to(address, HOST_BITS, RouteType::Unicast);
        message.header.scope = RouteScope::Link;
        message.attributes.push(RouteAttribute::Oif(device));
        self.route().tell(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Nothing of this network is reached any more, but by routes of their own; who tries is told so at once.
    pub fn bar(&self, network: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mask = u32::MAX.checked_shl(u32::from(HOST_BITS - prefix.min(HOST_BITS))).unwrap_or(0);
        let network = Ipv4Addr::from(u32::from(network) & mask);
        let message = route_to(network, prefix, RouteType::Unreachable);
        self.route().tell(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Ends the TCP connections to these addresses as if they had been reset; answers with how many there were.
    pub fn cut(&self, peers: &HashSet<Ipv4Addr>) -> io::Result<usize> {
        let mut diag = self.diag.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for family in [AF_INET, AF_INET6] {
            let states = StateFlags::all() - StateFlags::LISTEN - StateFlags::TIME_WAIT - StateFlags::CLOSE;
            let all = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
            for message in diag.ask(sockets(family, states, all))? {
                let SockDiagMessage::InetResponse(found) = message else { continue };
                let id = found.header.socket_id.clone();
                if !v4(id.destination_address).is_some_and(|peer| peers.contains(&peer)) {
                    continue;
                }
                let one = SockDiagDestroy::new(sockets(family, StateFlags::all(), id));
                match diag.tell(one, 0) {
                    Ok(()) => count += 1,
                    // It has ended by itself.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(count)
    }

    fn route(&self) -> MutexGuard<'_, Line> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sockets(family: u8, states: StateFlags, socket_id: SocketId) -> SockDiagMessage {
    let extensions = ExtensionFlags::empty();
    SockDiagMessage::InetRequest(InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id })
}

/// Also of a socket that speaks both versions of IP.
fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

fn route_to(network: Ipv4Addr, prefix: u8, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(network)));
    message
}

/// A socket to the kernel.
#[derive(Debug)]
struct Line {
    socket: Socket,
    sequence: u32,
}

impl Line {
    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a change.
    fn tell<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        change: M,
        how: u16,
    ) -> io::Result<()> {
        self.send(change, NLM_F_REQUEST | NLM_F_ACK | how)?;
        self.answers::<M>().map(drop)
    }

    /// Asks for all that there is.
    fn ask<M: NetlinkSerializable + NetlinkDeserializable>(&mut self, question: M) -> io::Result<Vec<M>> {
        self.send(question, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.answers()
    }

    /// Asks what has one answer.
    fn ask_one<M: NetlinkSerializable + NetlinkDeserializable>(&mut self, question: M) -> io::Result<M> {
        self.send(question, NLM_F_REQUEST | NLM_F_ACK)?;
        self.answers()?.pop().ok_or_else(|| io::Error::other("the kernel acknowledged and did not answer"))
    }

    fn send<M: NetlinkSerializable>(&mut self, payload: M, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(payload));
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Up to the end of a dump, or the word on a change.
    fn answers<M: NetlinkDeserializable>(&mut self) -> io::Result<Vec<M>> {
        let mut all = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4).clamp(1, rest.len());
                rest = &rest[length..];
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(all),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(all),
                        Some(_) => return Err(error.to_io()),
                    },
                    NetlinkPayload::InnerMessage(inner) => all.push(inner),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process in a network namespace of its own, with two links.
    pub(super) struct Elsewhere(Child);

    impl Elsewhere {
        pub(super) fn new() -> Self {
            let link = |name: &str, address: &str| {
                format!(
                    "ip link add {name} type veth peer name {name}-end && ip link set {name}-end up \
                         && ip addr add {address} dev {name} && ip link set {name} up && "
                )
            };
            let links = link("one", "10.1.0.2/24") + &link("two", "10.2.0.2/24");
            let script = format!("ip link set lo up && {links} echo up && exec sleep 60");
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", &script]).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            let mut said = io::BufReader::new(child.stdout.take().unwrap());
            io::BufRead::read_line(&mut said, &mut line).unwrap();
            assert_eq!(line, "up\n", "network namespaces and iproute2 are needed");
            Self(child)
        }

        pub(super) fn id(&self) -> u32 {
            self.0.id()
        }

        pub(super) fn wire(&self) -> Wire {
            Wire::enter(Path::new(&format!("/proc/{}/ns/net", self.0.id()))).unwrap()
        }

        pub(super) fn run(&self, words: &str) -> String {
            let net = format!("--net=/proc/{}/ns/net", self.0.id());
            let output = Command::new("nsenter").arg(net).args(words.split(' ')).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
    }

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    const NAME: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

    #[test]
    fn an_address_leads_to_one_neighbour_then_to_another_and_its_network_is_barred() {
        let elsewhere = Elsewhere::new();
        let wire = elsewhere.wire();
        let (a, prefix) = wire.device_of(Ipv4Addr::new(10, 1, 0, 2)).unwrap();
        let (b, _) = wire.device_of(Ipv4Addr::new(10, 2, 0, 2)).unwrap();
        assert_ne!(a, b);
        wire.bar(Ipv4Addr::new(10, 1, 0, 2), prefix).unwrap();
        let lead = |via: [u8; 4], device| Lead { to: NAME, via: via.into(), device };
        wire.lead(lead([10, 1, 0, 9], a)).unwrap();
        assert!(
            elsewhere
                .run("ip route get 198.19.0.1")
                .starts_with("198.19.0.1 via 10.1.0.9 dev one src 10.1.0.2")
        );
        wire.lead(lead([10, 2, 0, 9], b)).unwrap();
        assert!(
            elsewhere
                .run("ip route get 198.19.0.1")
                .starts_with("198.19.0.1 via 10.2.0.9 dev two src 10.2.0.2")
        );
        let routes = elsewhere.run("ip -4 route show");
        assert!(routes.contains("unreachable 10.1.0.0/24"), "{routes}");
        assert_eq!(elsewhere.run("ip route get 10.1.0.9"), "", "barred: {routes}");
        wire.reach(Ipv4Addr::new(10, 1, 0, 1), a).unwrap();
        assert!(elsewhere.run("ip route get 10.1.0.1").starts_with("10.1.0.1 dev one"));
        assert_eq!(wire.gateway().unwrap(), None);
        elsewhere.run("ip route add default via 10.2.0.1");
        assert_eq!(wire.gateway().unwrap(), Some(Ipv4Addr::new(10, 2, 0, 1)));
    }

    #[test]
    fn connections_to_an_address_are_cut_and_others_are_not() {
        let elsewhere = Elsewhere::new();
        let wire = elsewhere.wire();
        wire.own(NAME).unwrap();
        wire.own(NAME).unwrap();
        let net = format!("--net=/proc/{}/ns/net", elsewhere.0.id());
        let script = "import socket, sys\n\
                      s = socket.create_server(('0.0.0.0', 7777))\n\
                      def to(host):\n    c = socket.create_connection((host, 7777), source_address=('127.0.0.1', 0)); return c, s.accept()[0]\n\
                      one, two = to('198.19.0.1'), to('127.0.0.1')\n\
                      print('up', flush=True); sys.stdin.readline()\n\
                      try:\n    print('one', one[0].recv(1))\n\
                      except OSError as error:\n    print('one', error.strerror)\n\
                      two[1].send(b'x'); print('two', two[0].recv(1), flush=True)\n";
        let mut client = Command::new("nsenter")
            .args([net.as_str(), "python3", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = io::BufReader::new(client.stdout.take().unwrap());
        let mut next = || {
            let mut line = String::new();
            io::BufRead::read_line(&mut said, &mut line).unwrap();
            line
        };
        assert_eq!(next(), "up\n");
        assert_eq!(wire.cut(&HashSet::from([NAME])).unwrap(), 1);
        drop(client.stdin.take());
        assert_eq!(next(), "one Software caused connection abort\n");
        assert_eq!(next(), "two b'x'\n");
        client.wait().unwrap();
    }
}
