//! Ports of this machine that lead to a service of the stack: each connection is a look of its own, so that one that is slow
//! holds up no other.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use andon::connect::Connection;
use andon_proto::look_in::Body as In;
use andon_proto::look_open::What;
use andon_proto::look_out::Body;
use andon_proto::{LookIn, LookOpen, LookPort};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cli::error::CliError;
use crate::cli::look::Look;
use crate::cli::out;

/// Connections of one port at a time; further ones wait.
const CONNECTIONS_MAX: usize = 32;
const PIECE_BYTES: usize = 32 << 10;

/// `PORT[:LOCAL]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortSpec {
    port: u16,
    /// 0 for any that is free; `None` for the same number, or any where that is taken.
    local: Option<u16>,
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, local) = match text.split_once(':') {
            Some((port, local)) => (port, Some(local)),
            None => (text, None),
        };
        let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
        let port = number(port)?;
        if port == 0 {
            return Err("a service has no port 0".to_owned());
        }
        Ok(Self { port, local: local.map(number).transpose()? })
    }
}

/// A port that is listened on.
pub(super) struct Forward {
    port: u16,
    at: SocketAddr,
    listener: TcpListener,
}

impl Forward {
    /// On the loopback address alone.
    pub(super) async fn bind(spec: PortSpec) -> Result<Self, CliError> {
        let listen = async |local: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, local)).await;
        let listener = match (listen(spec.local.unwrap_or(spec.port)).await, spec.local) {
            (Ok(listener), _) => Ok(listener),
            (Err(_), None) => listen(0).await,
            (Err(error), Some(_)) => Err(error),
        };
        let failed = |error: std::io::Error| {
            CliError::usage(format!("port {} of this machine cannot be used", spec.local.unwrap_or_default()))
                .because(&error)
                .hint("--port PORT:0 takes any that is free")
        };
        let listener = listener.map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        Ok(Self { port: spec.port, at, listener })
    }

    /// Where it is.
    pub(super) fn told(&self, service: &str) -> String {
        let service = if service.is_empty() { "the service" } else { service };
        format!("port {} of {service} is at {}", self.port, self.at)
    }

    /// Until it is dropped.
    pub(super) async fn lead(self, connection: Connection, open: LookOpen, look: String, service: String) {
        let mut led = JoinSet::new();
        loop {
            while led.len() >= CONNECTIONS_MAX {
                led.join_next().await;
            }
            while led.try_join_next().is_some() {}
            let Ok((stream, _)) = self.listener.accept().await else { continue };
            let port = LookPort { look: look.clone(), service: service.clone(), port: self.port.into() };
            let (connection, open, number) = (connection.clone(), open.clone(), self.port);
            led.spawn(async move {
                if let Err(error) = relay(stream, &connection, &open, port).await {
                    out::note(&format!("port {number}: {error}"));
                }
            });
        }
    }
}

/// One connection, until either end is gone.
async fn relay(
    stream: TcpStream,
    connection: &Connection,
    open: &LookOpen,
    port: LookPort,
) -> Result<(), CliError> {
    let mut look = Look::open(connection, open, What::Port(port)).await?;
    let input = look.input();
    let (mut from, mut to) = stream.into_split();
    let sending = async {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(got) = from.read(&mut piece).await {
            let body = match piece.get(..got).filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => In::Input(bytes.to_vec()),
                None => In::InputEnded(true),
            };
            if input.send(LookIn { body: Some(body) }).await.is_err() || got == 0 {
                break;
            }
        }
        // The service may still answer.
        std::future::pending::<()>().await;
    };
    let receiving = async {
        while let Some(said) = look.next().await? {
            if let Body::Output(bytes) = said
                && to.write_all(&bytes).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = receiving => ended,
        () = sending => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_have_another_number_here() {
        let spec = |text: &str| text.parse::<PortSpec>();
        assert_eq!(spec("3306"), Ok(PortSpec { port: 3306, local: None }));
        assert_eq!(spec("3306:13306"), Ok(PortSpec { port: 3306, local: Some(13306) }));
        assert_eq!(spec("5432:0"), Ok(PortSpec { port: 5432, local: Some(0) }));
        for wrong in ["", "0", "db", "70000", "3306:", ":3306", "1:2:3"] {
            assert!(spec(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_same_port_is_taken_where_it_is_free_and_a_named_one_has_to_be() {
        let first = Forward::bind(PortSpec { port: 1, local: Some(0) }).await.expect("any port");
        let taken = first.at.port();
        let other = Forward::bind(PortSpec { port: taken, local: None }).await.expect("another port");
        assert_ne!(other.at.port(), taken);
        assert!(other.at.ip().is_loopback());
        assert!(Forward::bind(PortSpec { port: 1, local: Some(taken) }).await.is_err());
    }
}
