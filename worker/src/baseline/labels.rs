//! A baseline's metadata: where, when and why it was built, from what, how to start and check it.
//!
//! Pure. Keys are those of the OCI image specification's annotations where it has one, `dev.andon.*` otherwise. Invariant: the
//! user's own labels are kept, but cannot pass for Andon's.

use andon_proto::{BaselineService, BaselineStepDone, KeyValue, RunSpec, Trigger};

use super::key::FORMAT;
use crate::stack::StackPlan;

/// Andon's own.
const OWN: &str = "dev.andon.";
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 4096;

/// What is known of a build besides the specification.
#[derive(Debug, Clone)]
pub(crate) struct BuildFacts<'a> {
    /// The baseline's key.
    pub(crate) key: &'a str,
    /// What it was built on; empty for nothing.
    pub(crate) parent_key: &'a str,
    /// Everything that was run for it, now or for its parent.
    pub(crate) steps: &'a [BaselineStepDone],
    /// Who built it.
    pub(crate) worker: &'a str,
    /// For which run.
    pub(crate) run: u64,
    /// When it was ready.
    pub(crate) built_unix_ms: u64,
    /// How long it took.
    pub(crate) build_ms: u64,
}

/// All labels, by key.
pub(crate) fn labels_of(
    spec: &RunSpec,
    plan: &StackPlan,
    services: &[BaselineService],
    facts: &BuildFacts<'_>,
) -> Vec<KeyValue> {
    let baseline = spec.baseline.clone().unwrap_or_default();
    let provenance = spec.provenance.clone().unwrap_or_default();
    let why = match provenance.trigger() {
        Trigger::Push => "a push",
        Trigger::Person => "a person's request",
        Trigger::Rerun => "a rerun",
        Trigger::Scheduled => "a schedule",
        Trigger::Unspecified => "a request",
    };
    let images: Vec<String> = services
        .iter()
        .map(|service| format!("{}={} ({})", service.name, service.reference, service.image_id))
        .collect();
    let base = services.first().cloned().unwrap_or_default();
    let mut labels = Labels::default();
    labels.oci("created", &rfc3339(facts.built_unix_ms));
    labels.oci("title", &format!("{} baseline", spec.project));
    labels.oci(
        "description",
        &format!("the seeded, healthy stack of {} as its tests start from it", spec.project),
    );
    labels.oci("source", &spec.repository);
    labels.oci("revision", &spec.commit);
    labels.oci("ref.name", &spec.git_ref);
    labels.oci("version", facts.key.get(..12).unwrap_or(facts.key));
    labels.oci("base.name", &base.reference);
    labels.oci("base.digest", &base.image_id);
    labels.own("baseline.key", facts.key);
    labels.own("baseline.parent", facts.parent_key);
    labels.own("baseline.steps", &steps_run(facts.steps));
    labels.own("baseline.format", &FORMAT.to_string());
    labels.own("baseline.build-ms", &facts.build_ms.to_string());
    labels.own("project", &spec.project);
    labels.own("run", &facts.run.to_string());
    labels.own("worker", facts.worker);
    labels.own("why", &format!("built for {why}"));
    labels.own("requested-by", &provenance.requested_by);
    labels.own("services", &images.join("\n"));
    labels.own("seed", &baseline.seed.join("\n"));
    labels.own("inputs", &baseline.inputs.join("\n"));
    labels.own("inputs-digest", &baseline.inputs_digest);
    labels.own("compose-digest", &spec.stack.clone().unwrap_or_default().compose_digest);
    labels.own("start", &how_to_start(plan));
    labels.own("check", &how_to_check(plan));
    for label in baseline.labels {
        if !label.key.starts_with(OWN) {
            labels.put(label.key, &label.value);
        }
    }
    labels.0.into_iter().map(|(key, value)| KeyValue { key, value }).collect()
}

#[derive(Default)]
struct Labels(std::collections::BTreeMap<String, String>);

impl Labels {
    fn oci(&mut self, key: &str, value: &str) {
        self.put(format!("org.opencontainers.image.{key}"), value);
    }

    fn own(&mut self, key: &str, value: &str) {
        self.put(format!("{OWN}{key}"), value);
    }

    fn put(&mut self, key: String, value: &str) {
        let mut end = value.len().min(VALUE_BYTES_MAX);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        if end > 0 {
            self.0.insert(key, value[..end].to_owned());
        }
    }
}

/// A line for each step.
fn steps_run(steps: &[BaselineStepDone]) -> String {
    let line = |step: &BaselineStepDone| {
        let name = if step.name.is_empty() { String::new() } else { format!("{}: ", step.name) };
        format!("{name}{} ({} ms)", step.run.join(" && "), step.took_ms)
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn how_to_start(plan: &StackPlan) -> String {
    let mut lines = Vec::new();
    for place in plan.order.sequence() {
        let service = &plan.services[*place];
        if service.completes {
            lines.push(format!("{}: has completed, is not started", service.name));
            continue;
        }
        let mounts: Vec<String> =
            service.trees.iter().map(|mount| format!("tree {} at {}", mount.tree, mount.target)).collect();
        lines.push(format!("{}: {} with {}", service.name, service.image.reference, mounts.join(", ")));
    }
    lines.join("\n")
}

fn how_to_check(plan: &StackPlan) -> String {
    let check = |service: &crate::stack::ServicePlan| match &service.probe {
        Some(probe) => format!("{}: {}", service.name, probe.argv.join(" ")),
        None => format!("{}: runs", service.name),
    };
    let running = plan.services.iter().filter(|service| !service.completes);
    running.map(check).collect::<Vec<_>>().join("\n")
}

/// UTC, to the second.
fn rfc3339(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01 in eras of 400 years; a year that starts in March has its leap day at its end.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ImageInfo;
    use crate::hands::ResolvedImage;
    use andon_proto::{BaselineSpec, Provenance, Service, Stack};

    #[test]
    fn times_read_as_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn labels_say_whence_and_how_and_users_cannot_forge_andons() {
        let stack =
            Stack { services: vec![Service { name: "db".into(), ..Service::default() }], ..Stack::default() };
        let image =
            ResolvedImage { id: "sha256:1".into(), reference: "mysql:9".into(), build_key: String::new() };
        let plan = StackPlan::new(&stack, &[(image, ImageInfo::default())]).unwrap();
        let label = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
        let spec = RunSpec {
            project: "shop".into(),
            commit: "abc".into(),
            repository: "https://example.org/shop.git".into(),
            provenance: Some(Provenance { trigger: Trigger::Push.into(), ..Provenance::default() }),
            baseline: Some(BaselineSpec {
                labels: vec![label("team", "blue"), label("dev.andon.worker", "forged")],
                ..BaselineSpec::default()
            }),
            ..RunSpec::default()
        };
        let services = [BaselineService {
            name: "db".into(),
            reference: "mysql:9".into(),
            image_id: "sha256:1".into(),
            build_key: String::new(),
        }];
        let step = BaselineStepDone {
            name: "load".into(),
            run: vec!["a".into(), "b".into()],
            took_ms: 3,
            ..BaselineStepDone::default()
        };
        let facts = BuildFacts {
            key: &"k".repeat(64),
            parent_key: "p",
            steps: &[step],
            worker: "w1",
            run: 7,
            built_unix_ms: 0,
            build_ms: 5,
        };
        let labels = labels_of(&spec, &plan, &services, &facts);
        let get = |key: &str| labels.iter().find(|label| label.key == key).map(|label| label.value.as_str());
        assert_eq!(get("org.opencontainers.image.revision"), Some("abc"));
        assert_eq!(get("org.opencontainers.image.created"), Some("1970-01-01T00:00:00Z"));
        assert_eq!(get("org.opencontainers.image.base.name"), Some("mysql:9"));
        assert_eq!(get("dev.andon.baseline.parent"), Some("p"));
        assert_eq!(get("dev.andon.baseline.steps"), Some("load: a && b (3 ms)"));
        assert_eq!(get("dev.andon.why"), Some("built for a push"));
        assert_eq!(get("dev.andon.worker"), Some("w1"));
        assert_eq!(get("dev.andon.check"), Some("db: runs"));
        assert_eq!(get("team"), Some("blue"));
        assert_eq!(get("org.opencontainers.image.ref.name"), None);
    }
}
