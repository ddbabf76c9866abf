//! Is a stand what its baseline says? And where it is not: what differs, and who is told.
//!
//! Knows the stand's trees; must not know sessions or leases. Invariants: trees are compared while nothing runs on them; what is
//! told is bounded; that nobody takes it never holds a rebase up.

use andon_proto::{Inexact, InexactPart};
use andon_snapshot::{Change, Difference, LaneClone, PoolError, TreeChanges};
use tokio::sync::mpsc;

use super::{LayerWork, Stand, StandFault};
use crate::clock;
use crate::hands::blocking;

/// Paths and lines of one stand that are told; the others are counted.
const PARTS_MAX: usize = 20;
/// The longest text about one of them, in bytes.
const TEXT_BYTES_MAX: usize = 500;

/// Who is told of stands that are not exact. What does not fit its queue is lost but for the log.
#[derive(Debug, Clone)]
pub(crate) struct Teller(pub(crate) mpsc::Sender<Inexact>);

/// Whose unit was on a stand last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// 0 for nobody's.
    pub(crate) run: u64,
    pub(crate) suite: String,
}

impl StandFault {
    /// Whether the stand was put back, and is not what it should be: trying the same again proves nothing.
    pub(crate) fn is_inexact(&self) -> bool {
        matches!(self, Self::Different(_) | Self::Unproven(_))
    }

    /// What differs, where that is the fault.
    pub(crate) fn part(&self) -> Option<InexactPart> {
        match self {
            Self::Different(difference) => Some(part_of(difference)),
            Self::Unproven(fault) => {
                let (r#where, difference) = (format!("proof/{}", fault.service()), fault.to_string());
                Some(InexactPart { r#where, what: String::new(), difference })
            }
            _ => None,
        }
    }
}

impl Stand {
    /// A unit is on it from now on.
    pub(crate) fn used_by(&mut self, user: &User) {
        self.user.clone_from(user);
    }

    /// Compares all trees with the baseline. `deep`: every byte. On a difference it is told, too.
    pub(super) async fn verify(&self, how: &str, deep: bool) -> Result<(), StandFault> {
        let (clone, written, work) = (self.clone.clone(), self.written.clone(), self.layer_work());
        let verified = blocking(move || {
            if deep {
                return verify_deep(&clone, written.as_deref(), &work);
            }
            clone.verify()?;
            written.map_or(Ok(()), |written| written.verify())?;
            work.layers.iter().try_for_each(|(tree, layer)| work.pool.verify_in(&work.baseline, tree, layer))
        });
        let Err(difference) = verified.await? else { return Ok(()) };
        let (parts, left_out) = self.parts_of(&difference).await;
        self.tell(how, deep, parts, left_out);
        Err(difference.into())
    }

    /// The difference that was found first, and what else differs.
    async fn parts_of(&self, first: &Difference) -> (Vec<InexactPart>, u64) {
        let mut parts = vec![part_of(first)];
        let (clone, work) = (self.clone.clone(), self.layer_work());
        let compared = blocking(move || {
            let volumes = work
                .baseline
                .trees()
                .iter()
                .filter_map(|tree| Some((&tree.name, clone.path(&tree.name).ok()?)));
            let layers = work.layers.iter().map(|(tree, layer)| (tree, layer.clone()));
            let compared = volumes.chain(layers).map(|(tree, place)| {
                Ok::<_, PoolError>(work.pool.changes_of(&work.baseline, tree, &place, PARTS_MAX)?.trees)
            });
            compared.collect::<Result<Vec<_>, _>>()
        });
        let mut left_out = 0;
        match compared.await {
            Ok(Ok(trees)) => {
                for tree in trees.into_iter().flatten() {
                    left_out += tree.left_out;
                    parts.extend(parts_of_tree(&tree));
                }
            }
            // What was found first is told, at least.
            Ok(Err(error)) => tracing::warn!(%error, "comparing a stand that is not exact"),
            Err(error) => tracing::warn!(%error, "comparing a stand that is not exact"),
        }
        let (place, path) = (parts[0].r#where.clone(), parts[0].what.clone());
        let mut is_first = true;
        parts.retain(|part| std::mem::take(&mut is_first) || (&part.r#where, &part.what) != (&place, &path));
        left_out += parts.len().saturating_sub(PARTS_MAX) as u64;
        parts.truncate(PARTS_MAX);
        (parts, left_out)
    }

    /// Says that this stand is not exact.
    pub(super) fn tell(&self, how: &str, deep: bool, mut parts: Vec<InexactPart>, left_out: u64) {
        for part in &mut parts {
            for text in [&mut part.what, &mut part.difference] {
                text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            }
        }
        tracing::warn!(lane = self.ground.lane, how, deep, ?parts, left_out, "a stand is not exact");
        // Where baselines are made and checked there is no lane.
        let (Some(teller), Ok(lane)) = (&self.ground.teller, self.ground.lane.parse()) else { return };
        let inexact = Inexact {
            id: format!("{:032x}", rand::random::<u128>()),
            lane,
            run: self.user.run,
            suite: self.user.suite.clone(),
            baseline_key: self.ground.baseline.key().to_owned(),
            driver: how.to_owned(),
            deep,
            parts,
            left_out,
            unix_ms: clock::unix_ms(),
        };
        if teller.0.try_send(inexact).is_err() {
            tracing::warn!(lane, "too much is to be told at once: the coordinator does not hear of this one");
        }
    }
}

/// A difference, to be told.
pub(crate) fn part_of(difference: &Difference) -> InexactPart {
    let text = difference.to_string();
    let prefix = format!("tree `{}`: `/{}` ", difference.tree, difference.path);
    let mut said = text.strip_prefix(&prefix).unwrap_or(&text).to_owned();
    if let Change::Content { .. } = difference.change {
        said.push_str(", though its size and time are the baseline's");
    }
    InexactPart { r#where: difference.tree.clone(), what: difference.path.clone(), difference: said }
}

fn parts_of_tree(tree: &TreeChanges) -> impl Iterator<Item = InexactPart> {
    tree.files.iter().map(|file| InexactPart {
        r#where: tree.tree.clone(),
        what: file.path.to_string_lossy().into_owned(),
        difference: format!("{} ({} bytes)", word(file.change), file.bytes),
    })
}

fn word(change: andon_snapshot::ChangeKind) -> String {
    format!("{change:?}").to_lowercase()
}

/// As the ordinary check, and every byte besides. Nothing runs on the trees yet.
fn verify_deep(clone: &LaneClone, written: Option<&LaneClone>, work: &LayerWork) -> Result<(), Difference> {
    clone.verify_deep()?;
    written.map_or(Ok(()), LaneClone::verify_deep)?;
    let layers = work.layers.iter();
    layers.into_iter().try_for_each(|(tree, layer)| work.pool.verify_deep_in(&work.baseline, tree, layer))?;
    note_exact(clone.lane());
    Ok(())
}

/// For whoever counts how often all of a lane was looked at.
pub(super) fn note_exact(lane: &str) {
    tracing::info!(lane, "a deep check found every byte in place");
}
