//! Who owns the tests of a run, and which of them are in quarantine: what its specification says of that, read once and remembered for the
//! runs that were looked at last.
//!
//! Whoever submitted the run read the commit; here are no git and no forge, so that a name is only a name. A specification stays in the
//! blob store for as long as its run is kept; where it is gone, or carries none, nobody owns anything. Nothing here fails: whose a test is
//! never keeps it from being shown.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use andon_core::quarantine::Quarantine;
use andon_figures::owners::{Dialect, Owners, file_of};
use andon_proto as wire;
use prost::Message;

use crate::blobs::{Blobs, Digest};
use crate::plan;

/// Specifications whose owners are remembered; the one that was read first goes.
const REMEMBERED_MAX: usize = 32;
/// Owners of one test that are told.
pub(crate) const OWNERS_OF_TEST_MAX: usize = 20;

/// Digests of specifications, and their owners; what was read last stands last.
type Remembered = VecDeque<(String, Arc<RunOwners>)>;

/// Reads and remembers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Owning {
    /// Where specifications are; `None` where there are none.
    blobs: Option<Blobs>,
    remembered: Arc<Mutex<Remembered>>,
}

/// The owners of one run's files.
#[derive(Debug)]
pub(crate) struct RunOwners {
    owners: Option<Owners>,
    quarantines: Vec<Quarantine>,
    is_silent: bool,
}

impl Owning {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self { blobs: Some(blobs), remembered: Arc::default() }
    }

    /// Of runs without specifications: nothing is said of who owns what.
    pub(crate) fn silent() -> Self {
        Self { blobs: None, remembered: Arc::default() }
    }

    /// Of the run that has this specification.
    pub(crate) async fn of(&self, spec_digest: &str) -> Arc<RunOwners> {
        if let Some(known) = self.known(spec_digest) {
            return known;
        }
        let Some(spec) = self.spec(spec_digest).await else {
            return Arc::new(RunOwners::silent());
        };
        // Large files take a while, and the runtime has others to serve.
        let read = tokio::task::spawn_blocking(move || RunOwners::of(&spec)).await;
        let read = Arc::new(read.expect("reading owners does not panic"));
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.push_back((spec_digest.to_owned(), Arc::clone(&read)));
        if remembered.len() > REMEMBERED_MAX {
            remembered.pop_front();
        }
        read
    }

    fn known(&self, spec_digest: &str) -> Option<Arc<RunOwners>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.iter().find(|(known, _)| known == spec_digest).map(|(_, owners)| Arc::clone(owners))
    }

    async fn spec(&self, digest: &str) -> Option<wire::RunSpec> {
        let bytes = self.blobs.as_ref()?.read(&Digest::parse(digest).ok()?).await.ok()?;
        wire::RunSpec::decode(bytes.as_slice()).ok()
    }
}

impl RunOwners {
    /// Of a run that says nothing of them.
    pub(crate) fn silent() -> Self {
        Self { owners: None, quarantines: Vec::new(), is_silent: true }
    }

    fn of(spec: &wire::RunSpec) -> Self {
        let is_silent = spec.asked.as_ref().is_some_and(|asked| asked.trial);
        let read = spec.owners.as_ref().and_then(|file| {
            let dialect = match file.rules() {
                wire::OwnersRules::Github => Dialect::GitHub,
                wire::OwnersRules::Gitlab => Dialect::GitLab,
                wire::OwnersRules::Unspecified => return None,
            };
            Owners::parse(&file.text, dialect).ok()
        });
        // A specification that is refused for them has no run.
        let quarantines = plan::quarantine_of(spec).unwrap_or_default();
        Self { owners: read, quarantines, is_silent }
    }

    /// It says nothing of whose its tests are from now on: its specification is gone, or it is an experiment, of which nothing is
    /// remembered.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Who owns the file of a test, in order; at most [`OWNERS_OF_TEST_MAX`].
    pub(crate) fn of_test(&self, id: &str) -> Vec<String> {
        match (&self.owners, file_of(id)) {
            (Some(owners), Some(file)) => owned(owners, file),
            _ => Vec::new(),
        }
    }

    /// The quarantine that a test is in, whether that holds or not.
    pub(crate) fn quarantine_of(&self, suite: &str, id: &str) -> Option<&Quarantine> {
        Quarantine::of(&self.quarantines, suite, id)
    }

    /// Who owns them, of many tests, each file looked up once.
    pub(crate) fn of_tests<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Vec<Vec<String>> {
        let Some(owners) = &self.owners else { return ids.map(|_| Vec::new()).collect() };
        let mut known: HashMap<&str, Vec<String>> = HashMap::new();
        let of = |id| match file_of(id) {
            Some(file) => known.entry(file).or_insert_with(|| owned(owners, file)).clone(),
            None => Vec::new(),
        };
        ids.map(of).collect()
    }
}

fn owned(owners: &Owners, file: &str) -> Vec<String> {
    let names = owners.all_of(file).into_iter().map(ToString::to_string);
    // No database and no page is given characters that are none.
    names.filter(|name| !name.contains(char::is_control)).take(OWNERS_OF_TEST_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> RunOwners {
        let rules = wire::OwnersRules::Github.into();
        let owners = wire::CodeOwners { path: "CODEOWNERS".into(), rules, text: text.into() };
        RunOwners::of(&wire::RunSpec { owners: Some(owners), ..wire::RunSpec::default() })
    }

    #[test]
    fn a_test_is_owned_by_whoever_owns_its_file() {
        let owners = run("* @all\ntests/cart/ @shop/cart ann@shop.example\n");
        assert_eq!(
            owners.of_test("tests/cart/test_a.py::test_x[a/b.py]"),
            ["@shop/cart", "ann@shop.example"]
        );
        assert_eq!(owners.of_test("tests/test_b.py::test_y"), ["@all"]);
        assert_eq!(owners.of_test("shop::till sells"), Vec::<String>::new(), "no file");
        let ids = ["tests/test_b.py::a", "plain", "tests/test_b.py::b"];
        let all = || vec!["@all".to_owned()];
        assert_eq!(owners.of_tests(ids.into_iter()), [all(), Vec::new(), all()]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_nobodys_and_what_was_read_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let owning = Owning::new(Blobs::open(folder.path().join("blobs")).expect("a folder for blobs"));
        let missing = "0".repeat(64);
        for digest in ["", "no digest", missing.as_str()] {
            assert!(owning.of(digest).await.of_test("a.py::b").is_empty(), "{digest}");
        }
        assert!(owning.known(&missing).is_none(), "it may come yet");
    }
}
