//! What the crate promises, on real processes. Nothing here is skipped: a machine that cannot rewind fails.

use std::time::Duration;

use crate::freeze::Frozen;
use crate::identity::{Difference, Obstacle};
use crate::steps::Trouble;
use crate::victim::Victim;
use crate::{Baseline, Broken, Check, Names, Refused, Rewound, Step, Target, Tree, Unlike};

/// Rewinds of the soak: each with its own mess, every byte compared.
const SOAK: usize = 400;
const SOAK_THREADS: usize = 2;

fn back(baseline: &mut Baseline) -> Rewound {
    baseline.rewind(Check::Bytes, Unlike::Kill).unwrap()
}

/// One mess, and the way back.
fn comes_back_from(requests: &[&str]) -> Rewound {
    let mut victim = Victim::busy();
    let before = victim.say("state");
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    for request in requests {
        assert_ne!(victim.say(request), before, "{request} changes something");
    }
    let rewound = back(&mut baseline);
    assert_eq!(victim.say("state"), before);
    // And a second time: the tracking was put back as well.
    for request in requests {
        victim.say(request);
    }
    back(&mut baseline);
    assert_eq!(victim.say("state"), before);
    rewound
}

#[test]
fn frozen_threads_stand_still_and_thawed_ones_run() {
    let mut victim = Victim::busy();
    for _ in 0..50 {
        let frozen = Frozen::freeze(&[victim.pid()]).unwrap();
        assert_eq!(frozen.threads().count(), 9);
        for (pid, tid) in frozen.threads() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap();
            assert!(stat.contains(") t "), "{stat}");
        }
        frozen.thaw().unwrap();
        victim.say("state");
    }
    let counted = victim.counted();
    while victim.counted() == counted {}
}

#[test]
fn letting_go_of_touched_processes_kills_them() {
    let (spared, doomed) = (Victim::busy(), Victim::busy());
    drop(Frozen::freeze(&[spared.pid()]).unwrap());
    let mut frozen = Frozen::freeze(&[doomed.pid()]).unwrap();
    frozen.touch();
    drop(frozen);
    assert!(doomed.killed());
    let mut spared = spared;
    spared.say("state");
}

#[test]
fn a_quiet_process_is_as_it_was() {
    let mut victim = Victim::quiet();
    let before = victim.say("state");
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    // Its first threads come with the mess, and with them a signal handler of the C library.
    assert_ne!(victim.say("threads 3"), before);
    assert_eq!(back(&mut baseline).threads, 3);
    assert_eq!(victim.say("state"), before);
}

#[test]
fn a_moved_mapping_comes_back() {
    assert!(comes_back_from(&["move"]).mappings > 0);
}

#[test]
fn a_range_that_was_mapped_anew_at_the_same_place_is_found() {
    assert!(comes_back_from(&["again"]).mappings > 0);
}

#[test]
fn dropped_pages_come_back() {
    comes_back_from(&["drop"]);
}

/// Where whole page tables become empty the kernel may free them, and then says nothing of their pages.
#[test]
fn pages_that_were_dropped_with_their_tables_come_back() {
    comes_back_from(&["vast"]);
    comes_back_from(&["part"]);
}

#[test]
fn a_heap_that_grew_or_shrank_ends_where_it_did() {
    comes_back_from(&["heap"]);
    comes_back_from(&["shrink"]);
}

#[test]
fn memory_with_advice_on_huge_pages_is_made_again() {
    assert_eq!(comes_back_from(&["advised"]).mappings, 1);
}

#[test]
fn open_files_are_where_and_what_they_were() {
    comes_back_from(&["files"]);
}

#[test]
fn a_lock_that_was_lost_is_taken_again() {
    comes_back_from(&["unlock"]);
}

#[test]
fn new_threads_end() {
    assert_eq!(comes_back_from(&["threads 5"]).threads, 5);
}

#[test]
fn hundreds_of_rewinds_of_a_busy_process_are_exact() {
    let soak = |which: usize| {
        let mut victim = Victim::busy();
        victim.say(&format!("mess {which}"));
        let before = victim.say("state");
        let mut baseline = Baseline::take(&[victim.target()]).unwrap();
        let mut took: Vec<_> = (0..SOAK / SOAK_THREADS)
            .map(|round| {
                for part in 0..round % 4 {
                    victim.say(&format!("mess {}", round * 10 + part + which * 1000));
                }
                let rewound = back(&mut baseline);
                assert_eq!(victim.say("state"), before, "round {round}");
                if round == 50 {
                    eprintln!("{rewound:?}");
                }
                rewound.took()
            })
            .collect();
        took.sort_unstable();
        took[took.len() / 2]
    };
    let medians: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SOAK_THREADS).map(|which| scope.spawn(move || soak(which))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    eprintln!("median with every byte compared: {medians:?}");
}

#[test]
fn all_targets_go_back_together() {
    let mut victims = [Victim::busy(), Victim::quiet()];
    let before: Vec<_> = victims.iter_mut().map(|victim| victim.say("state")).collect();
    let mut baseline = Baseline::take(&victims.each_ref().map(Victim::target)).unwrap();
    for victim in &mut victims {
        victim.say("mess 4");
    }
    back(&mut baseline);
    let after: Vec<_> = victims.iter_mut().map(|victim| victim.say("state")).collect();
    assert_eq!(after, before);
}

/// What a process that did `request` is refused for.
fn refused(request: &str) -> Vec<Obstacle> {
    let mut victim = Victim::busy();
    assert_ne!(victim.say(request), "none", "this machine lacks what {request} needs");
    let refused = Baseline::take(&[victim.target()]).unwrap_err();
    victim.say("state");
    match refused {
        Refused::Obstacles(obstacles) => obstacles,
        other => panic!("{other}"),
    }
}

#[test]
fn what_cannot_be_put_back_is_refused_by_name() {
    let [Obstacle::SharedMemory { mapping, .. }] = &refused("shared")[..] else { panic!("a mapping alone") };
    assert!(mapping.ends_with("no file in memory, nor a small one that is put back"), "{mapping}");
    let [Obstacle::Descriptor { what, .. }] = &refused("uring")[..] else { panic!("io_uring alone") };
    assert_eq!(what, "io_uring");
    let [Obstacle::Descriptor { what, .. }] = &refused("named")[..] else { panic!("a file alone") };
    assert!(what.starts_with("a file that is written to and not put back"), "{what}");
    assert!(matches!(refused("timer")[..], [Obstacle::Timers { .. }]));
    assert!(matches!(refused("pend")[..], [Obstacle::PendingSignal { signal: libc::SIGUSR2, .. }]));
}

#[test]
fn objects_of_system_v_that_are_made_meanwhile_are_found() {
    let mut victim = Victim::apart();
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    victim.say("mess 7");
    back(&mut baseline);
    victim.say("segment");
    let broken = baseline.rewind(Check::Identity, Unlike::RunOn).unwrap_err();
    let Broken::Differs(differences) = broken else { panic!("{broken}") };
    assert!(
        matches!(&differences[..], [Difference::Property { what: "objects of System V", .. }]),
        "{differences:?}"
    );
    drop(baseline);
    let refused = Baseline::take(&[victim.target()]).unwrap_err();
    let Refused::Obstacles(obstacles) = refused else { panic!("{refused}") };
    assert!(matches!(obstacles[..], [Obstacle::SystemV { .. }]));
}

#[test]
fn a_port_is_closed_when_its_server_has_ended() {
    let mut victim = Victim::busy();
    let port: u16 = victim.number("listen");
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    back(&mut baseline);
    let connected = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(connected());
    assert_eq!(victim.try_say("exit"), None);
    let begun = std::time::Instant::now();
    while connected() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the port stays open");
    }
    let broken = baseline.rewind(Check::Identity, Unlike::Kill).unwrap_err();
    let Broken::Differs(differences) = broken else { panic!("{broken}") };
    assert!(matches!(differences[..], [Difference::ProcessGone(_)]));
}

#[test]
fn an_epoll_watches_what_it_did_once_new_descriptors_are_closed() {
    comes_back_from(&["watch"]);
}

#[test]
fn a_file_without_a_name_keeps_its_bytes() {
    comes_back_from(&["loose 1"]);
    comes_back_from(&["loose 70000", "loose 3"]);
}

/// How a process that did `request` since its baseline differs. It runs on.
fn differs(request: &str) -> Vec<Difference> {
    let mut victim = Victim::busy();
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    victim.say(request);
    let broken = baseline.rewind(Check::Identity, Unlike::RunOn).unwrap_err();
    victim.say("state");
    match broken {
        Broken::Differs(differences) => differences,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_not_put_back_is_found_before_anything_is_touched() {
    let property = |differences: &[Difference], name| {
        differences.iter().any(|it| matches!(it, Difference::Property { what, .. } if *what == name))
    };
    assert!(property(&differs("umask"), "cwd"));
    assert!(property(&differs("timer"), "timers"));
    assert!(property(&differs("lock"), "locks"));
    let [Difference::Descriptor { what, .. }] = &differs("mask")[..] else { panic!("an epoll alone") };
    assert!(what.starts_with("watched "), "{what}");
    assert!(property(&differs("limit"), "limits"));
    assert!(matches!(differs("nice")[..], [Difference::Thread { what: "its scheduling", .. }]));
}

/// Each line of what has to be the same, changed in turn, is found, and nothing else is.
#[test]
fn each_thing_that_has_to_be_the_same_is_compared() {
    for (request, name) in [
        ("rights", "Umask"),
        ("group", "Gid"),
        ("user", "Uid"),
        ("others", "Groups"),
        ("ability", "CapBnd"),
        ("inherit", "CapInh"),
        ("privileges", "NoNewPrivs"),
        ("filter", "Seccomp"),
        ("jail", "root"),
        ("host", "ns/uts"),
        ("victim", "oom_score_adj"),
        ("person", "personality"),
    ] {
        let differences = differs(request);
        let found = |it: &Difference| matches!(it, Difference::Property { what, .. } if *what == name);
        assert!(differences.iter().any(found), "{request}: {differences:?}");
    }
    assert!(matches!(differs("robust")[..], [Difference::Thread { what: "its list of held futexes", .. }]));
    assert!(matches!(differs("processor")[..], [Difference::Thread { what: "its scheduling", .. }]));
    for (request, start) in
        [("arm", "was "), ("note", "was "), ("deliver", "was "), ("instead", "is gone or another")]
    {
        let [Difference::Descriptor { what, .. }] = &differs(request)[..] else { panic!("{request} alone") };
        assert!(what.starts_with(start), "{request}: {what}");
    }
}

#[test]
fn a_thread_that_is_gone_is_found() {
    let mut victim = Victim::quiet();
    victim.say("guest");
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    victim.say("leave");
    let broken = baseline.rewind(Check::Identity, Unlike::RunOn).unwrap_err();
    let Broken::Differs(differences) = broken else { panic!("{broken}") };
    assert!(matches!(differences[..], [Difference::ThreadGone { .. }]), "{differences:?}");
    victim.say("state");
}

/// What waits in a socket may be taken in a moment; a peer that is gone does not come again.
#[test]
fn a_socket_with_bytes_in_it_forbids_a_baseline_and_one_without_a_peer_a_rewind() {
    let mut victim = Victim::busy();
    let port: u16 = victim.number("listen");
    let mut peer = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    victim.say("accept");
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    back(&mut baseline);
    std::io::Write::write_all(&mut peer, b"late").unwrap();
    back(&mut baseline);
    drop(baseline);
    std::io::Write::write_all(&mut peer, b"early").unwrap();
    let refused = Baseline::take(&[victim.target()]).unwrap_err();
    assert!(
        refused.passes()
            && matches!(&refused, Refused::Obstacles(it) if matches!(it[..], [Obstacle::Unread { .. }])),
        "{refused}"
    );
}

#[test]
fn a_socket_whose_peer_is_gone_is_found() {
    let mut victim = Victim::busy();
    let port: u16 = victim.number("listen");
    let peer = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    victim.say("accept");
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    drop(peer);
    let broken = baseline.rewind(Check::Identity, Unlike::RunOn).unwrap_err();
    let Broken::Differs(differences) = broken else { panic!("{broken}") };
    let [Difference::Descriptor { what, .. }] = &differences[..] else { panic!("{differences:?}") };
    assert_eq!(what, "its peer is gone");
}

#[test]
fn signals_that_wait_are_taken() {
    let mut victim = Victim::busy();
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    victim.say("pend");
    back(&mut baseline);
}

#[test]
fn a_signal_that_was_ignored_since_is_caught_or_not_as_before() {
    let mut victim = Victim::busy();
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    victim.say("handler");
    back(&mut baseline);
}

#[test]
fn each_step_that_is_left_out_is_found_by_the_comparison() {
    for step in [Step::Threads, Step::Mappings, Step::Memory, Step::Descriptors, Step::Registers] {
        let mut victim = Victim::busy();
        let mut baseline = Baseline::take(&[victim.target()]).unwrap();
        victim.say("mess 3");
        victim.say("files");
        victim.say("threads 2");
        victim.say("heap");
        let broken = baseline.order(Check::Bytes, Unlike::Kill, Some(Trouble::Skip(step)));
        assert!(matches!(broken, Err(Broken::Inexact(_) | Broken::Killed { .. })), "{step}: {broken:?}");
        assert!(victim.killed(), "{step}");
    }
}

/// One piece of a step that is left out is found as well as all of it.
#[test]
fn one_page_one_thread_one_descriptor_and_one_file_that_are_left_out_are_found() {
    type Is = fn(&Difference) -> bool;
    let sabotages: [(Step, &str, Is); 4] = [
        (Step::Memory, "vast", |it| matches!(it, Difference::Memory { .. })),
        (Step::Registers, "mess 3", |it| matches!(it, Difference::Thread { .. })),
        (Step::Descriptors, "listen", |it| matches!(it, Difference::Descriptor { .. })),
        (Step::Files, "state", |it| matches!(it, Difference::File { .. })),
    ];
    for (step, request, is) in sabotages {
        let folder = tempfile::tempdir().unwrap();
        let tree = |name: &str| folder.path().join(name);
        let (live, kept) = (tree("live"), tree("kept"));
        std::fs::create_dir(&live).and_then(|()| std::fs::create_dir(&kept)).unwrap();
        for file in ["redo", "items"] {
            std::fs::write(live.join(file), file).unwrap();
        }
        let mut victim = Victim::busy();
        let trees = vec![Tree { live: live.clone(), kept, names: Names::Pinned }];
        let mut baseline = Baseline::take(&[Target { root: victim.pid(), trees }]).unwrap();
        victim.say(request);
        for file in ["redo", "items"] {
            std::fs::write(live.join(file), "another").unwrap();
        }
        let broken = baseline.order(Check::Bytes, Unlike::Kill, Some(Trouble::SkipOne(step)));
        let Err(Broken::Inexact(differences)) = broken else { panic!("{step}: {broken:?}") };
        assert!(!differences.is_empty() && differences.iter().all(is), "{step}: {differences:?}");
        assert!(victim.killed(), "{step}");
    }
}

#[test]
fn a_supervisor_that_dies_leaves_nothing_half_done() {
    for step in [Step::Threads, Step::Mappings, Step::Memory, Step::Registers, Step::Compare] {
        let mut victim = Victim::busy();
        let mut baseline = Baseline::take(&[victim.target()]).unwrap();
        victim.say("mess 5");
        let broken = baseline.order(Check::Bytes, Unlike::RunOn, Some(Trouble::DieAfter(step)));
        assert!(matches!(broken, Err(Broken::Gone)), "{step}: {broken:?}");
        assert!(victim.killed(), "{step}");
    }
}

#[test]
fn a_supervisor_that_dies_before_touching_leaves_the_process_running() {
    let mut victim = Victim::busy();
    let mut baseline = Baseline::take(&[victim.target()]).unwrap();
    let messed = victim.say("mess 6");
    let broken = baseline.order(Check::Bytes, Unlike::RunOn, Some(Trouble::DieAfter(Step::Identity)));
    assert!(matches!(broken, Err(Broken::Gone)));
    assert_eq!(victim.say("state"), messed);
}
