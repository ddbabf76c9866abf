//! What whoever submits a run asks of it beyond its project's configuration: which of the tests, how often, on how many
//! lanes, on which workers.
//!
//! Shards are by hash of what names a unit (a test, a class, a file, a suite), not by durations: the same test is in the
//! same shard on every machine and at every commit, whatever else there is, so shards are disjoint and complete without
//! asking anybody. That they are not equally long costs little here: lanes are fed test by test anyway.

use std::collections::BTreeSet;

use crate::ids::WorkerId;
use crate::model::Grain;
use crate::units::key_of;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Which of the tests that discovery finds.
    pub selection: Selection,
    /// How often each of them.
    pub repeat: Repeat,
    /// So many lanes at a time; `None`: as many as there are.
    pub lanes_max: Option<u32>,
    /// On which workers.
    pub workers: Preference,
    /// Nothing of it is remembered of the tests.
    pub trial: bool,
}

/// How often each test is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// At least 1.
    pub times: u32,
    /// No more once it has failed.
    pub until_fail: bool,
}

impl Default for Repeat {
    fn default() -> Self {
        Self { times: 1, until_fail: false }
    }
}

impl Repeat {
    /// Whether a test is run more than once on purpose.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        self.times > 1
    }
}

/// Where units go while there is a choice. A preference holds nothing up: where none of the wanted workers takes work,
/// any does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preference {
    /// To one of these; empty: to any.
    pub on: BTreeSet<WorkerId>,
    /// Not to these.
    pub off: BTreeSet<WorkerId>,
}

impl Preference {
    /// True where units should go elsewhere.
    #[must_use]
    pub fn is_against(&self, worker: &WorkerId) -> bool {
        self.off.contains(worker) || (!self.on.is_empty() && !self.on.contains(worker))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.on.is_empty() && self.off.is_empty()
    }
}

/// Which tests are run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// A test is in it where one of them names it; none: every test is.
    pub patterns: Vec<Pattern>,
    /// The part of those that is run.
    pub shard: Option<Shard>,
}

impl Selection {
    /// True where every test is chosen.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.patterns.is_empty() && self.shard.is_none()
    }

    /// Whether a test of this suite is chosen.
    #[must_use]
    pub fn has(&self, suite: &str, grain: Grain, id: &str) -> bool {
        let named = self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.names(suite, id));
        named && self.shard.is_none_or(|shard| shard.has(suite, key_of(id, grain)))
    }
}

/// Names tests, by `suite/id` or by `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// What holds this.
    Part(String),
    /// `*` is any text, also none; `?` is one character; everything else is itself.
    Glob(String),
    /// What is this.
    Exact(String),
}

impl Pattern {
    /// Whether it names this test.
    #[must_use]
    pub fn names(&self, suite: &str, id: &str) -> bool {
        let full = format!("{suite}/{id}");
        match self {
            Self::Part(part) => full.contains(part.as_str()),
            Self::Glob(glob) => matches(glob, id) || matches(glob, &full),
            Self::Exact(name) => name == id || *name == full,
        }
    }
}

/// One of several parts of a run's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: u32,
    /// At least 1.
    pub total: u32,
}

impl Shard {
    /// Whether the unit of this suite that is named so is in it.
    #[must_use]
    pub fn has(self, suite: &str, key: &str) -> bool {
        place_of(suite, key) % u64::from(self.total.max(1)) == u64::from(self.index)
    }
}

/// FNV-1a over suite and key, then the finalizer of SplitMix64: FNV's low bits alone follow the last characters too
/// closely for a division by a small number. Never changed, since a shard means the same to every version.
fn place_of(suite: &str, key: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in suite.bytes().chain([0]).chain(key.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Whether a whole text is as a glob says. Linear in their product at worst: only the latest star is ever gone back to.
fn matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < text.len() {
        match glob.get(at) {
            Some('*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[of] => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                of = taken + 1;
            }
        }
    }
    glob[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_a_part_a_glob_or_the_whole() {
        let names = |pattern: Pattern| pattern.names("it", "tests/a.py::T::x[1*2]");
        for pattern in ["a.py", "it/tests", "[1*2]", "::x", "it/tests/a.py::T::x[1*2]"] {
            assert!(names(Pattern::Part(pattern.into())), "{pattern}");
        }
        for pattern in ["*", "tests/*", "*::x*", "it/*", "tests/?.py::T::x[1*2]", "it/tests/a.py::T::x[?*?]"]
        {
            assert!(names(Pattern::Glob(pattern.into())), "{pattern}");
        }
        for pattern in ["tests/a.py", "a.py*", "*::y*", "tests/??.py*", "", "it/"] {
            assert!(!names(Pattern::Glob(pattern.into())), "{pattern}");
        }
        assert!(names(Pattern::Exact("tests/a.py::T::x[1*2]".into())));
        assert!(names(Pattern::Exact("it/tests/a.py::T::x[1*2]".into())));
        assert!(!names(Pattern::Exact("tests/a.py::T::x".into())));
        assert!(!names(Pattern::Exact("tests/a.py::T::x[*]".into())), "a star is a star");
        assert!(!names(Pattern::Part("T::y".into())));
    }

    #[test]
    fn a_glob_with_many_stars_ends() {
        let glob = "a*".repeat(60) + "b";
        assert!(!matches(&glob, &"a".repeat(4_000)));
        assert!(matches(&glob, &("a".repeat(4_000) + "b")));
    }

    #[test]
    fn nothing_asked_is_every_test() {
        assert!(Selection::default().has("it", Grain::Test, "x"));
        assert!(Selection::default().is_all());
        let of_two =
            Selection { patterns: vec![Pattern::Part("x".into()), Pattern::Part("y".into())], shard: None };
        assert!(of_two.has("it", Grain::Test, "y") && !of_two.has("it", Grain::Test, "z"));
    }

    /// Written down: another version must cut the same shards, or two machines of one pipeline would lose tests.
    #[test]
    fn a_shard_is_the_same_for_every_version() {
        let of_eight: Vec<u64> = ["a", "b", "tests/a.py::x", "ü"].map(|id| place_of("it", id) % 8).into();
        assert_eq!(of_eight, [4, 0, 2, 2]);
    }

    #[test]
    fn a_class_is_in_one_shard() {
        let shard = |index| Selection { patterns: Vec::new(), shard: Some(Shard { index, total: 3 }) };
        for class in 0..50 {
            let ids: Vec<String> = (0..9).map(|test| format!("a.py::C{class}::t{test}")).collect();
            let holders: Vec<u32> = (0..3)
                .filter(|index| ids.iter().any(|id| shard(*index).has("it", Grain::Class, id)))
                .collect();
            assert_eq!(holders.len(), 1, "class {class}");
        }
    }

    /// What a glob means, said as simply as it can be.
    fn means(glob: &[char], text: &[char]) -> bool {
        match (glob, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => means(rest, text) || (!text.is_empty() && means(glob, &text[1..])),
            ([c, rest @ ..], [d, more @ ..]) => (*c == '?' || c == d) && means(rest, more),
            _ => false,
        }
    }

    proptest::proptest! {
        #[test]
        fn a_glob_matches_what_it_means(glob in "[ab?*]{0,7}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            proptest::prop_assert_eq!(matches(&glob, &text), means(&chars(&glob), &chars(&text)));
        }

        #[test]
        fn shards_are_disjoint_and_complete_and_do_not_depend_on_the_others(
            ids in proptest::collection::btree_set("[a-c]\\.py::[A-C]::[a-z]{1,6}", 0..80),
            total in 1_u32..9,
        ) {
            for grain in [Grain::Test, Grain::Class, Grain::File, Grain::Batch, Grain::Never] {
                for id in &ids {
                    let holders = (0..total).filter(|index| {
                        let shard = Some(Shard { index: *index, total });
                        Selection { patterns: Vec::new(), shard }.has("it", grain, id)
                    });
                    proptest::prop_assert_eq!(holders.count(), 1);
                }
            }
        }

        #[test]
        fn shards_are_about_equally_large(total in 2_u32..9) {
            let mut sizes = vec![0_u32; total as usize];
            for n in 0..2_000 {
                let id = format!("tests/test_{}.py::test_{n}", n % 40);
                let place = place_of("it", &id) % u64::from(total);
                sizes[usize::try_from(place).expect("below nine")] += 1;
            }
            let mean = 2_000 / total;
            proptest::prop_assert!(sizes.iter().all(|size| *size > mean / 2 && *size < mean * 2), "{sizes:?}");
        }
    }
}
