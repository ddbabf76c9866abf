//! Against a real registry: what goes over the wire, and what is made of what comes back.

use std::path::Path;

use super::testing::{PASSWORD, TestRegistry, USER, uploads};
use super::*;

/// Nothing that could be guessed or made smaller.
fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
    noise
}

fn written(dir: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, bytes).unwrap();
    file
}

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_blob_is_sent_once_and_comes_back_as_it_was() {
    let (registry, dir) = (TestRegistry::start().await, tempfile::tempdir().unwrap());
    let client = registry.client().await;
    client.greet().await.unwrap();
    let bytes = noise(1, 2 * MIB);
    let file = written(dir.path(), "blob", &bytes);
    let (layer, sent) = client.put_blob(&file).await.unwrap();
    assert!(sent && layer.blob_size == bytes.len() as u64);
    assert_eq!(layer.blob_digest, blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(std::fs::read(registry.blob_file(&layer.sha256)).unwrap(), bytes);
    assert_eq!(uploads(&registry.asked()), 1);
    // Another worker has the same.
    let (again, sent) = registry.client().await.put_blob(&file).await.unwrap();
    assert_eq!((again, sent, uploads(&registry.asked())), (layer.clone(), false, 0));

    let part = dir.path().join("part");
    client.resume_blob(&layer, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
}

#[tokio::test]
async fn an_interrupted_download_goes_on_at_its_byte() {
    let (registry, dir) = (TestRegistry::start().await, tempfile::tempdir().unwrap());
    let client = registry.client().await;
    let bytes = noise(2, 4 * MIB);
    let (layer, _) = client.put_blob(&written(dir.path(), "blob", &bytes)).await.unwrap();
    let part = dir.path().join("part");
    // Within one call: the wire breaks, the rest is asked for.
    registry.asked();
    registry.cut_after(MIB);
    client.resume_blob(&layer, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
    let gets: Vec<String> =
        registry.asked().into_iter().filter(|head| head.contains("/blobs/sha256:")).collect();
    let began = |head: &String| {
        let (_, range) = head.split_once("range: bytes=").expect("a range is asked for");
        range.split('-').next().unwrap().parse::<usize>().unwrap()
    };
    let began: Vec<usize> = gets.iter().map(began).collect();
    assert_eq!((began.len(), began[0]), (2, 0), "{gets:?}");
    assert!((MIB / 2..=MIB).contains(&began[1]), "{began:?}");

    // In another life of the worker: what the first left is not fetched again.
    std::fs::write(&part, &bytes[..3 * MIB]).unwrap();
    registry.client().await.resume_blob(&layer, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
    let asked = registry.asked();
    let range = format!("range: bytes={}-", 3 * MIB);
    assert!(asked.iter().any(|head| head.contains(&range)), "{asked:?}");
}

#[tokio::test]
async fn a_registry_that_stays_away_keeps_the_part_and_the_rest_comes_when_it_is_back() {
    let (mut registry, dir) = (TestRegistry::start().await, tempfile::tempdir().unwrap());
    let client = registry.client().await;
    let bytes = noise(3, 2 * MIB);
    let (layer, _) = client.put_blob(&written(dir.path(), "blob", &bytes)).await.unwrap();
    let part = written(dir.path(), "part", &bytes[..MIB]);
    registry.go_away().await;
    let error = client.resume_blob(&layer, &part).await.unwrap_err();
    assert!(matches!(error, RegistryError::Away { .. }), "{error}");
    assert!(
        error.to_string().starts_with(&format!("the registry {} is away: ", client.address())),
        "{error}"
    );
    assert_eq!(std::fs::metadata(&part).unwrap().len(), MIB as u64);
    assert!(matches!(client.greet().await.unwrap_err(), RegistryError::Away { .. }));
    assert!(!client.has_lost("k").await, "away is not gone");
    registry.come_back().await;
    client.resume_blob(&layer, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
}

#[tokio::test]
async fn a_damaged_a_shortened_or_a_lengthened_blob_is_refused_and_removed() {
    let (registry, dir) = (TestRegistry::start().await, tempfile::tempdir().unwrap());
    let client = registry.client().await;
    let bytes = noise(4, MIB);
    let (layer, _) = client.put_blob(&written(dir.path(), "blob", &bytes)).await.unwrap();
    let part = dir.path().join("part");

    let mut damaged = bytes.clone();
    damaged[MIB / 2] ^= 1;
    std::fs::write(registry.blob_file(&layer.sha256), &damaged).unwrap();
    let error = client.resume_blob(&layer, &part).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Failed(said) if said.contains("damaged there")), "{error}");
    assert!(!part.exists());

    // A part of other bytes spoils what is put behind it.
    std::fs::write(registry.blob_file(&layer.sha256), &bytes).unwrap();
    std::fs::write(&part, &damaged[..MIB * 3 / 4]).unwrap();
    client.resume_blob(&layer, &part).await.unwrap_err();
    assert!(!part.exists());
    client.resume_blob(&layer, &part).await.unwrap();

    std::fs::remove_file(&part).unwrap();
    let mut longer = bytes.clone();
    longer.push(0);
    std::fs::write(registry.blob_file(&layer.sha256), &longer).unwrap();
    let error = client.resume_blob(&layer, &part).await.unwrap_err();
    assert!(error.to_string().contains("more than the 1048576 bytes"), "{error}");
    assert!(!part.exists());

    std::fs::write(registry.blob_file(&layer.sha256), &bytes[..MIB / 2]).unwrap();
    client.resume_blob(&layer, &part).await.unwrap_err();
    assert!(std::fs::metadata(&part).map_or(true, |part| part.len() < MIB as u64), "never taken for whole");
}

#[tokio::test]
async fn wrong_credentials_are_told_with_who_was_refused_and_never_tried_again() {
    let (registry, dir) = (TestRegistry::start_with_login().await, tempfile::tempdir().unwrap());
    let right = registry.client_with(USER, PASSWORD).await;
    right.greet().await.unwrap();
    let file = written(dir.path(), "blob", &noise(5, 1000));
    let (layer, sent) = right.put_blob(&file).await.unwrap();
    assert!(sent);

    for (client, who) in [
        (registry.client_with(USER, "guess").await, "refuses user \"farm\": "),
        (registry.client().await, "refuses access without credentials: "),
    ] {
        let part = dir.path().join("part");
        let calls = [
            client.greet().await.unwrap_err(),
            client.put_blob(&file).await.unwrap_err(),
            client.resume_blob(&layer, &part).await.unwrap_err(),
        ];
        for error in calls {
            assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
            assert!(error.to_string().contains(who) && !error.to_string().contains("guess"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_baseline_becomes_an_artifact_under_its_key_and_its_loss_is_seen() {
    let (registry, dir) = (TestRegistry::start().await, tempfile::tempdir().unwrap());
    let client = registry.client().await;
    let (layer, _) = client.put_blob(&written(dir.path(), "blob", &noise(6, 5000))).await.unwrap();
    let key = "ab".repeat(32);
    let baseline = BaselineManifest {
        key: key.clone(),
        trees: vec![andon_proto::BaselineTree {
            name: "volume/data".into(),
            blob_digest: layer.blob_digest.clone(),
            blob_size: layer.blob_size,
            sha256: layer.sha256.clone(),
            ..Default::default()
        }],
        ..BaselineManifest::default()
    };
    assert!(client.has_lost(&key).await);
    let address = client.put_artifact(&baseline).await.unwrap();
    assert!(address.starts_with(&format!("{}:{key}@sha256:", client.address())), "{address}");
    assert!(!client.has_lost(&key).await);
    // As any other tool sees it.
    let (manifest, digest) = client
        .client
        .pull_manifest_raw(&client.reference(&key), &RegistryAuth::Anonymous, &[OCI_IMAGE_MEDIA_TYPE])
        .await
        .unwrap();
    assert!(address.ends_with(&digest));
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["artifactType"], ARTIFACT_TYPE);
    assert_eq!(manifest["layers"][0]["digest"], format!("sha256:{}", layer.sha256));

    // A manifest that names what is not there is not taken.
    let mut torn = baseline;
    torn.trees[0].sha256 = "0".repeat(64);
    let error = client.put_artifact(&torn).await.unwrap_err();
    assert!(!matches!(error, RegistryError::Away { .. }), "{error}");
    registry.purge();
    assert!(client.has_lost(&key).await);
}
