//! Ids grouped into units: the tests that share one rebase, whole and in order on one lane.

use crate::model::Grain;

/// Splits tests, given by their ids in order, into units of places in `ids`. Batches are packed when a lane takes them, so
/// their tests come one by one.
///
/// Tests of one class or file need not stand together; they keep their order within the unit.
#[must_use]
pub fn group(ids: &[&str], grain: Grain) -> Vec<Vec<usize>> {
    match grain {
        Grain::Test | Grain::Batch => (0..ids.len()).map(|place| vec![place]).collect(),
        Grain::Class => by_key(ids, class_of),
        Grain::File => by_key(ids, file_of),
        Grain::Never if ids.is_empty() => Vec::new(),
        Grain::Never => vec![(0..ids.len()).collect()],
    }
}

/// What names the unit that a test is of.
pub(crate) fn key_of(id: &str, grain: Grain) -> &str {
    match grain {
        Grain::Test | Grain::Batch => id,
        Grain::Class => class_of(id),
        Grain::File => file_of(id),
        Grain::Never => "",
    }
}

fn by_key<'a>(ids: &[&'a str], key: fn(&'a str) -> &'a str) -> Vec<Vec<usize>> {
    let mut place_of = std::collections::HashMap::new();
    let mut units: Vec<Vec<usize>> = Vec::new();
    for (place, id) in ids.iter().enumerate() {
        let unit = *place_of.entry(key(id)).or_insert_with(|| {
            units.push(Vec::new());
            units.len() - 1
        });
        units[unit].push(place);
    }
    units
}

/// `tests/test_a.py::TestB::test_c[x::y]` is of the class `tests/test_a.py::TestB`: parameters may hold anything.
pub(crate) fn class_of(id: &str) -> &str {
    let name = &id[..id.find('[').unwrap_or(id.len())];
    name.rfind("::").map_or(id, |end| &id[..end])
}

/// `tests/test_a.py`.
pub(crate) fn file_of(id: &str) -> &str {
    id.find("::").map_or(id, |end| &id[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 6] = [
        "a.py::A::one",
        "a.py::A::two[x::y]",
        "a.py::B::one",
        "a.py::loose",
        "b.py::A::one",
        "a.py::A::three",
    ];

    #[test]
    fn each_grain_keeps_what_belongs_together_in_order() {
        assert_eq!(group(&IDS, Grain::Test).len(), 6);
        assert_eq!(group(&IDS, Grain::Class), vec![vec![0, 1, 5], vec![2], vec![3], vec![4]]);
        assert_eq!(group(&IDS, Grain::File), vec![vec![0, 1, 2, 3, 5], vec![4]]);
        assert_eq!(group(&IDS, Grain::Never), vec![vec![0, 1, 2, 3, 4, 5]]);
        assert!(group(&[], Grain::Never).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn every_test_is_in_exactly_one_unit(ids in proptest::collection::vec("[ab]\\.py::[AB]::[a-d]", 0..60)) {
            let tests: Vec<_> = ids.iter().map(String::as_str).collect();
            for grain in [Grain::Test, Grain::Class, Grain::File, Grain::Batch, Grain::Never] {
                let mut places: Vec<_> = group(&tests, grain).concat();
                places.sort_unstable();
                proptest::prop_assert_eq!(places, (0..tests.len()).collect::<Vec<_>>());
            }
        }
    }
}
