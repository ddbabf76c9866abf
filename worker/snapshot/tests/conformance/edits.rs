//! Random edits of a clone: whatever they are, a reset is exact, and the footprint tells whether anything changed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use andon_snapshot::{PoolKind, digest_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{XattrFlags, lsetxattr};

use crate::ground::{Ground, noise};

/// Cases for each kind: every one is a reset, and btrfs starts a program for it.
const CASES: u32 = 24;
const NAMES: [&str; 6] = ["a", "b", "sub", "sub/c", "sub/deep", "sub/deep/d"];

#[derive(Debug, Clone)]
enum Edit {
    Write { at: u64, length: usize, seed: u64 },
    Truncate(u64),
    Remove,
    MakeDir,
    RenameTo(usize),
    Mode(u32),
    Owner(u32),
    SymlinkTo(usize),
    LinkTo(usize),
    Attribute(u8),
    Touch(u64),
}

fn edit() -> impl Strategy<Value = (usize, Edit)> {
    let one = prop_oneof![
        (0u64..200_000, 1usize..20_000, 0u64..3).prop_map(|(at, length, seed)| Edit::Write {
            at,
            length,
            seed
        }),
        (0u64..200_000).prop_map(Edit::Truncate),
        Just(Edit::Remove),
        Just(Edit::MakeDir),
        (0..NAMES.len()).prop_map(Edit::RenameTo),
        (0u32..0o7777).prop_map(Edit::Mode),
        (0u32..5).prop_map(Edit::Owner),
        (0..NAMES.len()).prop_map(Edit::SymlinkTo),
        (0..NAMES.len()).prop_map(Edit::LinkTo),
        (0u8..3).prop_map(Edit::Attribute),
        (0u64..100).prop_map(Edit::Touch),
    ];
    (0..NAMES.len(), one)
}

/// Applies an edit; one that makes no sense where it lands does nothing.
fn apply(root: &Path, name: usize, edit: &Edit) {
    let path = |name: usize| root.join(NAMES[name]);
    let place = path(name);
    let parent_is_dir =
        place.parent().is_some_and(|dir| dir.symlink_metadata().is_ok_and(|one| one.is_dir()));
    let is_link = place.symlink_metadata().is_ok_and(|one| one.is_symlink());
    if !parent_is_dir || (is_link && !matches!(edit, Edit::Remove | Edit::RenameTo(_))) {
        return;
    }
    let done = match edit {
        Edit::Write { at, length, seed } => {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&place);
            file.and_then(|file| file.write_all_at(&noise(*seed, *length), *at))
        }
        Edit::Truncate(size) => {
            OpenOptions::new().write(true).open(&place).and_then(|file| file.set_len(*size))
        }
        Edit::Remove => fs::remove_file(&place).or_else(|_| fs::remove_dir_all(&place)),
        Edit::MakeDir => fs::create_dir(&place),
        Edit::RenameTo(to) => fs::rename(&place, path(*to)),
        Edit::Mode(mode) => fs::set_permissions(&place, fs::Permissions::from_mode(*mode)),
        Edit::Owner(owner) => chown(&place, Some(*owner), Some(owner + 1)),
        Edit::SymlinkTo(to) => symlink(NAMES[*to], &place),
        Edit::LinkTo(to) => fs::hard_link(path(*to), &place),
        Edit::Attribute(value) => {
            lsetxattr(&place, "user.note", &[*value], XattrFlags::empty()).map_err(Into::into)
        }
        Edit::Touch(secs) => {
            File::open(&place).and_then(|file| file.set_modified(UNIX_EPOCH + Duration::from_secs(*secs)))
        }
    };
    // Whether it could be done is the file system's business.
    drop(done);
}

fn plant(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    for (seed, name) in ["a", "sub/c", "sub/deep/d"].iter().enumerate() {
        fs::write(dir.join(name), noise(10 + seed as u64, 20_000 * (seed + 1))).unwrap();
    }
    symlink("a", dir.join("b")).unwrap();
}

pub(crate) fn after_any_edits_a_reset_is_exact_and_the_footprint_tells(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from: PathBuf = ground.outside("tree");
    plant(&from);
    let mut staging = pool.stage("k").unwrap();
    staging.capture("volume/tree", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let pristine = &baseline.trees()[0].tree_digest;
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let root = lane.path("volume/tree").unwrap();
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let edits = proptest::collection::vec(edit(), 0..12);
    let outcome = TestRunner::new(config).run(&edits, |edits| {
        for (name, edit) in &edits {
            apply(&root, *name, edit);
        }
        let retired = lane.reset().unwrap();
        let used = digest_of(&retired.path("volume/tree").unwrap()).unwrap();
        let footprint = retired.footprint().unwrap();
        let changes = retired.changes(usize::MAX).unwrap();
        let deep = pool.verify_deep_in(&baseline, "volume/tree", &retired.path("volume/tree").unwrap());
        retired.discard().unwrap();
        prop_assert_eq!(changes.footprint, footprint);
        let listed: u64 = changes.trees[0].files.iter().map(|one| one.bytes).sum();
        prop_assert_eq!((changes.trees[0].files.len() as u64, listed), (footprint.files, footprint.bytes));
        // The deep check looks at times as well.
        prop_assert!(used == *pristine || deep.is_err());
        prop_assert_eq!(footprint.files == 0, &used == pristine, "{:?}", footprint);
        prop_assert!(lane.verify().is_ok(), "{:?}", lane.verify());
        prop_assert_eq!(&digest_of(&root).unwrap(), pristine);
        Ok(())
    });
    outcome.unwrap();
    baseline.check().unwrap();
}
