//! One baseline, for a person. What comes from outside is escaped and bounded.

use andon_proto::{BaselineManifest, BaselineStepDone, BaselineTree, KeyValue};

use super::listing::table;
use super::text::cut;
use super::{json, words};

/// Longest command, label or name shown.
const VALUE_CHARS_MAX: usize = 100;
/// Longest address of an artifact shown: a host, a repository, a key, a digest.
const ARTIFACT_CHARS_MAX: usize = 500;

/// `andon baseline inspect`.
pub(crate) fn baseline(manifest: &BaselineManifest, now_unix_ms: u64) -> String {
    let shown = |text: &str| match text {
        "" => "nothing".to_owned(),
        text => cut(text, VALUE_CHARS_MAX),
    };
    let fact = |name: &str, value: String| vec![name.to_owned(), value];
    let built = words::ago(now_unix_ms, manifest.built_unix_ms);
    let size: u64 = manifest.trees.iter().map(|tree| tree.bytes).sum();
    let packed: u64 = manifest.trees.iter().map(json::packed).sum();
    let facts = [
        fact("project", shown(&manifest.project)),
        fact("built on", shown(&manifest.parent_key)),
        fact("root", shown(&manifest.root_key)),
        fact("built", format!("{built}, in {}", words::millis(manifest.build_ms))),
        fact("lies in", lies_in(manifest)),
        fact("size", format!("{}, {} packed", words::bytes(size), words::bytes(packed))),
    ];
    let mut said = table(&["baseline", &cut(&manifest.key, VALUE_CHARS_MAX)], &facts);
    if !manifest.steps.is_empty() {
        let rows: Vec<_> =
            manifest.steps.iter().enumerate().map(|(place, done)| step(manifest, place, done)).collect();
        said.push('\n');
        said.push_str(&table(&["STEP", "KEY", "TOOK", "FILES", "KEPT", "RAN"], &rows));
    }
    let rows: Vec<_> = manifest.trees.iter().map(tree).collect();
    said.push('\n');
    said.push_str(&table(&["TREE", "FILES", "SIZE", "LAYERS", "DIGEST"], &rows));
    said.push('\n');
    said.push_str(&table(&["LABEL", "VALUE"], &manifest.labels.iter().map(label).collect::<Vec<_>>()));
    said
}

/// A registry's artifact, or the coordinator's own store.
fn lies_in(manifest: &BaselineManifest) -> String {
    match manifest.artifact.as_str() {
        "" => "the coordinator's blob store".to_owned(),
        artifact => cut(artifact, ARTIFACT_CHARS_MAX),
    }
}

fn step(manifest: &BaselineManifest, place: usize, step: &BaselineStepDone) -> Vec<String> {
    let name = if step.name.is_empty() { (place + 1).to_string() } else { step.name.clone() };
    vec![
        cut(&name, VALUE_CHARS_MAX),
        cut(words::short(&step.key), VALUE_CHARS_MAX),
        words::millis(step.took_ms),
        if step.grows { format!("{}, grows", step.files.len()) } else { String::new() },
        if json::is_kept(manifest, place + 1) { "yes".to_owned() } else { "no".to_owned() },
        cut(&step.run.join(" && "), VALUE_CHARS_MAX),
    ]
}

/// Layers from the bottom: the whole tree, then changes.
fn tree(tree: &BaselineTree) -> Vec<String> {
    let lower = tree.lower.iter().map(|layer| layer.blob_size);
    let layers: Vec<String> = lower.chain([tree.blob_size]).map(words::bytes).collect();
    vec![
        cut(&tree.name, VALUE_CHARS_MAX),
        tree.files.to_string(),
        words::bytes(tree.bytes),
        layers.join(" + "),
        cut(words::short(&tree.tree_digest), VALUE_CHARS_MAX),
    ]
}

fn label(label: &KeyValue) -> Vec<String> {
    let value = label.value.replace('\n', "; ");
    vec![cut(&label.key, VALUE_CHARS_MAX), cut(&value, VALUE_CHARS_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::{BaselineLayer, BaselinePrefix};

    #[test]
    fn an_inspection_says_parent_steps_layers_and_labels() {
        let step = |key: &str, name: &str, run: &str, took_ms| BaselineStepDone {
            key: key.repeat(64),
            name: name.to_owned(),
            run: vec![run.to_owned()],
            took_ms,
            ..BaselineStepDone::default()
        };
        let mut migrate = step("c", "", "alembic upgrade head", 800);
        (migrate.grows, migrate.files) = (true, vec![Default::default(); 3]);
        let lower =
            BaselineLayer { blob_digest: "b".repeat(64), blob_size: 21 << 20, ..BaselineLayer::default() };
        let manifest = BaselineManifest {
            key: "c".repeat(64),
            project: "shop".into(),
            parent_key: "b".repeat(64),
            root_key: "a".repeat(64),
            steps: vec![step("b", "load", "python3 -m db.seed\u{1b}[31m", 41_000), migrate],
            trees: vec![BaselineTree {
                name: "volume/data".into(),
                files: 190,
                bytes: 290 << 20,
                blob_size: 300 << 10,
                lower: vec![lower],
                tree_digest: "d".repeat(64),
                ..BaselineTree::default()
            }],
            labels: vec![KeyValue { key: "team".into(), value: "blue\ngreen".into() }],
            prefixes: vec![BaselinePrefix { steps: 1, ..BaselinePrefix::default() }],
            built_unix_ms: 1_000,
            build_ms: 2_300,
            ..BaselineManifest::default()
        };
        insta::assert_snapshot!(baseline(&manifest, 61_000), @r"
        baseline  cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
        project   shop
        built on  bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
        root      aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        built     1 min ago, in 2.3 s
        lies in   the coordinator's blob store
        size      304.0 MB, 22.3 MB packed

        STEP  KEY           TOOK    FILES     KEPT  RAN
        load  bbbbbbbbbbbb  41.0 s            yes   python3 -m db.seed\x1b[31m
        2     cccccccccccc  800 ms  3, grows  yes   alembic upgrade head

        TREE         FILES  SIZE      LAYERS              DIGEST
        volume/data  190    304.0 MB  22.0 MB + 307.2 kB  dddddddddddd

        LABEL  VALUE
        team   blue; green
        ");
        let json = serde_json::to_value(json::baseline(&manifest)).unwrap();
        assert_eq!(json["artifact"], serde_json::Value::Null);
        let elsewhere = BaselineManifest { artifact: "h:5000/andon:k@sha256:d".into(), ..manifest.clone() };
        assert!(baseline(&elsewhere, 61_000).contains("lies in   h:5000/andon:k@sha256:d\n"));
        assert_eq!(json::baseline(&elsewhere).artifact.as_deref(), Some("h:5000/andon:k@sha256:d"));
        assert_eq!(json["steps"][1]["files"], 3);
        assert_eq!(
            (&json["steps"][0]["kept"], json["trees"][0]["layers"].as_array().unwrap().len()),
            (&true.into(), 2)
        );
        assert_eq!(json["blob_bytes"], (21 << 20) + (300 << 10));
    }
}
