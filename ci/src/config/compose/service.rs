//! One service of a compose file.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::check::{is_container_path, is_image_reference, is_variable, repo_path};
use super::super::limits::{self, Limits};
use super::super::problem::{Findings, Located, Place, choices, quoted};
use super::super::{Build, Image, RepoPath, is_name};
use super::fields::{self, Fields};
use super::grants::Grants;
use super::volumes;
use super::yaml::{Entry, Value};
use super::{Condition, Dependency, Healthcheck, Service};

/// The longest time that a healthcheck or a stop may name.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// The most retries of a healthcheck.
const HEALTH_RETRIES_MAX: u32 = 1000;

/// What to do instead of keys that are refused.
const INSTEAD: [(&str, &str); 22] = [
    ("privileged", "a service of a stack runs unprivileged; single capabilities go into \"cap_add\""),
    ("network_mode", "all services share the stack's private network and reach each other by name"),
    ("env_file", "write the variables under \"environment\""),
    ("extends", "write the service out, or use a YAML anchor and \"<<\""),
    ("profiles", "every service of the file is part of the stack: keep others in another file"),
    ("links", "services reach each other by name; further names go into networks: default: aliases"),
    ("external_links", "a stack reaches nothing outside of itself"),
    ("extra_hosts", "give the service that is meant an alias in networks: default: aliases"),
    ("devices", "a stack has no devices of the worker"),
    ("pid", "namespaces are not shared"),
    ("ipc", "namespaces are not shared; \"shm_size\" sets the size of /dev/shm"),
    ("userns_mode", "namespaces are not shared"),
    ("uts", "namespaces are not shared"),
    ("security_opt", "a service runs with the engine's defaults"),
    ("cgroup_parent", "the worker owns its control groups"),
    ("volumes_from", "name the volume in both services"),
    ("platform", "services run on the worker's own architecture"),
    ("scale", "a stack has one container a service"),
    ("logging", "the worker keeps a service's output itself"),
    ("ulimits", "the worker sets limits"),
    ("memswap_limit", "a service has no swap beside its \"mem_limit\""),
    ("develop", "tests run at one commit"),
];

const BUILD_INSTEAD: [(&str, &str); 3] = [
    ("dockerfile_inline", "write a Dockerfile into the repository"),
    ("secrets", "a build on a worker has none"),
    ("ssh", "a build on a worker has no keys"),
];

/// A service whose dependencies still know their places.
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) depends_on: Vec<Located<Dependency>>,
    service: Service,
}

impl Draft {
    pub(crate) fn finish(self) -> Service {
        let depends_on = self.depends_on.into_iter().map(|located| located.value).collect();
        Service { depends_on, ..self.service }
    }
}

/// Reads one entry of `services`.
pub(crate) fn read(
    findings: &mut Findings<'_>,
    folder: &RepoPath,
    volumes: &BTreeSet<String>,
    grants: &Grants,
    entry: &Entry,
) -> Draft {
    let mut fields = Fields::of(findings, format!("service {}", quoted(&entry.key)), &entry.value);
    let image = image(findings, &mut fields, folder, entry);
    let depends_on = depends_on(findings, &mut fields);
    let granted = grants.of(findings, &mut fields);
    let service = Service {
        name: entry.key.clone(),
        image,
        entrypoint: fields.argv(findings, "entrypoint"),
        command: fields.argv(findings, "command"),
        environment: environment(findings, &mut fields),
        mounts: volumes::mounts(findings, &mut fields, folder, volumes, granted),
        healthcheck: healthcheck(findings, &mut fields),
        depends_on: Vec::new(),
        aliases: aliases(findings, &mut fields),
        hostname: hostname(findings, &mut fields),
        user: word(findings, &mut fields, "user"),
        working_dir: working_dir(findings, &mut fields),
        stop_signal: stop_signal(findings, &mut fields),
        stop_grace_period: fields.duration(findings, "stop_grace_period", TIME_MAX),
        shm_bytes: fields.bytes(findings, "shm_size"),
        limits: limits(findings, &mut fields),
        init: fields.bool(findings, "init").unwrap_or(false),
        cap_add: capabilities(findings, &mut fields),
        sysctls: plain(fields.pairs(findings, "sysctls")),
        read_only: fields.bool(findings, "read_only").unwrap_or(false),
        tty: fields.bool(findings, "tty").unwrap_or(false),
        labels: plain(fields.pairs(findings, "labels")),
    };
    fields.texts(findings, "expose");
    fields.ignored(findings, "ports", "services are reached by their names, on their own ports");
    fields.ignored(
        findings,
        "container_name",
        "each lane has a container of its own; it is reached by its service's name",
    );
    fields.ignored(findings, "restart", "a service that dies while a test runs is a failure to be seen");
    fields.finish(findings, &INSTEAD);
    Draft { name: entry.key.clone(), depends_on, service }
}

fn plain(pairs: Vec<(Located<String>, String)>) -> Vec<(String, String)> {
    pairs.into_iter().map(|(key, value)| (key.value, value)).collect()
}

fn image(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    folder: &RepoPath,
    entry: &Entry,
) -> Located<Image> {
    let reference = fields.text(findings, "image");
    if let Some(text) = reference.as_ref().filter(|text| !is_image_reference(&text.value)) {
        findings
            .problem(text.place.clone(), format!("{} is no image: write \"name:tag\"", quoted(&text.value)));
    }
    let nothing = || Located { value: Image::Reference(String::new()), place: entry.place.clone() };
    if let Some(built) = fields.entry("build") {
        if let Some(text) = reference {
            findings.note(text.place, "\"image\" has no effect: the service has a \"build\"");
        }
        return match build(findings, folder, built) {
            Some(build) => Located { value: Image::Build(build), place: built.place.clone() },
            None => nothing(),
        };
    }
    match reference {
        Some(text) => Located { value: Image::Reference(text.value), place: text.place },
        None => {
            if !matches!(fields.entry("image"), Some(entry) if !matches!(entry.value.value, Value::Null)) {
                let message = format!("service {} has no \"image\" and no \"build\"", quoted(&entry.key));
                findings.problem(entry.place.clone(), message);
            }
            nothing()
        }
    }
}

fn build(findings: &mut Findings<'_>, folder: &RepoPath, entry: &Entry) -> Option<Build> {
    let dockerfile = "Dockerfile".to_owned();
    let (context, dockerfile, target, args) = match &entry.value.value {
        Value::Scalar(_) => {
            let context = fields::text(findings, "build", &entry.value)?;
            let dockerfile = Located { value: dockerfile, place: entry.place.clone() };
            (context, dockerfile, String::new(), Vec::new())
        }
        _ => {
            let mut fields = Fields::of(findings, "build".to_owned(), &entry.value);
            let root = Located { value: ".".to_owned(), place: entry.place.clone() };
            let context = fields.text(findings, "context").unwrap_or_else(|| root.clone());
            let dockerfile = fields
                .text(findings, "dockerfile")
                .unwrap_or(Located { value: dockerfile, place: entry.place.clone() });
            let target = word(findings, &mut fields, "target");
            let args = variables(findings, &mut fields, "args");
            fields.finish(findings, &BUILD_INSTEAD);
            (context, dockerfile, target, args)
        }
    };
    if context.value.contains("://") || context.value.starts_with("git@") {
        findings.problem(
            context.place,
            "a build from elsewhere is not supported: the context is a folder of the repository",
        );
        return None;
    }
    let context = repo_path(findings, "context", folder, &context);
    let dockerfile = repo_path(findings, "dockerfile", &RepoPath::root(), &dockerfile);
    Some(Build { context: context?, dockerfile: dockerfile?, target, args })
}

fn variables(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    key: &'static str,
) -> Vec<(String, String)> {
    let pairs = fields.pairs(findings, key);
    for (name, _) in pairs.iter().filter(|(name, _)| !is_variable(&name.value)) {
        let message = format!("{} is no variable: letters, digits and \"_\"", quoted(&name.value));
        findings.problem(name.place.clone(), message);
    }
    plain(pairs)
}

const DEPLOY_INSTEAD: &str =
    "of \"deploy\" only resources: limits: is taken: a stack has one container a service";

/// `mem_limit`, `cpus`, `pids_limit`, or the same beneath `deploy`.
fn limits(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Limits {
    let mut own = limits_of(findings, fields, ["mem_limit", "cpus", "pids_limit"]);
    if let Some(entry) = fields.entry("deploy") {
        let mut deploy = Fields::of(findings, "deploy".to_owned(), &entry.value);
        if let Some(entry) = deploy.entry("resources") {
            let mut resources = Fields::of(findings, "resources".to_owned(), &entry.value);
            if let Some(entry) = resources.entry("limits") {
                let mut fields = Fields::of(findings, "limits".to_owned(), &entry.value);
                own = own.or(limits_of(findings, &mut fields, ["memory", "cpus", "pids"]));
                fields.finish(findings, &[]);
            }
            resources.ignored(findings, "reservations", "a worker shares nothing out beforehand");
            resources.finish(findings, &[]);
        }
        let others = ["replicas", "mode", "restart_policy", "placement", "update_config"];
        deploy.finish(findings, &others.map(|key| (key, DEPLOY_INSTEAD)));
    }
    own
}

fn limits_of(findings: &mut Findings<'_>, fields: &mut Fields<'_>, keys: [&'static str; 3]) -> Limits {
    let [memory, cpus, pids] = keys;
    let memory_bytes = fields.text(findings, memory).and_then(|text| limits::memory(findings, memory, &text));
    let cpu_millis = fields.text(findings, cpus).and_then(|text| limits::cpus(findings, cpus, &text));
    let pids = fields.number(findings, pids, limits::PIDS_MAX);
    Limits {
        memory_bytes: memory_bytes.unwrap_or(0),
        cpu_millis: cpu_millis.unwrap_or(0),
        pids: pids.unwrap_or(0).into(),
        // A service's disk is its lane's.
        disk_bytes: 0,
    }
}

/// Containers take more names than shells do (`my.setting`), so only what breaks `NAME=value` is refused.
fn environment(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Vec<(String, String)> {
    let pairs = fields.pairs(findings, "environment");
    for (name, _) in &pairs {
        let broken = name.value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=');
        if name.value.is_empty() || broken {
            let message = format!("{} is no variable: no spaces and no \"=\"", quoted(&name.value));
            findings.problem(name.place.clone(), message);
        }
    }
    plain(pairs)
}

fn healthcheck(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Option<Healthcheck> {
    let entry = fields.entry("healthcheck")?;
    let mut fields = Fields::of(findings, "healthcheck".to_owned(), &entry.value);
    let disable = fields.bool(findings, "disable").unwrap_or(false);
    let test = fields.entry("test").and_then(|entry| match &entry.value.value {
        Value::Scalar(_) => {
            let text = fields::text(findings, "test", &entry.value)?;
            Some(vec!["CMD-SHELL".to_owned(), text.value])
        }
        _ => {
            let items = fields::items(findings, "test", &entry.value)?;
            let words: Vec<String> =
                items.iter().filter_map(|item| Some(fields::text(findings, "test", item)?.value)).collect();
            test_form(findings, &entry.value.place, &words);
            Some(words)
        }
    });
    let check = Healthcheck {
        test: if disable { vec!["NONE".to_owned()] } else { test.unwrap_or_default() },
        interval: fields.duration(findings, "interval", TIME_MAX),
        timeout: fields.duration(findings, "timeout", TIME_MAX),
        retries: fields.number(findings, "retries", HEALTH_RETRIES_MAX),
        start_period: fields.duration(findings, "start_period", TIME_MAX),
    };
    fields.finish(findings, &[("start_interval", "\"interval\" is used from the start")]);
    Some(check)
}

fn test_form(findings: &mut Findings<'_>, place: &Place, words: &[String]) {
    let message = match words {
        [first] if first == "NONE" => return,
        [first, _, ..] if first == "CMD" => return,
        [first, _] if first == "CMD-SHELL" => return,
        [first, ..] if first == "CMD-SHELL" => {
            "after \"CMD-SHELL\" comes one text, the shell's line".to_owned()
        }
        [first] if first == "CMD" => "after \"CMD\" comes the command".to_owned(),
        _ => format!("a test begins with {}", choices(&["CMD", "CMD-SHELL", "NONE"])),
    };
    findings.problem(place.clone(), message);
}

const CONDITIONS: [(&str, Condition); 3] = [
    ("service_started", Condition::Started),
    ("service_healthy", Condition::Healthy),
    ("service_completed_successfully", Condition::Completed),
];

fn depends_on(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Vec<Located<Dependency>> {
    let Some(entry) = fields.entry("depends_on") else { return Vec::new() };
    let Value::Map(entries) = &entry.value.value else {
        let items = fields::items(findings, "depends_on", &entry.value).unwrap_or_default();
        let names = items.iter().filter_map(|item| fields::text(findings, "depends_on", item));
        return names
            .map(|name| Located {
                value: Dependency { service: name.value, condition: Condition::Started },
                place: name.place,
            })
            .collect();
    };
    let mut dependencies = Vec::new();
    for entry in entries {
        let title = format!("dependency {}", quoted(&entry.key));
        let mut fields = Fields::of(findings, title, &entry.value);
        let mut condition = Condition::Started;
        if let Some(text) = fields.text(findings, "condition") {
            match CONDITIONS.iter().find(|(word, _)| *word == text.value) {
                Some((_, known)) => condition = *known,
                None => {
                    let words = CONDITIONS.map(|(word, _)| word);
                    let message = format!("condition {}: write {}", quoted(&text.value), choices(&words));
                    findings.problem(text.place, message);
                }
            }
        }
        fields.ignored(findings, "restart", "services are not restarted one by one");
        if fields.bool(findings, "required") == Some(false) {
            findings.problem(
                entry.place.clone(),
                "an optional dependency is not supported: every service is started",
            );
        }
        fields.finish(findings, &[]);
        let value = Dependency { service: entry.key.clone(), condition };
        dependencies.push(Located { value, place: entry.place.clone() });
    }
    dependencies
}

fn aliases(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Vec<String> {
    let Some(entry) = fields.entry("networks") else { return Vec::new() };
    let mut aliases = Vec::new();
    let only_default = |findings: &mut Findings<'_>, name: &str, place: &Place| {
        if name != "default" {
            let message = format!(
                "network {} is not supported: all services of a stack share one private network",
                quoted(name)
            );
            findings.problem(place.clone(), message);
        }
    };
    let Value::Map(entries) = &entry.value.value else {
        for item in fields::items(findings, "networks", &entry.value).unwrap_or_default() {
            if let Some(name) = fields::text(findings, "networks", item) {
                only_default(findings, &name.value, &name.place);
            }
        }
        return aliases;
    };
    for network in entries {
        only_default(findings, &network.key, &network.place);
        let title = format!("network {}", quoted(&network.key));
        let mut fields = Fields::of(findings, title, &network.value);
        for alias in fields.texts(findings, "aliases").unwrap_or_default() {
            if is_name(&alias.value) {
                aliases.push(alias.value);
            } else {
                findings.problem(alias.place, format!("{} is no alias", quoted(&alias.value)));
            }
        }
        let fixed = "a stack's addresses are the worker's to give: use the service's name";
        fields.finish(findings, &[("ipv4_address", fixed), ("ipv6_address", fixed)]);
    }
    aliases
}

fn hostname(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> String {
    let Some(text) = fields.text(findings, "hostname") else { return String::new() };
    if !is_name(&text.value) {
        findings.problem(text.place, format!("{} is no host name", quoted(&text.value)));
    }
    text.value
}

/// A text without spaces.
fn word(findings: &mut Findings<'_>, fields: &mut Fields<'_>, key: &'static str) -> String {
    let Some(text) = fields.text(findings, key) else { return String::new() };
    if text.value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        findings.problem(text.place, format!("{key:?} is {}: one word, without spaces", quoted(&text.value)));
    }
    text.value
}

fn working_dir(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> String {
    let Some(text) = fields.text(findings, "working_dir") else { return String::new() };
    if !is_container_path(&text.value) {
        let message = format!("\"working_dir\" is {}: write an absolute path", quoted(&text.value));
        findings.problem(text.place, message);
    }
    text.value
}

fn stop_signal(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> String {
    let Some(text) = fields.text(findings, "stop_signal") else { return String::new() };
    let name = text.value.strip_prefix("SIG").unwrap_or(&text.value);
    let fit = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '+' | '-');
    if name.is_empty() || name.len() > 16 || !name.chars().all(fit) {
        findings
            .problem(text.place, format!("{} is no signal: write SIGTERM, for example", quoted(&text.value)));
    }
    text.value
}

fn capabilities(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Vec<String> {
    let mut capabilities = Vec::new();
    for text in fields.texts(findings, "cap_add").unwrap_or_default() {
        let fit = |c: char| c.is_ascii_uppercase() || c == '_';
        if text.value == "ALL" {
            findings.problem(
                text.place,
                "all capabilities are as good as \"privileged\": name those that are needed",
            );
        } else if text.value.is_empty() || !text.value.chars().all(fit) {
            findings.problem(
                text.place,
                format!("{} is no capability: write SYS_NICE, for example", quoted(&text.value)),
            );
        } else {
            capabilities.push(text.value);
        }
    }
    capabilities
}
