//! Archives: what goes out comes back, and what is hostile is refused by name.

use std::fs;
use std::io::Write as _;

use andon_snapshot::{
    Baseline, ImportLimits, ImportRefusal, Pool, PoolError, PoolKind, PoolOptions, digest_of,
};
use tar::{EntryType, Header};

use crate::ground::{Ground, assert_layers_attributes, noise, plant_layer, plant_volume};

fn plain_pool(ground: &Ground, import: ImportLimits) -> Pool {
    let options = PoolOptions { kind: Some(PoolKind::Copy), import, ..PoolOptions::default() };
    Pool::open(ground.root(), options).unwrap()
}

fn exported(baseline: &Baseline, tree: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    baseline.export(tree, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_tree_comes_back_with_its_digest_and_the_same_bytes_on_another_kind_of_pool() {
    let one = Ground::for_kind(PoolKind::Reflink);
    let pool = one.open(PoolKind::Reflink);
    let (volume, layer) = (one.outside("volume"), one.outside("layer"));
    plant_volume(&volume);
    plant_layer(&layer);
    let mut staging = pool.stage("k").unwrap();
    staging.capture("volume/data", &volume).unwrap();
    staging.capture("layer/db", &layer).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();

    let two = Ground::plain();
    let other = plain_pool(&two, ImportLimits::default());
    let mut staging = other.stage("k").unwrap();
    for tree in ["volume/data", "layer/db"] {
        staging.import(tree, &exported(&baseline, tree)[..]).unwrap();
    }
    let back = staging.publish(serde_json::Value::Null).unwrap();
    assert_eq!(back.trees(), baseline.trees());
    back.check().unwrap();
    for tree in ["volume/data", "layer/db"] {
        assert_eq!(exported(&back, tree), exported(&baseline, tree), "{tree}");
    }
    // Times are no part of the digest, but they came along, and holes are holes again.
    let lane = other.clone_lane("0", &back).unwrap();
    let tree = lane.path("layer/db").unwrap();
    assert_layers_attributes(&tree);
    let time = |path: std::path::PathBuf| fs::symlink_metadata(path).unwrap().modified().unwrap();
    assert_eq!(time(tree.join("etc/passwd")), time(layer.join("etc/passwd")));
    let sparse = fs::metadata(tree.join("sparse")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&sparse) * 512 < 1 << 20);
}

/// What a database does to its folder: pages change, a file grows, one shrinks, some come and go.
fn migrate(volume: &std::path::Path) {
    use std::os::unix::fs::FileExt as _;
    let open = |name: &str| {
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(volume.join(name)).unwrap()
    };
    open("big.ibd").write_all_at(b"a changed page", 5 << 20).unwrap();
    open("grows.ibd").write_all_at(&[7; 9000], (1 << 20) - 100).unwrap();
    open("shrinks.ibd").set_len(5000).unwrap();
    open("new.ibd").write_all_at(&[9; 70_000], 0).unwrap();
    let _ = fs::remove_file(volume.join("gone.ibd"));
    let _ = fs::remove_dir_all(volume.join("was-a-folder"));
    fs::write(volume.join("was-a-folder"), "is a file").unwrap();
}

/// A baseline of a database's folder, and two more, each made from the one before.
fn three_generations(ground: &Ground, pool: &Pool) -> Vec<Baseline> {
    let volume = ground.outside("volume");
    plant_volume(&volume);
    for (name, size) in
        [("big.ibd", 8 << 20), ("grows.ibd", 1 << 20), ("shrinks.ibd", 1 << 20), ("gone.ibd", 5)]
    {
        // Bytes that zstd cannot make small.
        fs::write(volume.join(name), noise(1, size)).unwrap();
    }
    fs::create_dir(volume.join("was-a-folder")).unwrap();
    fs::write(volume.join("was-a-folder/in it"), "x").unwrap();
    let mut made = Vec::new();
    for key in ["one", "two", "three"] {
        let mut staging = pool.stage(key).unwrap();
        staging.capture("volume/data", &volume).unwrap();
        made.push(staging.publish(serde_json::Value::Null).unwrap());
        if key == "one" {
            migrate(&volume);
        } else {
            fs::write(volume.join("later"), "of the third").unwrap();
        }
    }
    made
}

#[test]
fn a_tree_told_as_changes_is_small_and_comes_back_exact_on_every_kind_of_pool() {
    let one = Ground::for_kind(PoolKind::Reflink);
    let pool = one.open(PoolKind::Reflink);
    let made = three_generations(&one, &pool);
    let changes = |below: &Baseline, of: &Baseline| {
        let mut bytes = Vec::new();
        of.export_on("volume/data", below, &mut bytes).unwrap();
        bytes
    };
    let layers =
        [exported(&made[0], "volume/data"), changes(&made[0], &made[1]), changes(&made[1], &made[2])];
    assert!(layers[0].len() > 10 << 20 && layers[1].len() < 128 << 10 && layers[2].len() < 32 << 10);
    assert_eq!(layers[1], changes(&made[0], &made[1]), "the same bytes for the same trees");

    for kind in [PoolKind::Reflink, PoolKind::Btrfs, PoolKind::Overlay, PoolKind::Copy] {
        let two = Ground::for_kind(kind);
        let other = two.open(kind);
        // From nothing, and from what is here already.
        let mut staging = other.stage("one").unwrap();
        staging.import_layers("volume/data", None, layers[..1].iter().map(Vec::as_slice)).unwrap();
        let base = staging.publish(serde_json::Value::Null).unwrap();
        for (key, base, layers) in
            [("three", None, &layers[..]), ("on", Some(&base), &layers[1..]), ("same", Some(&base), &[])]
        {
            let mut staging = other.stage(key).unwrap();
            staging.import_layers("volume/data", base, layers.iter().map(Vec::as_slice)).unwrap();
            let back = staging.publish(serde_json::Value::Null).unwrap();
            let wanted = if key == "same" { &made[0] } else { &made[2] };
            assert_eq!(back.trees(), wanted.trees(), "{kind:?} {key}");
            back.check().unwrap();
            let lane = other.clone_lane(key, &back).unwrap();
            lane.verify().unwrap();
            let time = |path: std::path::PathBuf| fs::metadata(path).unwrap().modified().unwrap();
            let (here, there) = (lane.path("volume/data").unwrap(), pool.clone_lane("0", wanted).unwrap());
            assert_eq!(time(here.join("big.ibd")), time(there.path("volume/data").unwrap().join("big.ibd")));
        }
    }
}

#[test]
fn changes_on_another_tree_than_their_own_do_not_pass_for_the_tree() {
    let ground = Ground::plain();
    let pool = plain_pool(&ground, ImportLimits::default());
    let made = three_generations(&ground, &pool);
    let mut changes = Vec::new();
    made[1].export_on("volume/data", &made[0], &mut changes).unwrap();
    // Without the tree below, and on a tree that lacks a file.
    let other = ground.outside("other");
    fs::create_dir_all(&other).unwrap();
    let mut staging = pool.stage("other").unwrap();
    staging.capture("volume/data", &other).unwrap();
    let other = staging.publish(serde_json::Value::Null).unwrap();
    for base in [None, Some(&other)] {
        let mut staging = pool.stage("k").unwrap();
        let refused = staging.import_layers("volume/data", base, [&changes[..]]).unwrap_err();
        let PoolError::Import { source: ImportRefusal::Header { what, .. }, .. } = refused else {
            panic!("refused as {refused}");
        };
        assert_eq!(what, "patch");
    }
    // On a tree where only contents differ: the digest tells.
    let altered = ground.outside("volume");
    fs::write(altered.join("big.ibd"), noise(2, 8 << 20)).unwrap();
    for name in ["grows.ibd", "shrinks.ibd"] {
        fs::write(altered.join(name), noise(2, 1 << 20)).unwrap();
    }
    let mut staging = pool.stage("altered").unwrap();
    staging.capture("volume/data", &altered).unwrap();
    let altered = staging.publish(serde_json::Value::Null).unwrap();
    let mut staging = pool.stage("wrong").unwrap();
    staging.import_layers("volume/data", Some(&altered), [&changes[..]]).unwrap();
    let wrong = staging.publish(serde_json::Value::Null).unwrap();
    assert!(wrong.trees()[0].tree_digest != made[1].trees()[0].tree_digest);
}

/// An archive of headers that a well-meaning writer would not make.
#[derive(Default)]
struct Forged(Vec<u8>);

impl Forged {
    fn root() -> Forged {
        Forged::default().entry("./", EntryType::Directory, |_| {}, b"")
    }

    fn entry(
        mut self,
        name: &str,
        kind: EntryType,
        change: impl FnOnce(&mut Header),
        contents: &[u8],
    ) -> Forged {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(contents.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn link(self, name: &str, kind: EntryType, target: &str) -> Forged {
        self.entry(name, kind, |header| header.set_link_name_literal(target).unwrap(), b"")
    }

    fn file(self, name: &str) -> Forged {
        self.entry(name, EntryType::Regular, |_| {}, b"x")
    }

    fn pax(self, records: &[u8]) -> Forged {
        self.entry("x", EntryType::XHeader, |_| {}, records)
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        zstd::encode_all(&self.0[..], 1).unwrap()
    }
}

fn refusal(pool: &Pool, archive: &[u8]) -> ImportRefusal {
    let mut staging = pool.stage("hostile").unwrap();
    let refused = match staging.import("volume/x", archive).unwrap_err() {
        PoolError::Import { source, .. } => source,
        other => panic!("{other:?}"),
    };
    // Nothing of it is in the staging: the name is free.
    staging.import("volume/x", &Forged::root().finish()[..]).unwrap();
    assert!(pool.baseline("hostile").is_none());
    refused
}

fn device(major: u32, minor: u32) -> impl FnOnce(&mut Header) {
    move |header| {
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
    }
}

#[test]
fn hostile_archives_are_refused_by_name_and_touch_nothing() {
    let ground = Ground::plain();
    let outside = ground.root().join("outside");
    fs::create_dir(&outside).unwrap();
    let before = digest_of(&outside).unwrap();
    let pool = plain_pool(&ground, ImportLimits { bytes_max: 1 << 20, entries_max: 20 });
    let out = outside.to_str().unwrap();
    let root = Forged::root;
    let folder = |name| root().entry(name, EntryType::Directory, |_| {}, b"");
    let cases: Vec<(&str, Forged)> = vec![
        ("PathEscapes", root().file("../x")),
        ("PathEscapes", folder("a/").file("a/../../x")),
        ("PathEscapes", root().file(&format!("{out}/x"))),
        ("PathEscapes", root().pax(b"13 path=../x\n").file("harmless")),
        ("PathEscapes", root().pax(b"11 path=/x\n").file("harmless")),
        ("ParentNotFolder", root().link("a", EntryType::Symlink, out).file("a/x")),
        ("ParentNotFolder", root().file("a").file("a/x")),
        ("ParentNotFolder", root().file("never/made")),
        (
            "Duplicate",
            root().link("a", EntryType::Symlink, out).entry("a", EntryType::Directory, |_| {}, b""),
        ),
        ("Duplicate", root().file("a").file("./a")),
        ("LinkTarget", root().link("a", EntryType::Link, "never")),
        ("LinkTarget", folder("d/").link("a", EntryType::Link, "d")),
        ("PathEscapes", root().link("a", EntryType::Link, "/etc/passwd")),
        ("PathEscapes", root().link("a", EntryType::Link, "../../../etc/passwd")),
        ("Device", root().entry("sda", EntryType::Block, device(8, 0), b"")),
        ("Device", root().entry("mem", EntryType::Char, device(1, 1), b"")),
        ("Device", root().entry("zero", EntryType::Block, device(0, 0), b"")),
        ("EntryType", root().entry("s", EntryType::GNUSparse, |_| {}, b"")),
        ("EntryType", root().entry("l", EntryType::GNULongName, |_| {}, b"long\0")),
        ("Attribute", root().pax(b"33 SCHILY.xattr.security.ima=abc\n").file("a")),
        ("Header", root().pax(b"16 unknown=abcd\n").file("a")),
        ("Header", root().pax(b"10 size=9\n").file("a")),
        ("Header", root().pax(b"999 path=a\n").file("a")),
        ("Header", root().pax(b"13 mtime=abc\n").file("a")),
        ("Header", root().entry("a", EntryType::Regular, |header| header.set_uid(1 << 40), b"")),
        ("Header", root().pax(b"").pax(b"").file("a")),
        ("TooManyEntries", (0..30).fold(root(), |archive, number| archive.file(&format!("f{number}")))),
        ("TooManyBytes", root().entry("bomb", EntryType::Regular, |_| {}, &vec![0; 2 << 20])),
        (
            "TooManyBytes",
            root().entry("x", EntryType::Regular, |header| header.set_size(1 << 50), &vec![0; 2 << 20]),
        ),
        ("Unreadable", root().entry("cut", EntryType::Regular, |header| header.set_size(9000), b"x")),
        ("NoRoot", Forged::default().file("a")),
        ("NoRoot", Forged::default()),
    ];
    for (number, (wanted, archive)) in cases.into_iter().enumerate() {
        let refused = refusal(&pool, &archive.finish());
        let named = format!("{refused:?}");
        assert!(named.starts_with(wanted), "case {number}: {named} instead of {wanted}");
    }
    assert!(matches!(refusal(&pool, b"not zstd at all"), ImportRefusal::Unreadable(_)));
    assert_eq!(digest_of(&outside).unwrap(), before);
}

#[test]
fn an_archive_that_lost_bytes_on_the_way_is_refused() {
    let ground = Ground::plain();
    let pool = plain_pool(&ground, ImportLimits::default());
    let from = ground.outside("volume");
    plant_volume(&from);
    let mut staging = pool.stage("k").unwrap();
    staging.capture("volume/data", &from).unwrap();
    let archive = exported(&staging.publish(serde_json::Value::Null).unwrap(), "volume/data");
    for cut in [0, 1, 100, archive.len() / 2, archive.len() - 1] {
        assert!(matches!(
            refusal(&pool, &archive[..cut]),
            ImportRefusal::Unreadable(_) | ImportRefusal::NoRoot
        ));
    }
    let mut flipped = archive.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(matches!(refusal(&pool, &flipped), ImportRefusal::Unreadable(_)));
}

#[test]
fn a_small_archive_that_unpacks_to_much_is_stopped_early() {
    let ground = Ground::plain();
    let pool = plain_pool(&ground, ImportLimits { bytes_max: 16 << 20, ..ImportLimits::default() });
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut header = Forged::root().0;
    header.extend(Forged::default().entry("b", EntryType::Regular, |header| header.set_size(1 << 40), b"").0);
    encoder.write_all(&header).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..512).for_each(|_| encoder.write_all(&zeros).unwrap());
    let archive = encoder.finish().unwrap();
    assert!(archive.len() < 1 << 20);
    assert!(matches!(refusal(&pool, &archive), ImportRefusal::TooManyBytes { limit: 16_777_216 }));
}
