//! The terminal of whoever attaches: its size, and that every key goes to the command.

use std::io::{IsTerminal as _, Read as _};

use andon_proto::look_in::Body as In;
use andon_proto::{LookIn, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::error::CliError;

/// Of one read, in bytes.
const PIECE_BYTES: usize = 16 << 10;
/// Reads that wait to be sent.
const AHEAD_MAX: usize = 4;
/// Where the terminal does not say.
const SIZE_DEFAULT: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// Both ends of it are a terminal.
pub(super) struct Terminal(());

impl Terminal {
    /// `None` where input or output is something else.
    pub(super) fn find() -> Option<Self> {
        let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        both.then_some(Self(()))
    }

    pub(super) fn size(&self) -> TerminalSize {
        match tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                TerminalSize { rows: size.ws_row.into(), columns: size.ws_col.into() }
            }
            _ => SIZE_DEFAULT,
        }
    }

    /// From now on keys are not interpreted here, until the answer is dropped.
    pub(super) fn raw(&self) -> Result<Raw, CliError> {
        let failed = |error: rustix::io::Errno| {
            CliError::infrastructure("cannot set the terminal up").because(&std::io::Error::from(error))
        };
        let was = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = was.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Raw(was))
    }

    /// Tells the size whenever it changes.
    pub(super) fn sizes(&self, input: mpsc::Sender<LookIn>) -> impl Future<Output = ()> + Send + 'static {
        let terminal = Self(());
        async move {
            // Without the signal the size is what it was.
            let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
            while changed.recv().await.is_some() {
                if input.send(LookIn { body: Some(In::Size(terminal.size())) }).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Puts the terminal back.
pub(super) struct Raw(Termios);

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// What comes in on standard input. A thread of its own reads it, which nobody waits for: a read cannot be given up.
pub(super) fn stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(AHEAD_MAX);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(got) = stdin.read(&mut piece) {
            let Some(bytes) = piece.get(..got).filter(|bytes| !bytes.is_empty()) else { return };
            if sender.blocking_send(bytes.to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
