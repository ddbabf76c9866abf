//! The presets that there are. A new one is a file here and a line in [`ALL`]; see `docs/runners.md`.

mod command;
mod go;
mod jest;
mod junit;
mod libtest;
mod nextest;
mod node;
mod pytest;
mod script_files;
mod tap;
mod vitest;

use super::preset::{Facts, Preset};

/// Each preset, in the order in which they are shown.
const ALL: &[&dyn Preset] = &[
    &pytest::Pytest,
    &nextest::Nextest,
    &libtest::Libtest,
    &go::Go,
    &jest::Jest,
    &vitest::Vitest,
    &node::Node,
    &junit::Junit,
    &tap::Tap,
    &command::Command,
];

/// The preset of this name.
pub(super) fn find(name: &str) -> Option<&'static dyn Preset> {
    ALL.iter().copied().find(|preset| preset.facts().name == name)
}

/// What is known of each preset, in the order in which they are shown.
pub fn catalogue() -> impl Iterator<Item = &'static Facts> {
    ALL.iter().map(|preset| preset.facts())
}

/// The files that presets have put where tests find them: name and content, each name once.
pub(crate) fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    catalogue().flat_map(|facts| facts.files.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn each_preset_is_found_by_its_own_name() {
        for facts in catalogue() {
            assert_eq!(find(facts.name).unwrap().facts(), facts);
        }
        assert!(find("pytset").is_none());
    }

    #[test]
    fn no_two_presets_put_different_files_under_one_name() {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for (name, content) in files() {
            assert_eq!(*seen.entry(name).or_insert(content), content, "{name}");
        }
    }
}
