//! From facts to findings. Pure.

use super::capabilities::NEEDED;
use super::look::{Facts, Hierarchies};
use super::{Finding, HostReport, Role, Severity};

/// Less free space than this and a worker does not start: images alone take that much.
pub(super) const FREE_BYTES_MIN: u64 = 2 << 30;
/// Less free space than this is worth a warning.
pub(super) const FREE_BYTES_COMFORTABLE: u64 = 10 << 30;
/// Less free inodes than this and a worker does not start.
pub(super) const FREE_INODES_MIN: u64 = 50_000;

/// Controllers that limits and clean removal of containers rest on.
const CONTROLLERS_NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// Version 1 only: without it nothing can be killed as a whole, and devices not be handed out.
const CONTROLLERS_NEEDED_V1: [&str; 2] = ["devices", "freezer"];
/// File systems that a copy-on-write pool can be made of, the better one first.
const POOL_FILESYSTEMS: [&str; 2] = ["xfs", "btrfs"];

const GIVE_PRIVILEGES: &str =
    "start the box with --privileged, or as `andon up` does where the host allows less";

fn finding(severity: Severity, subject: &'static str, found: impl Into<String>, remedy: &str) -> Finding {
    Finding { severity, subject, found: found.into(), remedy: remedy.to_owned() }
}

fn fine(subject: &'static str, found: impl Into<String>) -> Finding {
    finding(Severity::Fine, subject, found, "")
}

impl HostReport {
    /// Judges facts; pure, so that every host can be tried on any.
    #[must_use]
    pub fn judge(role: Role, facts: Facts) -> Self {
        let mut findings = vec![fine("kernel", facts.kernel.clone()), capabilities(role, &facts)];
        findings.push(cgroups(&facts));
        // Without the right to mount nothing can be tried, and the one problem would be told as several.
        if role == Role::Worker && facts.effective.has("SYS_ADMIN") {
            findings.push(overlay(&facts));
        }
        findings.push(pool(&facts));
        findings.push(space(&facts));
        Self { findings, facts }
    }
}

fn capabilities(role: Role, facts: &Facts) -> Finding {
    let subject = "capabilities";
    // The engine has its own; what this process has matters only where it starts one.
    let set = if role == Role::Worker { facts.effective } else { facts.bounding };
    let lacking: Vec<&str> = NEEDED.into_iter().filter(|name| !set.has(name)).collect();
    if lacking.is_empty() {
        return fine(subject, facts.bounding.to_string());
    }
    let remedy = match role {
        Role::Worker if lacking.iter().all(|name| facts.bounding.has(name)) => "run the worker as root",
        Role::Worker => GIVE_PRIVILEGES,
        Role::Outer => "use a host, or a virtual machine, that allows containers to run containers",
    };
    finding(Severity::Problem, subject, format!("{} missing", lacking.join(", ")), remedy)
}

fn cgroups(facts: &Facts) -> Finding {
    let subject = "control groups";
    let groups = &facts.cgroups;
    let (version, needed) = match groups.hierarchies {
        Hierarchies::Absent => {
            return finding(Severity::Problem, subject, "none are mounted", "mount them at /sys/fs/cgroup");
        }
        Hierarchies::V1 => ("version 1", [&CONTROLLERS_NEEDED[..], &CONTROLLERS_NEEDED_V1].concat()),
        Hierarchies::V2 => ("version 2", CONTROLLERS_NEEDED.to_vec()),
    };
    let lacking: Vec<&str> =
        needed.into_iter().filter(|name| !groups.controllers.iter().any(|found| found == name)).collect();
    if !lacking.is_empty() {
        let found = format!("{version} without {}", lacking.join(", "));
        return finding(
            Severity::Problem,
            subject,
            found,
            "enable these controllers on the host (kernel command line)",
        );
    }
    fine(subject, version)
}

fn overlay(facts: &Facts) -> Finding {
    let subject = "overlay";
    match &facts.overlay {
        Ok(()) => fine(subject, format!("works in {}", facts.data.display())),
        Err(error) => {
            let found = format!("overlay file systems do not work in {} ({error})", facts.data.display());
            let remedy =
                "put a volume with a real file system (ext4, xfs, btrfs) there, not a container's own layer";
            finding(Severity::Problem, subject, found, remedy)
        }
    }
}

fn pool(facts: &Facts) -> Finding {
    let subject = "copy on write";
    let known = |name: &&str| facts.filesystems.iter().any(|found| found == name);
    let candidates: Vec<&str> = POOL_FILESYSTEMS.iter().filter(|name| known(name)).copied().collect();
    if candidates.is_empty() {
        let remedy = "load the kernel's xfs or btrfs module for fast rebases (modprobe xfs)";
        return finding(Severity::Warning, subject, "neither xfs nor btrfs is loaded", remedy);
    }
    let names = candidates.join(", ");
    if facts.loop_devices {
        return fine(subject, format!("{names} and loop devices"));
    }
    let found = format!("{names}, but no loop devices");
    finding(
        Severity::Warning,
        subject,
        found,
        "load the kernel's loop module, or put the data on such a file system",
    )
}

fn space(facts: &Facts) -> Finding {
    let subject = "disk";
    let place = facts.data.display();
    let gigabytes = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes >> 20) % 1024) * 10 / 1024);
    let found =
        format!("{} free of {} in {place}", gigabytes(facts.free_bytes), gigabytes(facts.total_bytes));
    if facts.free_bytes < FREE_BYTES_MIN {
        let remedy = format!("free at least {}", gigabytes(FREE_BYTES_MIN));
        return finding(Severity::Problem, subject, found, &remedy);
    }
    if let Some(inodes) = facts.free_inodes.filter(|inodes| *inodes < FREE_INODES_MIN) {
        let found = format!("{inodes} inodes free in {place}");
        return finding(Severity::Problem, subject, found, &format!("free at least {FREE_INODES_MIN}"));
    }
    if facts.free_bytes < FREE_BYTES_COMFORTABLE {
        let remedy = format!("{} are comfortable", gigabytes(FREE_BYTES_COMFORTABLE));
        return finding(Severity::Warning, subject, found, &remedy);
    }
    fine(subject, found)
}

#[cfg(test)]
mod tests {
    use super::super::{Capabilities, Cgroups};
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    fn good() -> Facts {
        let controllers = ["cpu", "devices", "freezer", "memory", "pids"];
        Facts {
            kernel: "6.18.1".to_owned(),
            bounding: Capabilities::new(ALL, 40),
            effective: Capabilities::new(ALL, 40),
            cgroups: Cgroups {
                hierarchies: Hierarchies::V1,
                controllers: controllers.map(str::to_owned).to_vec(),
                read_only: true,
            },
            filesystems: vec!["overlay".to_owned(), "xfs".to_owned()],
            data: "/data".into(),
            overlay: Ok(()),
            loop_devices: true,
            free_bytes: 50 << 30,
            total_bytes: 100 << 30,
            free_inodes: Some(1_000_000),
        }
    }

    fn problems(role: Role, facts: Facts) -> Vec<String> {
        HostReport::judge(role, facts).problems().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_host_has_neither_problems_nor_warnings() {
        let report = HostReport::judge(Role::Worker, good());
        assert!(report.findings.iter().all(|finding| finding.severity == Severity::Fine), "{report:?}");
        assert_eq!(report.require(), Ok(()));
    }

    #[test]
    fn a_host_without_sys_resource_is_good_enough() {
        let without = Capabilities::new(ALL & !(1 << 24), 40);
        assert_eq!(
            problems(Role::Worker, Facts { bounding: without, effective: without, ..good() }),
            [""; 0]
        );
    }

    #[test]
    fn a_box_without_privileges_is_told_which_to_give() {
        let default = Capabilities::new(0xa804_25fb, 40);
        let overlay = Err("Operation not permitted".to_owned());
        let facts = Facts { bounding: default, effective: default, overlay, ..good() };
        let found = problems(Role::Worker, facts);
        assert_eq!(found.len(), 1, "what follows from it is not told beside it: {found:?}");
        assert!(
            found[0].starts_with("capabilities: NET_ADMIN, SYS_ADMIN missing: start the box with"),
            "{found:?}"
        );
    }

    #[test]
    fn a_worker_that_is_not_root_is_told_so() {
        let facts = Facts { effective: Capabilities::new(0, 40), ..good() };
        assert!(problems(Role::Worker, facts.clone())[0].ends_with("run the worker as root"));
        assert_eq!(problems(Role::Outer, facts), [""; 0], "the engine of the host has its own privileges");
    }

    #[test]
    fn overlay_on_overlay_is_refused_with_what_to_do() {
        let facts = Facts { overlay: Err("Invalid argument".to_owned()), ..good() };
        let found = problems(Role::Worker, facts);
        assert!(found[0].contains("/data (Invalid argument): put a volume"), "{found:?}");
    }

    #[test]
    fn missing_controllers_are_named() {
        let cgroups = Cgroups { controllers: vec!["cpu".to_owned(), "pids".to_owned()], ..good().cgroups };
        let found = problems(Role::Worker, Facts { cgroups: cgroups.clone(), ..good() });
        assert!(found[0].contains("version 1 without memory, devices, freezer"), "{found:?}");
        let cgroups = Cgroups { hierarchies: Hierarchies::V2, ..cgroups };
        let found = problems(Role::Worker, Facts { cgroups, ..good() });
        assert!(found[0].contains("version 2 without memory:"), "{found:?}");
    }

    #[test]
    fn a_nearly_full_disk_is_a_problem_in_bytes_or_in_inodes() {
        assert!(problems(Role::Outer, Facts { free_bytes: 1 << 30, ..good() })[0].contains("1.0 GiB free"));
        assert!(problems(Role::Outer, Facts { free_inodes: Some(7), ..good() })[0].contains("7 inodes free"));
        assert_eq!(problems(Role::Outer, Facts { free_inodes: None, ..good() }), [""; 0]);
    }

    #[test]
    fn a_host_without_a_copy_on_write_file_system_is_slower_not_unfit() {
        let report = HostReport::judge(Role::Worker, Facts { filesystems: Vec::new(), ..good() });
        assert_eq!(report.require(), Ok(()));
        let warnings = report.findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
        assert_eq!(warnings, 1);
    }

    #[test]
    fn all_problems_are_said_at_once() {
        let facts = Facts { overlay: Err("x".to_owned()), free_bytes: 0, ..good() };
        let error = HostReport::judge(Role::Worker, facts).require().expect_err("two problems");
        assert_eq!(error.problems.len(), 2, "{error}");
    }
}
