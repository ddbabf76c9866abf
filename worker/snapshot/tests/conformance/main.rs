//! One suite for every kind of pool: what holds for one has to hold for all.
//!
//! Needs root, loop devices and the packages xfsprogs, btrfs-progs, e2fsprogs: a machine without them fails, by name.
//! Every case works on a file system of its own in a file, so that nothing of the machine can be filled or left behind.

// Clippy takes only functions marked `#[test]` for tests; here the cases are called by those.
#![allow(clippy::unwrap_used)]

mod archives;
mod cases;
mod changes;
mod choice;
mod crash;
mod edits;
mod full;
mod ground;
mod image;
mod kills;
mod odd;

macro_rules! on_every_kind {
    ($($module:ident :: $case:ident),* $(,)?) => {
        on_every_kind!(@ reflink Reflink $($module $case)*);
        on_every_kind!(@ btrfs Btrfs $($module $case)*);
        on_every_kind!(@ overlay Overlay $($module $case)*);
        on_every_kind!(@ copy Copy $($module $case)*);
    };
    (@ $name:ident $kind:ident $($module:ident $case:ident)*) => {
        mod $name {
            $(
                #[test]
                fn $case() {
                    crate::$module::$case(andon_snapshot::PoolKind::$kind);
                }
            )*
        }
    };
}

on_every_kind!(
    cases::a_clone_is_the_baseline_and_a_reset_brings_it_back,
    cases::paths_and_the_lanes_folder_stay_the_same_over_resets,
    cases::who_waits_for_a_lane_gets_it_when_its_spare_is_made,
    cases::one_written_page_counts_one_page,
    cases::added_removed_and_changed_entries_are_counted,
    cases::a_file_rewritten_with_what_it_held_counts_nothing,
    cases::a_write_that_hides_behind_its_old_time_is_counted,
    cases::every_kind_of_entry_survives_capture_and_clone,
    cases::the_names_of_one_file_stay_names_of_one_file,
    cases::holes_stay_holes,
    cases::three_hundred_files_like_a_database,
    cases::the_baseline_stays_what_it_was_while_its_clones_are_written,
    cases::every_sort_of_tampering_is_named,
    cases::what_is_not_published_leaves_nothing,
    cases::a_key_that_exists_keeps_the_existing_baseline,
    cases::a_used_baseline_cannot_be_removed,
    cases::trash_is_swept_but_not_what_somebody_still_looks_at,
    cases::a_tree_restored_elsewhere_is_the_tree,
    full::at_every_step_a_full_disk_leaves_nothing_and_the_pool_works_on_after_it,
    full::a_baseline_can_be_removed_from_a_full_disk,
    odd::ten_thousand_files_are_a_tree_like_any_other,
    odd::what_is_deep_or_has_odd_names_is_cloned_reset_exported_and_deleted,
    cases::a_lane_has_only_the_trees_that_were_wanted,
    changes::changes_are_listed_by_path_and_kind_the_most_bytes_first,
    changes::changes_of_a_tree_elsewhere_are_listed_whatever_its_names_are,
    changes::a_deep_check_finds_what_a_cheap_one_cannot_see,
    crash::a_killed_process_leaves_baselines_and_nothing_else,
    edits::after_any_edits_a_reset_is_exact_and_the_footprint_tells,
);
