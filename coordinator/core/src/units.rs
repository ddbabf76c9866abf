//! Ids grouped into units: the tests that share one rebase, whole and in order on one lane.

use crate::model::Grain;

/// A batch is as many tests as are expected to take this long …
const BATCH_TARGET_MS: u64 = 5_000;
/// … and never more than this.
const BATCH_TESTS_MAX: usize = 100;

/// Splits tests (in their order, with their expected durations in ms) into units of places in `tests`.
///
/// Tests of one class or file need not stand together; they keep their order within the unit.
#[must_use]
pub fn group(tests: &[(&str, u64)], grain: Grain) -> Vec<Vec<usize>> {
    match grain {
        Grain::Test => (0..tests.len()).map(|place| vec![place]).collect(),
        Grain::Class => by_key(tests, class_of),
        Grain::File => by_key(tests, file_of),
        Grain::Batch => batches(tests),
        Grain::Never if tests.is_empty() => Vec::new(),
        Grain::Never => vec![(0..tests.len()).collect()],
    }
}

fn by_key<'a>(tests: &[(&'a str, u64)], key: fn(&'a str) -> &'a str) -> Vec<Vec<usize>> {
    let mut place_of = std::collections::HashMap::new();
    let mut units: Vec<Vec<usize>> = Vec::new();
    for (place, (id, _)) in tests.iter().enumerate() {
        let unit = *place_of.entry(key(id)).or_insert_with(|| {
            units.push(Vec::new());
            units.len() - 1
        });
        units[unit].push(place);
    }
    units
}

fn batches(tests: &[(&str, u64)]) -> Vec<Vec<usize>> {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut expected = 0;
    for (place, (_, ms)) in tests.iter().enumerate() {
        let full = units.last().is_none_or(|unit| unit.len() >= BATCH_TESTS_MAX)
            || (expected > 0 && expected + ms > BATCH_TARGET_MS);
        if full {
            units.push(Vec::new());
            expected = 0;
        }
        expected += ms;
        units.last_mut().expect("a unit was just pushed").push(place);
    }
    units
}

/// `tests/test_a.py::TestB::test_c[x::y]` is of the class `tests/test_a.py::TestB`: parameters may hold anything.
fn class_of(id: &str) -> &str {
    let name = &id[..id.find('[').unwrap_or(id.len())];
    name.rfind("::").map_or(id, |end| &id[..end])
}

fn file_of(id: &str) -> &str {
    id.find("::").map_or(id, |end| &id[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [(&str, u64); 6] = [
        ("a.py::A::one", 1),
        ("a.py::A::two[x::y]", 1),
        ("a.py::B::one", 1),
        ("a.py::loose", 1),
        ("b.py::A::one", 1),
        ("a.py::A::three", 1),
    ];

    #[test]
    fn each_grain_keeps_what_belongs_together_in_order() {
        assert_eq!(group(&IDS, Grain::Test).len(), 6);
        assert_eq!(group(&IDS, Grain::Class), vec![vec![0, 1, 5], vec![2], vec![3], vec![4]]);
        assert_eq!(group(&IDS, Grain::File), vec![vec![0, 1, 2, 3, 5], vec![4]]);
        assert_eq!(group(&IDS, Grain::Never), vec![vec![0, 1, 2, 3, 4, 5]]);
        assert!(group(&[], Grain::Never).is_empty());
    }

    #[test]
    fn batches_follow_the_target_time_and_the_limit_on_tests() {
        let slow = [("a", 4_000), ("b", 4_000), ("c", 500), ("d", 500), ("e", 9_000)];
        assert_eq!(group(&slow, Grain::Batch), vec![vec![0], vec![1, 2, 3], vec![4]]);
        let quick = vec![("t", 1); 250];
        let sizes: Vec<_> = group(&quick, Grain::Batch).iter().map(Vec::len).collect();
        assert_eq!(sizes, [100, 100, 50]);
    }

    proptest::proptest! {
        #[test]
        fn every_test_is_in_exactly_one_unit(ids in proptest::collection::vec("[ab]\\.py::[AB]::[a-d]", 0..60)) {
            let tests: Vec<_> = ids.iter().map(|id| (id.as_str(), 700)).collect();
            for grain in [Grain::Test, Grain::Class, Grain::File, Grain::Batch, Grain::Never] {
                let mut places: Vec<_> = group(&tests, grain).concat();
                places.sort_unstable();
                proptest::prop_assert_eq!(places, (0..tests.len()).collect::<Vec<_>>());
            }
        }
    }
}
