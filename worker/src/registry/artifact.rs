//! A baseline as an OCI artifact: what its manifest and its configuration say.
//!
//! ```text
//!   manifest (artifactType, labels as annotations) ──> config: keys, trees, which layers each is put together from
//!                                                  └─> a layer for each blob: tar.zst, a whole tree or changes of one
//! ```
//!
//! Pure. Invariant: the manifest names every blob that the baseline needs, its parent's too; no other artifact has to stay for
//! it to be whole.

use std::collections::{BTreeMap, BTreeSet};

use andon_proto::{BaselineLayer, BaselineManifest, BaselineTree};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use serde_json::json;

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.andon.baseline.v1";
/// Its configuration.
const CONFIG_TYPE: &str = "application/vnd.andon.baseline.config.v1+json";
/// A tree's files, or changes of them.
const LAYER_TYPE: &str = "application/vnd.andon.baseline.tree.v1.tar+zstd";
/// The layer's digest as the farm names it.
const BLAKE3: &str = "dev.andon.blake3";
/// Trees that the layer is part of.
const TREES: &str = "dev.andon.trees";

/// The layers of a tree, from the bottom.
pub(crate) fn layers_of(tree: &BaselineTree) -> impl Iterator<Item = BaselineLayer> {
    let top = BaselineLayer {
        blob_digest: tree.blob_digest.clone(),
        blob_size: tree.blob_size,
        sha256: tree.sha256.clone(),
    };
    tree.lower.iter().cloned().chain(std::iter::once(top))
}

/// As registries write it.
pub(crate) fn oci_digest(sha256: &str) -> String {
    format!("sha256:{sha256}")
}

/// The configuration's bytes.
pub(crate) fn config_of(baseline: &BaselineManifest) -> Vec<u8> {
    let trees = baseline.trees.iter().map(|tree| {
        let layers = layers_of(tree).map(|layer| oci_digest(&layer.sha256));
        json!({
            "name": tree.name,
            "digest": tree.tree_digest,
            "files": tree.files,
            "bytes": tree.bytes,
            "layers": layers.collect::<Vec<_>>(),
        })
    });
    let config = json!({
        "key": baseline.key,
        "project": baseline.project,
        "root_key": baseline.root_key,
        "parent_key": baseline.parent_key,
        "built_unix_ms": baseline.built_unix_ms,
        "trees": trees.collect::<Vec<_>>(),
    });
    serde_json::to_vec(&config).expect("plain data is JSON")
}

/// The manifest over a configuration of this digest and size. A blob that several trees share is named once.
pub(crate) fn manifest_of(
    baseline: &BaselineManifest,
    config_sha256: &str,
    config_size: usize,
) -> OciImageManifest {
    let mut users: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut order = Vec::new();
    for tree in &baseline.trees {
        for layer in layers_of(tree) {
            let trees = users.entry(layer.sha256.clone()).or_default();
            if trees.is_empty() {
                order.push(layer);
            }
            trees.insert(&tree.name);
        }
    }
    let layers = order.into_iter().map(|layer| {
        let trees: Vec<&str> = users[&layer.sha256].iter().copied().collect();
        let annotations = [(BLAKE3, layer.blob_digest.clone()), (TREES, trees.join(" "))];
        OciDescriptor {
            media_type: LAYER_TYPE.to_owned(),
            digest: oci_digest(&layer.sha256),
            size: signed(layer.blob_size),
            annotations: Some(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ..OciDescriptor::default()
        }
    });
    let labels = baseline.labels.iter().map(|label| (label.key.clone(), label.value.clone()));
    OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
        artifact_type: Some(ARTIFACT_TYPE.to_owned()),
        config: OciDescriptor {
            media_type: CONFIG_TYPE.to_owned(),
            digest: oci_digest(config_sha256),
            size: signed(config_size as u64),
            ..OciDescriptor::default()
        },
        layers: layers.collect(),
        annotations: Some(labels.collect()),
        ..OciImageManifest::default()
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::KeyValue;

    fn layer(name: &str, size: u64) -> BaselineLayer {
        BaselineLayer { blob_digest: format!("b-{name}"), blob_size: size, sha256: name.to_owned() }
    }

    fn tree(name: &str, lower: Vec<BaselineLayer>, top: &str) -> BaselineTree {
        let top = layer(top, 7);
        BaselineTree {
            name: name.to_owned(),
            blob_digest: top.blob_digest,
            blob_size: top.blob_size,
            sha256: top.sha256,
            tree_digest: "t".into(),
            lower,
            ..BaselineTree::default()
        }
    }

    #[test]
    fn a_manifest_names_every_blob_once_its_parents_too() {
        let baseline = BaselineManifest {
            key: "k".into(),
            trees: vec![
                tree("volume/data", vec![layer("whole", 9)], "changes"),
                tree("layer/db", vec![], "empty"),
                tree("layer/app", vec![], "empty"),
            ],
            labels: vec![KeyValue { key: "dev.andon.project".into(), value: "shop".into() }],
            ..BaselineManifest::default()
        };
        let config = config_of(&baseline);
        let manifest = manifest_of(&baseline, "c", config.len());
        let layers: Vec<(&str, i64)> =
            manifest.layers.iter().map(|layer| (layer.digest.as_str(), layer.size)).collect();
        assert_eq!(layers, [("sha256:whole", 9), ("sha256:changes", 7), ("sha256:empty", 7)]);
        let said = serde_json::to_value(&manifest).unwrap();
        assert_eq!(said["schemaVersion"], 2);
        assert_eq!(said["artifactType"], ARTIFACT_TYPE);
        assert_eq!(said["annotations"]["dev.andon.project"], "shop");
        assert_eq!(said["layers"][2]["annotations"][TREES], "layer/app layer/db");
        assert_eq!(said["layers"][1]["annotations"][BLAKE3], "b-changes");
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["trees"][0]["layers"], json!(["sha256:whole", "sha256:changes"]));
    }
}
