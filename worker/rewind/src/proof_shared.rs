//! What the crate promises of processes that share memory, of those that come and go, and of signals. As in [`crate::proof`], nothing is skipped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::identity::{Difference, Obstacle};
use crate::steps::Trouble;
use crate::victim::Victim;
use crate::{Baseline, Broken, Check, Names, Pid, Refused, Rewound, Step, Target, Tree, Unlike};

/// Rewinds of the soak, every byte compared.
const SOAK: u64 = 100;
const ON_DISK: &str = env!("CARGO_MANIFEST_DIR");

fn back(baseline: &mut Baseline) -> Rewound {
    baseline.rewind(Check::Bytes, Unlike::Kill).expect("a rewind")
}

/// Twice the same mess, and each time the way back.
fn comes_back_from(request: &str) -> Rewound {
    let mut victim = Victim::family();
    let before = victim.say("state");
    let mut baseline = Baseline::take(&[victim.target()]).expect("a baseline");
    assert_ne!(victim.say(request), before, "{request} changes something");
    back(&mut baseline);
    assert_eq!(victim.say("state"), before, "{request}");
    victim.say(request);
    let rewound = back(&mut baseline);
    assert_eq!(victim.say("nap"), before, "{request}");
    rewound
}

#[test]
fn shared_memory_comes_back_whoever_wrote_to_it() {
    for writer in ["write", "sibling"] {
        assert_eq!(comes_back_from(writer).processes, 0, "{writer}");
    }
}

/// What notes writes is gone with the process that wrote.
#[test]
fn shared_memory_that_was_written_by_a_process_that_is_gone_comes_back() {
    assert_eq!(comes_back_from("gone").processes, 0);
}

#[test]
fn shared_memory_has_its_size_and_its_holes_again() {
    for request in ["grow", "hole", "shorter", "longer"] {
        comes_back_from(request);
    }
}

#[test]
fn new_processes_end_and_leave_nothing() {
    assert_eq!(comes_back_from("live").processes, 3);
    assert_eq!(comes_back_from("deep").processes, 2);
    assert_eq!(comes_back_from("orphan").processes, 1);
}

#[test]
fn a_child_that_ended_and_was_not_collected_is_collected() {
    assert_eq!(comes_back_from("zombie").processes, 1);
}

#[test]
fn signals_that_wait_are_gone_and_timers_do_not_fire() {
    comes_back_from("queue");
    comes_back_from("alarm");
}

#[test]
fn a_baseline_is_not_taken_over_a_child_that_ended() {
    let mut victim = Victim::family();
    victim.say("zombie");
    let refused = Baseline::take(&[victim.target()]).expect_err("a child that ended");
    assert!(matches!(refused, Refused::Unfreezable(_)) && refused.passes(), "{refused}");
    victim.say("state");
}

#[test]
fn a_baseline_tells_the_age_of_its_youngest() {
    let mut victim = Victim::family();
    for _ in 0..3 {
        victim.say("nap");
    }
    let youngest = |victim: &Victim| Baseline::take(&[victim.target()]).expect("a baseline").taken().youngest;
    let old = youngest(&victim);
    assert!(old >= Duration::from_millis(290), "{old:?}");
    // Less than the old ones by three naps, however slow this machine is; a process begins on a tick of the clock.
    let begun = Instant::now();
    victim.say("live");
    assert!(youngest(&victim) <= begun.elapsed() + Duration::from_millis(20));
}

#[test]
fn many_rewinds_of_a_family_are_exact() {
    let mut victim = Victim::family();
    victim.say("mess 1");
    // Those that live are of the baseline now.
    let before = victim.say("nap");
    let mut baseline = Baseline::take(&[victim.target()]).expect("a baseline");
    let mut took: Vec<_> = (0..SOAK)
        .map(|round| {
            for part in 0..round % 3 {
                victim.say(&format!("mess {}", round * 10 + part));
            }
            let rewound = back(&mut baseline);
            assert_eq!(victim.say("state"), before, "round {round}");
            rewound.took()
        })
        .collect();
    took.sort_unstable();
    eprintln!("median with every byte compared: {:?}", took[took.len() / 2]);
}

#[test]
fn each_step_that_is_left_out_is_found_by_the_comparison() {
    for (step, request) in [
        (Step::SharedMemory, "gone"),
        (Step::SharedMemory, "grow"),
        (Step::SharedMemory, "longer"),
        (Step::Processes, "live"),
        (Step::Processes, "zombie"),
        (Step::Signals, "queue"),
    ] {
        let mut victim = Victim::family();
        let mut baseline = Baseline::take(&[victim.target()]).expect("a baseline");
        victim.say(request);
        let broken = baseline.order(Check::Bytes, Unlike::Kill, Some(Trouble::Skip(step)));
        assert!(matches!(broken, Err(Broken::Inexact(_))), "{step}, {request}: {broken:?}");
        assert!(victim.killed(), "{step}, {request}");
    }
}

/// What is left of a timer is told to nobody, so the comparison does not see it; the program does.
#[test]
fn a_timer_that_is_left_out_fires() {
    let mut victim = Victim::family();
    let before = victim.say("state");
    let mut baseline = Baseline::take(&[victim.target()]).expect("a baseline");
    victim.say("alarm");
    baseline.order(Check::Identity, Unlike::Kill, Some(Trouble::Skip(Step::Signals))).expect("a rewind");
    assert_ne!(victim.say("nap"), before);
}

#[test]
fn a_supervisor_that_dies_leaves_nothing_half_done() {
    for step in [Step::Processes, Step::Signals, Step::SharedMemory] {
        let mut victim = Victim::family();
        let mut baseline = Baseline::take(&[victim.target()]).expect("a baseline");
        victim.say("live");
        let broken = baseline.order(Check::Bytes, Unlike::RunOn, Some(Trouble::DieAfter(step)));
        assert!(matches!(broken, Err(Broken::Gone)), "{step}: {broken:?}");
        assert!(victim.killed(), "{step}");
    }
}

/// How a family differs after `request`. It runs on, with whatever it has begun.
fn differs(request: &str) -> Vec<Difference> {
    let mut victim = Victim::family();
    let mut baseline = Baseline::take(&[victim.target()]).expect("a baseline");
    let begun = victim.say(request);
    let broken = baseline.rewind(Check::Identity, Unlike::RunOn).expect_err("a difference");
    assert_eq!(victim.say("state"), begun, "{request}: nothing was touched");
    match broken {
        Broken::Differs(differences) => differences,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_not_put_back_is_found_before_anything_is_touched() {
    assert!(matches!(differs("end")[..], [Difference::ProcessGone(_)]));
    let [Difference::Segment { name, .. }] = &differs("seal")[..] else { panic!("a segment alone") };
    assert!(name.starts_with("/memfd:family"), "{name}");
    assert!(matches!(differs("detach")[..], [Difference::Mapping { .. }]));
    assert!(matches!(differs("another")[..], [Difference::Property { what: "objects of System V", .. }]));
    let locks: BTreeSet<_> = differs("lock")
        .iter()
        .map(|it| if let Difference::Property { what, .. } = it { *what } else { "" })
        .collect();
    assert_eq!(locks, BTreeSet::from(["locks"]));
}

#[test]
fn shared_memory_that_cannot_be_put_back_is_refused_by_name() {
    let refused = |target: Target| match Baseline::take(&[target]).expect_err("an obstacle") {
        Refused::Obstacles(obstacles) => obstacles,
        other => panic!("{other}"),
    };
    let mut victim = Victim::family();
    // Its parent has the memory, too, and is not to stand still.
    let root: Pid = victim.number("child");
    let outside = refused(Target { root, trees: Vec::new() });
    let is_outsider =
        |obstacle: &Obstacle| matches!(obstacle, Obstacle::SharedMemory { pid, .. } if *pid == victim.pid());
    assert!(outside.iter().all(is_outsider) && outside.len() >= 3, "{outside:?}");
    victim.say("forbid");
    let sealed = refused(victim.target());
    let is_sealed = |obstacle: &Obstacle| matches!(obstacle, Obstacle::SharedMemory { mapping, .. } if mapping.ends_with("sealed against writing"));
    assert!(!sealed.is_empty() && sealed.iter().all(is_sealed), "{sealed:?}");
}

/// Times of a file do not tell that it was written to through a mapping: in memory never, and on a disk not always.
#[test]
fn files_that_were_written_through_a_mapping_come_back() {
    for (place, mapped_before) in [("/dev/shm", false), ("/dev/shm", true), (ON_DISK, false), (ON_DISK, true)]
    {
        let folder = tempfile::tempdir_in(place).expect("a folder");
        let (live, kept) = (folder.path().join("live"), folder.path().join("kept"));
        for folder in [&live, &kept] {
            std::fs::create_dir(folder).expect("a new folder");
        }
        let file = live.join("file");
        std::fs::write(&file, [1; 9000]).expect("a new file");
        let mut victim = Victim::family();
        let request = format!("map {}", file.display());
        if mapped_before {
            victim.say(&request);
        }
        let before = std::fs::read(&file).expect("a file");
        let trees = vec![Tree { live, kept, names: Names::Pinned }];
        let mut baseline = Baseline::take(&[Target { root: victim.pid(), trees }]).expect("a baseline");
        for _ in 0..3 {
            victim.say(&request);
            assert_ne!(std::fs::read(&file).expect("a file"), before);
            back(&mut baseline);
            assert_eq!(std::fs::read(&file).expect("a file"), before, "{place} {mapped_before}");
        }
    }
}
