//! Every way to an image, over an engine and a farm in memory.

use std::fs;
use std::sync::Mutex;

use andon_proto::{KeyValue, SharedImage};
use tokio::sync::mpsc;

use super::*;
use crate::engine::fake::FakeEngine;
use andon_proto::work_failed::Class;

#[derive(Debug, Default)]
struct Shelf {
    images: Mutex<Vec<(String, SharedImage, Vec<u8>)>>,
    broken: bool,
}

#[async_trait]
impl ImageShelf for Shelf {
    async fn find(&self, reference: &str) -> Result<Option<SharedImage>, FarmError> {
        if self.broken {
            return Err(FarmError::Failed("no connection".to_owned()));
        }
        let images = self.images.lock().expect("sound");
        Ok(images.iter().find(|(name, ..)| name == reference).map(|(_, shared, _)| shared.clone()))
    }

    async fn fetch(&self, digest: &str, into: &Path) -> Result<(), FarmError> {
        let images = self.images.lock().expect("sound");
        let blob = images.iter().find(|(_, shared, _)| shared.blob_digest == digest);
        let (.., blob) = blob.ok_or_else(|| FarmError::NoBlob(digest.to_owned()))?;
        fs::write(into, blob).map_err(|error| FarmError::Failed(error.to_string()))
    }
}

struct Bench {
    engine: Arc<FakeEngine>,
    images: Images,
    notices: Notices,
    said: mpsc::Receiver<String>,
    folder: tempfile::TempDir,
}

fn bench(shelf: Shelf) -> Bench {
    let engine = FakeEngine::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let images = Images::new(engine.clone(), Arc::new(shelf), folder.path().join("scratch"));
    let (notices, said) = mpsc::channel(16);
    Bench { engine, images, notices, said, folder }
}

fn image(id: &str) -> ImageInfo {
    ImageInfo { id: format!("sha256:{id}"), ..ImageInfo::default() }
}

/// A farm that shares `reference`, promising this id; what the engine gets is called `loaded`.
fn sharing(reference: &str, promised: &str) -> Shelf {
    let shared = SharedImage {
        reference: reference.to_owned(),
        image_id: format!("sha256:{promised}"),
        blob_digest: "d1".to_owned(),
        blob_size: 3 << 20,
    };
    let blob = zstd::encode_all(&b"the image"[..], 1).expect("in memory");
    Shelf { images: Mutex::new(vec![(reference.to_owned(), shared, blob)]), ..Shelf::default() }
}

fn build(folder: &Path, dockerfile: &str) -> Image {
    fs::write(folder.join("Dockerfile"), dockerfile).expect("written");
    let build = Build { context: ".".to_owned(), ..Build::default() };
    Image { source: Some(Source::Build(build)) }
}

#[tokio::test]
async fn an_image_that_is_present_under_its_id_is_asked_of_nobody() {
    let bench = bench(Shelf { broken: true, ..Shelf::default() });
    bench.engine.add_image("x:1", image("a"));
    let found = bench.images.by_reference("sha256:a", &bench.notices).await.expect("present");
    assert_eq!(found.id, "sha256:a");
    assert_eq!(bench.engine.calls(), ["inspect-image sha256:a"]);
}

#[tokio::test]
async fn what_the_farm_shares_goes_before_what_is_here_under_the_same_name() {
    let mut bench = bench(sharing("db:1", "new"));
    bench.engine.add_image("db:1", image("old"));
    bench.engine.add_loadable(b"the image", "db:1", image("new"));
    let found = bench.images.by_reference("db:1", &bench.notices).await.expect("loaded");
    assert_eq!(found.id, "sha256:new");
    assert_eq!(bench.said.try_recv().expect("a notice"), "fetching image db:1 from the farm (3 MB)");
    let left = fs::read_dir(bench.folder.path().join("scratch")).expect("made").count();
    assert_eq!(left, 0, "the download is removed");

    bench.engine.clear_calls();
    bench.images.by_reference("db:1", &bench.notices).await.expect("present");
    assert_eq!(bench.engine.calls(), ["inspect-image sha256:new"], "not loaded again");
}

#[tokio::test]
async fn a_shared_image_that_is_another_than_promised_is_refused() {
    let bench = bench(sharing("db:1", "promised"));
    bench.engine.add_loadable(b"the image", "db:1", image("other"));
    let error = bench.images.by_reference("db:1", &bench.notices).await.expect_err("refused");
    let expected = "the farm's copy of image db:1 holds sha256:other, not sha256:promised";
    assert_eq!(error.to_string(), expected);
    assert_eq!(WorkFailure::from(error).class, Class::Infrastructure);
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_the_projects_fault_and_all_ways_are_named() {
    let bench = bench(Shelf::default());
    let failure: WorkFailure =
        bench.images.by_reference("db:1", &bench.notices).await.expect_err("nowhere").into();
    assert_eq!(failure.class, Class::Baseline);
    assert_eq!(
        failure.reason,
        "image db:1 cannot be had: the farm does not share it (`andon image add` does); this worker's engine does not have \
         it; cannot pull image db:1: not found: no such object"
    );
}

#[tokio::test]
async fn a_farm_that_cannot_be_asked_is_not_the_projects_fault() {
    let bench = bench(Shelf { broken: true, ..Shelf::default() });
    let failure: WorkFailure =
        bench.images.by_reference("db:1", &bench.notices).await.expect_err("nowhere").into();
    assert_eq!(failure.class, Class::Infrastructure);
}

#[tokio::test]
async fn an_image_of_a_registry_is_pulled_once_for_many() {
    let bench = bench(Shelf::default());
    bench.engine.add_to_registry("db:1", image("a"));
    let ask = || bench.images.by_reference("db:1", &bench.notices);
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    for found in [one, two, three] {
        assert_eq!(found.expect("pulled").id, "sha256:a");
    }
    let pulls = bench.engine.calls().iter().filter(|call| call.starts_with("pull")).count();
    assert_eq!(pulls, 1);
}

#[tokio::test]
async fn a_build_resolves_its_bases_and_is_built_once_for_many() {
    let bench = bench(Shelf::default());
    bench.engine.add_to_registry("base:1", image("base"));
    let source = tempfile::tempdir().expect("a temporary folder");
    let image = build(source.path(), "FROM base:1\n");
    let ask = || bench.images.resolve(&image, source.path(), &bench.notices);
    let (one, two) = tokio::join!(ask(), ask());
    let (one, two) = (one.expect("built"), two.expect("the same"));
    assert_eq!(one, two);
    assert_eq!(one.reference, ".");
    let calls = bench.engine.calls();
    let builds: Vec<&String> = calls.iter().filter(|call| call.starts_with("build-image")).collect();
    assert_eq!(builds, [&format!("build-image andon-build:{}", one.build_key)]);
}

#[tokio::test]
async fn the_key_of_a_build_changes_with_its_base_its_arguments_and_its_target() {
    let source = tempfile::tempdir().expect("a temporary folder");
    let key = async |base: &str, change: &dyn Fn(&mut Build)| {
        let bench = bench(Shelf::default());
        bench.engine.add_image("base:1", image(base));
        let mut image = build(source.path(), "FROM base:1 AS one\nFROM one AS two\n");
        let Some(Source::Build(build)) = &mut image.source else { unreachable!("it is a build") };
        change(build);
        bench.images.resolve(&image, source.path(), &bench.notices).await.expect("built").build_key
    };
    let plain = key("a", &|_| {}).await;
    assert_eq!(key("a", &|_| {}).await, plain);
    assert_ne!(key("b", &|_| {}).await, plain, "a base image moved");
    assert_ne!(key("a", &|build| build.target = "one".to_owned()).await, plain);
    let with_argument = |build: &mut Build| {
        build.args = vec![KeyValue { key: "A".to_owned(), value: "1".to_owned() }];
    };
    assert_ne!(key("a", &with_argument).await, plain);
}

#[tokio::test]
async fn a_build_that_fails_is_the_projects_fault_and_brings_its_log() {
    let bench = bench(Shelf::default());
    bench.engine.add_image("base:1", image("a"));
    bench.engine.fail_next_build("exit code 1", "Step 1\nboom\n");
    let source = tempfile::tempdir().expect("a temporary folder");
    let image = build(source.path(), "FROM base:1\nRUN boom\n");
    let failure = bench.images.resolve(&image, source.path(), &bench.notices).await.expect_err("fails");
    assert_eq!(failure.class, Class::Baseline);
    assert_eq!(failure.reason, "cannot build .: the image build failed: exit code 1");
    assert_eq!(failure.log, b"Step 1\nboom\n");
}

#[tokio::test]
async fn a_context_outside_the_source_is_refused_by_name() {
    let bench = bench(Shelf::default());
    let source = tempfile::tempdir().expect("a temporary folder");
    let build = Build { context: "../..".to_owned(), ..Build::default() };
    let image = Image { source: Some(Source::Build(build)) };
    let failure = bench.images.resolve(&image, source.path(), &bench.notices).await.expect_err("refused");
    assert_eq!(failure.class, Class::Baseline);
    assert_eq!(failure.reason, "cannot build ../..: \"../..\" is not beneath the source's root");
}
