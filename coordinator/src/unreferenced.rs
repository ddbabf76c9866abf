//! Sources and specifications that no kept run refers to leave the blob store.
//!
//! ```text
//!   forgotten runs, page by page ──> their specifications that are still there
//!        └── no kept run has this one ──> its source, unless a kept run's specification names it ──> then itself
//! ```
//!
//! Must not know how blobs lie on disk. Invariants: a source goes before the specification that names it, so that what a
//! crash leaves half-done is found again; nothing goes that somebody was told is here within
//! [`crate::blobs::GRACE`]: a run that is being submitted finds what it was promised.

use std::collections::{HashMap, HashSet};

use andon_core::ids::RunId;
use andon_proto::RunSpec;
use prost::Message as _;

use crate::blobs::{BlobError, Blobs, Digest, Removed};
use crate::store::{Store, StoreError};

/// Runs that are looked at in one question.
const PAGE: u32 = 1_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error("cannot list runs")]
    Store(#[from] StoreError),
    #[error("cannot look into the blob store")]
    Blobs(#[from] BlobError),
}

/// How far it has come. Made anew at each start of the coordinator: then it looks at all of them once.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// Forgotten runs up to this one left nothing.
    done: RunId,
    /// What specifications name as their source.
    sources: HashMap<String, Option<String>>,
}

impl Sweep {
    pub(crate) fn new() -> Self {
        Self { done: RunId(0), sources: HashMap::new() }
    }

    /// Deletes what it can; answers with how many blobs that were.
    pub(crate) async fn step(&mut self, store: &dyn Store, blobs: &Blobs) -> Result<u64, SweepError> {
        let mut kept = None;
        let mut removed = 0;
        loop {
            let page = store.specifications(true, self.done, PAGE).await?;
            let Some((last, _)) = page.last().cloned() else { return Ok(removed) };
            for (run, spec) in page {
                let Ok(digest) = Digest::parse(&spec) else { continue };
                if !blobs.is_there(&digest).await {
                    continue;
                }
                if kept.is_none() {
                    kept = Some(self.kept(store, blobs).await?);
                }
                let kept = kept.as_ref().expect("it was just filled");
                let (gone, is_done) = self.remove(blobs, &digest, kept).await?;
                removed += gone;
                if !is_done {
                    // Too young: from here on again the next time.
                    self.done = RunId(run.0.saturating_sub(1));
                    return Ok(removed);
                }
            }
            self.done = last;
        }
    }

    /// Everything that runs which are not forgotten refer to.
    async fn kept(&mut self, store: &dyn Store, blobs: &Blobs) -> Result<HashSet<String>, SweepError> {
        let mut kept = HashSet::new();
        let mut after = RunId(0);
        loop {
            let page = store.specifications(false, after, PAGE).await?;
            let Some((last, _)) = page.last().cloned() else { break };
            after = last;
            for (_, spec) in page {
                if !kept.contains(&spec) {
                    kept.extend(self.source_of(blobs, &spec).await?);
                    kept.insert(spec);
                }
            }
        }
        self.sources.retain(|spec, _| kept.contains(spec));
        Ok(kept)
    }

    /// `None` where the specification is not here, or cannot be read.
    async fn source_of(&mut self, blobs: &Blobs, spec: &str) -> Result<Option<String>, BlobError> {
        if let Some(known) = self.sources.get(spec) {
            return Ok(known.clone());
        }
        let source = match Digest::parse(spec) {
            Ok(digest) => match blobs.read(&digest).await {
                Ok(bytes) => RunSpec::decode(bytes.as_slice()).ok().map(|spec| spec.source_digest),
                Err(BlobError::Missing(_) | BlobError::TooLarge(_)) => None,
                Err(error) => return Err(error),
            },
            Err(_) => None,
        };
        self.sources.insert(spec.to_owned(), source.clone());
        Ok(source)
    }

    /// A forgotten run's specification and its source; how many went, and whether nothing is left to do for it.
    async fn remove(
        &mut self,
        blobs: &Blobs,
        spec: &Digest,
        kept: &HashSet<String>,
    ) -> Result<(u64, bool), SweepError> {
        if kept.contains(spec.as_str()) {
            return Ok((0, true));
        }
        let source = self.source_of(blobs, spec.as_str()).await?;
        self.sources.remove(spec.as_str());
        let mut removed = 0;
        let source = source.filter(|source| !kept.contains(source));
        for digest in source.and_then(|source| Digest::parse(&source).ok()).iter().chain([spec]) {
            match blobs.remove_unheld(digest).await? {
                Removed::Gone => removed += 1,
                Removed::Absent => {}
                Removed::Held => return Ok((removed, false)),
            }
        }
        Ok((removed, true))
    }
}

#[cfg(test)]
mod tests {
    use andon_core::model::{Record, RunEnd, RunHeader, RunState};

    use super::*;
    use crate::blobs::GRACE;
    use crate::store::memory::Memory;

    async fn put(blobs: &Blobs, bytes: &[u8]) -> String {
        let digest = blake3::hash(bytes).to_hex().to_string();
        let mut incoming = blobs.begin(Digest::parse(&digest).unwrap()).await.unwrap();
        incoming.write(bytes).await.unwrap();
        incoming.finish().await.unwrap();
        digest
    }

    async fn spec(blobs: &Blobs, project: &str, source_digest: &str) -> String {
        let spec = RunSpec {
            project: project.to_owned(),
            source_digest: source_digest.to_owned(),
            ..RunSpec::default()
        };
        put(blobs, &spec.encode_to_vec()).await
    }

    async fn ran(store: &Memory, run: u64, spec_digest: &str, at_unix_ms: u64) {
        let (run, state) = (RunId(run), RunState::Ended(RunEnd::Passed));
        let header = RunHeader { spec_digest: spec_digest.to_owned(), ..RunHeader::default() };
        let records = [
            Record::RunCreated { run, header, at_unix_ms },
            Record::RunMoved { run, state, reason: String::new(), at_unix_ms },
        ];
        store.apply(&records).await.unwrap();
    }

    async fn is_there(blobs: &Blobs, digest: &str) -> bool {
        blobs.is_there(&Digest::parse(digest).unwrap()).await
    }

    /// Runs 1 and 2 are forgotten; run 3 is kept, and has the source of run 2 by another specification.
    async fn farm(blobs: &Blobs) -> (Memory, [String; 5]) {
        let store = Memory::default();
        let (old, shared) = (put(blobs, b"old source").await, put(blobs, b"shared source").await);
        let specs = [
            spec(blobs, "one", &old).await,
            spec(blobs, "two", &shared).await,
            spec(blobs, "three", &shared).await,
        ];
        for (run, spec) in (1..).zip(&specs) {
            ran(&store, run, spec, 10 * run).await;
        }
        while store.forget(25, 100).await.unwrap().is_more {}
        let [one, two, three] = specs;
        (store, [old, shared, one, two, three])
    }

    #[tokio::test]
    async fn only_what_no_kept_run_refers_to_goes_and_not_before_the_grace() {
        let folder = tempfile::tempdir().unwrap();
        let mut blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        let (store, [old, shared, one, two, three]) = farm(&blobs).await;
        let other = put(&blobs, b"an image, which no run speaks of").await;
        let mut sweep = Sweep::new();
        assert_eq!(sweep.step(&store, &blobs).await.unwrap(), 0, "all of it is too young");

        blobs.age(GRACE * 2);
        assert_eq!(sweep.step(&store, &blobs).await.unwrap(), 3);
        for gone in [&old, &one, &two] {
            assert!(!is_there(&blobs, gone).await);
        }
        for kept in [&shared, &three, &other] {
            assert!(is_there(&blobs, kept).await);
        }
        assert_eq!(sweep.step(&store, &blobs).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_was_just_told_that_a_source_is_here_finds_it_here() {
        let folder = tempfile::tempdir().unwrap();
        let mut blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        let (store, [old, _, one, two, _]) = farm(&blobs).await;
        blobs.age(GRACE * 2);
        // A submit of the same commit as run 1: its source need not be sent again.
        assert!(blobs.has(&Digest::parse(&old).unwrap()).await);
        let mut sweep = Sweep::new();
        assert_eq!(sweep.step(&store, &blobs).await.unwrap(), 0);
        assert!(is_there(&blobs, &old).await && is_there(&blobs, &one).await);

        // It became a run meanwhile: the source stays for good, and what else is left goes.
        ran(&store, 4, &spec(&blobs, "four", &old).await, 40).await;
        blobs.age(GRACE * 2);
        assert_eq!(sweep.step(&store, &blobs).await.unwrap(), 2);
        assert!(
            is_there(&blobs, &old).await && !is_there(&blobs, &one).await && !is_there(&blobs, &two).await
        );
    }
}
