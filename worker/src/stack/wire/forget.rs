//! What the kernel has learned in a network namespace, and how it forgets it: neighbours, metrics of TCP, exceptions of routes.
//!
//! Sources: rtnetlink(7); genetlink's family `tcp_metrics` (include/uapi/linux/tcp_metrics.h), whose `DEL` without an address means all;
//! `net.ipv4.route.flush`, which any write triggers in the namespace that the file was opened in.

use std::fs::File;
use std::io::{self, Write as _};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourMessage, NeighbourState};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{Line, Wire};

const FLUSH: &str = "/proc/sys/net/ipv4/route/flush";
/// Of the family that tells of families (include/uapi/linux/genetlink.h).
const CONTROL: (u16, u8) = (0x10, 3);
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;
const METRICS_NAME: &[u8] = b"tcp_metrics\0";
const METRICS_DELETE: u8 = 2;

/// What is needed to make it forget.
#[derive(Debug)]
pub(super) struct Learned {
    generic: Line,
    metrics: u16,
    flush: File,
}

impl Learned {
    /// In the namespace of the calling thread.
    pub(super) fn enter() -> io::Result<Self> {
        let mut generic = Line::open(NETLINK_GENERIC)?;
        let question =
            Generic { kind: CONTROL.0, command: CONTROL.1, rest: attribute(FAMILY_NAME, METRICS_NAME) };
        let answer = generic.ask_one(question)?;
        let metrics = value_of(&answer.rest, FAMILY_ID).and_then(|value| value.first_chunk().copied());
        let metrics = metrics.map(u16::from_ne_bytes);
        let metrics = metrics.ok_or_else(|| io::Error::other("the kernel does not tell of tcp_metrics"))?;
        Ok(Self { generic, metrics, flush: File::options().write(true).open(FLUSH)? })
    }

    fn forget(&mut self) -> io::Result<()> {
        let all = Generic { kind: self.metrics, command: METRICS_DELETE, rest: Vec::new() };
        self.generic.tell(all, 0)?;
        self.flush.write_all(b"1")
    }
}

impl Wire {
    /// Makes the kernel forget what it has learned of other machines. Blocking, some dozen microseconds.
    pub fn forget(&self) -> io::Result<()> {
        {
            let mut route = self.route();
            for message in route.ask(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))? {
                let RouteNetlinkMessage::NewNeighbour(neighbour) = message else { continue };
                if matches!(neighbour.header.state, NeighbourState::Noarp | NeighbourState::Permanent) {
                    continue;
                }
                match route.tell(RouteNetlinkMessage::DelNeighbour(neighbour), 0) {
                    // It has gone by itself.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    told => told?,
                }
            }
        }
        self.learned.lock().unwrap_or_else(std::sync::PoisonError::into_inner).forget()
    }
}

/// A message of generic netlink: a family's command, and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Generic {
    kind: u16,
    command: u8,
    rest: Vec<u8>,
}

/// `struct genlmsghdr`: command, version, two bytes that are reserved.
const HEADER_BYTES: usize = 4;

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.rest.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER_BYTES].copy_from_slice(&[self.command, 1, 0, 0]);
        buffer[HEADER_BYTES..].copy_from_slice(&self.rest);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        let [command, _, _, _, rest @ ..] = payload else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        Ok(Self { kind: header.message_type, command: *command, rest: rest.to_vec() })
    }
}

/// `struct nlattr` and its value, filled up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER_BYTES + value.len()).expect("names of families are short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn value_of(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let (length, rest) = attributes.split_first_chunk::<2>()?;
        let (found, _) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = attributes.get(HEADER_BYTES..length)?;
        if u16::from_ne_bytes(*found) == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Elsewhere;
    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let two = [attribute(7, b"seven"), attribute(FAMILY_ID, &[3, 0])].concat();
        assert_eq!(value_of(&two, FAMILY_ID), Some(&[3, 0][..]));
        assert_eq!(value_of(&two, 9), None);
        assert_eq!(value_of(&two[..5], 7), None, "cut off");
    }

    #[test]
    fn what_was_learned_of_neighbours_is_forgotten_and_what_was_set_stays() {
        let elsewhere = Elsewhere::new();
        let wire = elsewhere.wire();
        let neighbours = || elsewhere.run("ip neigh show dev one");
        elsewhere.run("ip neigh add 10.1.0.7 lladdr 02:00:00:00:00:07 dev one nud reachable");
        elsewhere.run("ip neigh add 10.1.0.8 lladdr 02:00:00:00:00:08 dev one nud permanent");
        assert!(neighbours().contains("10.1.0.7"));
        wire.forget().unwrap();
        assert!(!neighbours().contains("10.1.0.7") && neighbours().contains("10.1.0.8"), "{}", neighbours());
        wire.forget().unwrap();
    }

    #[test]
    fn metrics_of_tcp_are_forgotten() {
        let elsewhere = Elsewhere::new();
        let wire = elsewhere.wire();
        let script = "import socket\n\
                      s = socket.create_server(('10.1.0.2', 7777))\n\
                      for n in range(3):\n    c = socket.create_connection(('10.1.0.2', 7777)); a = s.accept()[0]\n    \
                      c.send(b'x' * 1000); a.recv(1000); a.send(b'y'); c.recv(1); c.close(); a.close()\n";
        let net = format!("--net=/proc/{}/ns/net", elsewhere.id());
        let status = std::process::Command::new("nsenter").args([&net, "python3", "-c", script]).status();
        assert!(status.unwrap().success());
        assert!(elsewhere.run("ip tcp_metrics show").contains("10.1.0.2"), "there is something to forget");
        wire.forget().unwrap();
        assert_eq!(elsewhere.run("ip tcp_metrics show"), "");
    }
}
