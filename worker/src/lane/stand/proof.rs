//! Proofs: commands in the services' containers whose output must be the same on each pristine stand of a baseline.
//!
//! Knows the stand's containers; must not know sessions or leases. Invariants: what a baseline's proofs print is kept with it only
//! after two stands of it printed the same; what is kept and compared is bounded; a stand on which proofs ran is put back
//! before a unit comes (they leave caches and counters in the servers).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use andon_proto::{InexactPart, Proof, Proven};
use thiserror::Error;

use super::{Stand, StandFault};
use crate::engine::{EngineError, ExecSpec, OutputStream};
use crate::hands::{WorkFailure, chain, compress_log};

/// The most that a proof may print, in bytes. Who has more to show prints a digest of it.
const PRINTED_BYTES_MAX: usize = 256 << 10;
/// What is kept of its complaints.
const COMPLAINTS_BYTES_MAX: usize = 4 << 10;
/// How long one may take.
const PROOF_LIMIT: Duration = Duration::from_secs(60);
/// How long all of them may take together when they only warm a stand.
const WARM_LIMIT: Duration = Duration::from_secs(5);
/// Lines that differ and are told, of one proof.
const LINES_MAX: usize = 3;
/// Of each such line, in characters.
const LINE_CHARS_MAX: usize = 160;

/// One proof with what it must print.
#[derive(Debug)]
struct Wanted {
    proof: Proof,
    /// Where the baseline does not say it: what it printed here first.
    output: OnceLock<String>,
}

/// A baseline's proofs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proofs(Arc<Vec<Wanted>>);

/// Why a proof shows nothing.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub(crate) enum ProofFault {
    #[error("the stack has no service `{service}` to run a proof in")]
    NoService { service: String },
    #[error("the proof of `{service}` ended with exit code {code}: {said}")]
    Code { service: String, code: i64, said: String },
    #[error("the proof of `{service}` did not end within {PROOF_LIMIT:?}")]
    Slow { service: String },
    #[error("the proof of `{service}` printed more than {} KiB: let it print a digest", PRINTED_BYTES_MAX >> 10)]
    Long { service: String },
    #[error("the proof of `{service}` printed something else: {difference}")]
    Differs { service: String, difference: String },
}

impl Proofs {
    /// `kept` is what the baseline's manifest says that they print.
    pub(crate) fn new(proofs: &[Proof], kept: &[Proven]) -> Self {
        let wanted = proofs.iter().map(|proof| {
            let of = |kept: &&Proven| kept.service == proof.service && kept.run == proof.run;
            let output = kept.iter().find(of).and_then(output_of).map_or_else(OnceLock::new, OnceLock::from);
            Wanted { proof: proof.clone(), output }
        });
        Self(Arc::new(wanted.collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they printed, to be kept with the baseline.
    pub(crate) fn proven(&self, printed: &[String]) -> Vec<Proven> {
        let both = self.0.iter().zip(printed);
        let proven = both.map(|(wanted, output)| Proven {
            service: wanted.proof.service.clone(),
            run: wanted.proof.run.clone(),
            digest: blake3::hash(output.as_bytes()).to_hex().to_string(),
            output_zstd: compress_log(output.as_bytes()),
        });
        proven.collect()
    }

    /// The first of them that printed something else than the last time.
    pub(crate) fn compare(&self, was: &[String], is: &[String]) -> Result<(), ProofFault> {
        for ((wanted, was), is) in self.0.iter().zip(was).zip(is) {
            if let Some(difference) = difference(was, is) {
                let service = wanted.proof.service.clone();
                return Err(ProofFault::Differs { service, difference });
            }
        }
        Ok(())
    }
}

/// `None` where it is not what its digest says.
fn output_of(kept: &Proven) -> Option<String> {
    let bytes = match kept.output_zstd.as_slice() {
        [] => Vec::new(),
        packed => zstd::bulk::decompress(packed, PRINTED_BYTES_MAX * 3).ok()?,
    };
    (blake3::hash(&bytes).to_hex().as_str() == kept.digest).then(|| String::from_utf8(bytes).ok())?
}

/// The first lines that differ, for a person.
fn difference(was: &str, is: &str) -> Option<String> {
    if was == is {
        return None;
    }
    let (mut old, mut new) = (was.lines(), is.lines());
    let (mut told, mut more) = (Vec::new(), 0);
    for number in 1.. {
        let (old, new) = (old.next(), new.next());
        match (old, new) {
            (None, None) => break,
            (old, new) if old == new => {}
            _ if told.len() == LINES_MAX => more += 1,
            (old, new) => told.push(format!("line {number}: {}, and was {}", shown(new), shown(old))),
        }
    }
    if told.is_empty() {
        told.push("the end of its last line".to_owned());
    }
    let more = if more > 0 { format!("; and {more} lines more") } else { String::new() };
    Some(format!("{}{more}", told.join("; ")))
}

fn shown(line: Option<&str>) -> String {
    let Some(line) = line else { return "nothing".to_owned() };
    let cut: String = line.chars().take(LINE_CHARS_MAX).collect();
    let more = if cut.len() < line.len() { "…" } else { "" };
    format!("`{cut}{more}`")
}

impl ProofFault {
    pub(super) fn service(&self) -> &str {
        match self {
            Self::NoService { service }
            | Self::Code { service, .. }
            | Self::Slow { service }
            | Self::Long { service }
            | Self::Differs { service, .. } => service,
        }
    }
}

impl From<ProofFault> for WorkFailure {
    /// While a baseline is built: a proof that does not hold is the project's.
    fn from(fault: ProofFault) -> Self {
        Self::baseline(fault.to_string())
    }
}

/// Standard output and some of standard error.
#[derive(Default)]
struct Printed {
    output: Vec<u8>,
    complaints: Vec<u8>,
    is_long: bool,
}

impl Printed {
    fn write(&mut self, stream: OutputStream, chunk: &[u8]) {
        let (buffer, bytes_max) = match stream {
            OutputStream::Stdout => (&mut self.output, PRINTED_BYTES_MAX),
            OutputStream::Stderr => (&mut self.complaints, COMPLAINTS_BYTES_MAX),
        };
        let room = bytes_max - buffer.len();
        buffer.extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.is_long |= stream == OutputStream::Stdout && chunk.len() > room;
    }
}

impl Stand {
    /// What the proofs print on this stand, which is up. It is not pristine after that.
    pub(crate) async fn print_proofs(&mut self) -> Result<Vec<String>, StandFault> {
        let proofs = self.ground.proofs.clone();
        self.pristine = None;
        let mut all = Vec::with_capacity(proofs.0.len());
        for wanted in proofs.0.iter() {
            all.push(self.print_proof(&wanted.proof, PROOF_LIMIT).await?);
        }
        Ok(all)
    }

    /// Has the servers do once what their tests will have them do: those proofs that change nothing. They open tables, read pages and make threads, which a
    /// moment then has, and no test pays for. Where one fails or takes too long, false: what it is at goes on.
    pub(super) async fn warm(&self) -> bool {
        let proofs = self.ground.proofs.clone();
        let end = Instant::now() + WARM_LIMIT;
        for wanted in proofs.0.iter().filter(|wanted| wanted.proof.only_reads) {
            let left = end.saturating_duration_since(Instant::now());
            if let Err(error) = self.print_proof(&wanted.proof, left).await {
                tracing::info!(lane = self.ground.lane, error = %chain(&error), "a stand is not warmed by its proofs");
                return false;
            }
        }
        true
    }

    async fn print_proof(&self, proof: &Proof, limit: Duration) -> Result<String, StandFault> {
        let service = || proof.service.clone();
        let place = self.ground.plan.services.iter().position(|one| one.name == proof.service);
        let container = place.and_then(|place| self.rig.containers.get(place));
        let Some(container) = container else {
            return Err(ProofFault::NoService { service: service() }.into());
        };
        let spec = ExecSpec::new(["sh", "-c", &proof.run], limit);
        let mut printed = Printed::default();
        let mut sink = |stream: OutputStream, chunk: &[u8]| printed.write(stream, chunk);
        let ended = self.ground.engine.exec(container, &spec, &mut sink).await;
        match ended {
            Ok(0) if printed.is_long => Err(ProofFault::Long { service: service() }.into()),
            Ok(0) => Ok(String::from_utf8_lossy(&printed.output).into_owned()),
            Ok(code) => {
                let said = String::from_utf8_lossy(&printed.complaints).trim().to_owned();
                Err(ProofFault::Code { service: service(), code, said }.into())
            }
            Err(EngineError::TimedOut { .. }) => Err(ProofFault::Slow { service: service() }.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Compares what the proofs print with what they must. What does not hold is told, too.
    pub(super) async fn prove(&mut self, how: &str) -> Result<(), StandFault> {
        let proven = match self.print_proofs().await {
            Ok(printed) => self.check_proofs(&printed),
            Err(StandFault::Unproven(fault)) => Err((fault, 0)),
            Err(other) => return Err(other),
        };
        let Err((fault, more)) = proven else { return Ok(()) };
        let difference = match &fault {
            ProofFault::Differs { difference, .. } => difference.clone(),
            other => other.to_string(),
        };
        let service = fault.service();
        let run = self.ground.proofs.0.iter().find(|wanted| wanted.proof.service == service);
        let what = run.map_or_else(String::new, |wanted| first_line(&wanted.proof.run));
        let part = InexactPart { r#where: format!("proof/{service}"), what, difference };
        self.tell(how, true, vec![part], more);
        Err(fault.into())
    }

    /// The first that does not hold, and how many others do not.
    fn check_proofs(&self, printed: &[String]) -> Result<(), (ProofFault, u64)> {
        let mut first = None;
        let mut more = 0;
        for (wanted, is) in self.ground.proofs.0.iter().zip(printed) {
            let was = wanted.output.get_or_init(|| is.clone());
            match difference(was, is) {
                None => {}
                Some(_) if first.is_some() => more += 1,
                Some(difference) => {
                    first = Some(ProofFault::Differs { service: wanted.proof.service.clone(), difference });
                }
            }
        }
        first.map_or(Ok(()), |first| Err((first, more)))
    }
}

fn first_line(run: &str) -> String {
    run.trim().lines().next().unwrap_or_default().chars().take(LINE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_that_differ_are_named_and_the_others_counted() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n").unwrap(), "line 2: `c`, and was `b`");
        assert_eq!(difference("a\n", "a\nc\n").unwrap(), "line 2: `c`, and was nothing");
        assert_eq!(difference("a", "a\n").unwrap(), "the end of its last line");
        let (was, is) = ("x\n".repeat(9), "y\n".repeat(9));
        assert!(difference(&was, &is).unwrap().ends_with("; and 6 lines more"));
        assert!(difference("", &"é".repeat(400)).unwrap().contains("é…`"));
    }

    #[test]
    fn what_a_baseline_keeps_of_its_proofs_reads_back_and_what_was_altered_does_not_count() {
        let proof = Proof { service: "db".into(), run: "print".into(), only_reads: false };
        let proofs = Proofs::new(std::slice::from_ref(&proof), &[]);
        for text in ["", "rows 7\n"] {
            let mut kept = proofs.proven(&[text.to_owned()]);
            assert_eq!(output_of(&kept[0]).as_deref(), Some(text));
            kept[0].digest = "0".repeat(64);
            assert_eq!(output_of(&kept[0]), None);
        }
        let same = ["a".to_owned()];
        assert_eq!(proofs.compare(&same, &same), Ok(()));
        let fault = proofs.compare(&same, &["b".to_owned()]).unwrap_err();
        assert_eq!(fault.to_string(), "the proof of `db` printed something else: line 1: `b`, and was `a`");
    }

    #[test]
    fn what_a_proof_prints_is_bounded() {
        let mut printed = Printed::default();
        let chunk = vec![b'x'; 100 << 10];
        for _ in 0..2 {
            printed.write(OutputStream::Stdout, &chunk);
            printed.write(OutputStream::Stderr, &chunk);
        }
        assert!(!printed.is_long);
        printed.write(OutputStream::Stdout, &chunk);
        assert!(printed.is_long);
        assert_eq!(
            (printed.output.len(), printed.complaints.len()),
            (PRINTED_BYTES_MAX, COMPLAINTS_BYTES_MAX)
        );
    }
}
