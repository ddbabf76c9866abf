//! What the values of `andon.toml` must be beyond their types, and what several keys mean together.

use std::collections::HashMap;

use globset::{Glob, GlobBuilder};
use toml::de::DeTable;

use super::problem::{Findings, Located, quoted};
use super::{NAME_FORM, RepoPath, Suite, is_name};

/// The longest shell command of a configuration.
const COMMAND_LEN_MAX: usize = 16 * 1024;
/// The most pairs of a table of environment, labels or build arguments.
pub(super) const PAIRS_MAX: usize = 256;
/// The longest value of such a pair.
const VALUE_LEN_MAX: usize = 16 * 1024;
/// The longest reference of an image.
const REFERENCE_LEN_MAX: usize = 512;

type Pair = (Located<String>, String);

/// Suite names are the first part of a test's whole name, so they are unique.
pub(crate) fn unique_suites(findings: &mut Findings<'_>, document: &DeTable<'_>, suites: &[Suite]) {
    let items = document.get("suite").and_then(|value| value.get_ref().as_array());
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for (index, suite) in suites.iter().enumerate().filter(|(_, suite)| !suite.name.is_empty()) {
        let item = items.and_then(|items| items.get(index));
        let name = item.and_then(|item| item.get_ref().as_table()?.get("name"));
        let place = findings.place(name.map_or(0, |name| name.span().start));
        match seen.get(suite.name.as_str()) {
            Some(line) => {
                let message = format!("suite {} is on line {line} already", quoted(&suite.name));
                findings.problem(place, message);
            }
            None => {
                seen.insert(&suite.name, place.line);
            }
        }
    }
}

/// A name as [`is_name`] wants it.
pub(crate) fn name(findings: &mut Findings<'_>, what: &str, name: &Located<String>) {
    if !is_name(&name.value) {
        let message = format!("{} is no name for a {what}: {NAME_FORM}", quoted(&name.value));
        findings.problem(name.place.clone(), message);
    }
}

/// A shell command: something, and not a book.
pub(crate) fn command(findings: &mut Findings<'_>, what: &str, command: &Located<String>) {
    if command.value.trim().is_empty() {
        findings.problem(command.place.clone(), format!("{what} is empty"));
    } else if command.value.len() > COMMAND_LEN_MAX {
        let message = format!("{what} is longer than {COMMAND_LEN_MAX} bytes: put it into a script");
        findings.problem(command.place.clone(), message);
    }
}

/// A path written in `folder`, or the problem with it.
pub(crate) fn repo_path(
    findings: &mut Findings<'_>,
    key: &str,
    folder: &RepoPath,
    text: &Located<String>,
) -> Option<RepoPath> {
    match folder.join(&text.value) {
        Ok(path) => Some(path),
        Err(error) => {
            findings.problem(text.place.clone(), format!("{key:?}: {} {error}", quoted(&text.value)));
            None
        }
    }
}

/// A glob over the repository's paths.
pub(crate) fn input_glob(findings: &mut Findings<'_>, glob: &Located<String>) {
    let text = glob.value.as_str();
    let outside = text.starts_with('/') || text.split('/').any(|part| part == ".." || part == ".");
    if text.is_empty() {
        findings.problem(glob.place.clone(), "an input is empty");
    } else if outside {
        let message =
            format!("input {}: write a path from the repository's root, such as \"db/**\"", quoted(text));
        findings.problem(glob.place.clone(), message);
    } else if let Err(error) = path_glob(text) {
        findings.problem(glob.place.clone(), format!("input {}: {}", quoted(text), error.kind()));
    }
}

/// `*` stays within a folder, `**` does not.
pub(crate) fn path_glob(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build()
}

/// As [`path_glob`], over branch names.
pub(crate) fn branch_glob(text: &str) -> Result<Glob, globset::Error> {
    path_glob(text)
}

/// The longest line of those who may be reached.
const EGRESS_LEN_MAX: usize = 260;

/// `name:port`, `*.name:port` or an address with a port. The worker reads it again, and refuses what it cannot read.
pub(crate) fn egress(findings: &mut Findings<'_>, line: &Located<String>) {
    let text = line.value.as_str();
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    let name = host.strip_prefix("*.").unwrap_or(host);
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let named = name.split('.').all(|part| !part.is_empty() && part.chars().all(fit));
    let ported = port.parse::<u16>().is_ok_and(|port| port > 0);
    if !ported || !(address || named) || text.len() > EGRESS_LEN_MAX {
        let message = format!("egress {}: write \"pypi.org:443\" or \"*.example.com:443\"", quoted(text));
        findings.problem(line.place.clone(), message);
    }
}

/// A branch, or a glob over branches.
pub(crate) fn branch_pattern(findings: &mut Findings<'_>, branch: &Located<String>) {
    let text = branch.value.as_str();
    if let Some(short) = text.strip_prefix("refs/heads/") {
        let message = format!("branch {}: write {} without refs/heads/", quoted(text), quoted(short));
        findings.problem(branch.place.clone(), message);
    } else if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
        findings.problem(branch.place.clone(), format!("{} is no branch", quoted(text)));
    } else if let Err(error) = branch_glob(text) {
        findings.problem(branch.place.clone(), format!("branch {}: {}", quoted(text), error.kind()));
    }
}

/// A variable's name: what every shell takes.
pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn bounded(findings: &mut Findings<'_>, what: &str, pairs: Vec<Pair>) -> Vec<Pair> {
    if let Some((key, _)) = pairs.get(PAIRS_MAX) {
        findings.problem(key.place.clone(), format!("more than {PAIRS_MAX} {what}"));
    }
    for (key, value) in &pairs {
        if value.len() > VALUE_LEN_MAX {
            let message = format!("{} is longer than {VALUE_LEN_MAX} bytes", quoted(&key.value));
            findings.problem(key.place.clone(), message);
        }
    }
    pairs
}

fn plain(pairs: Vec<Pair>) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = pairs.into_iter().map(|(key, value)| (key.value, value)).collect();
    pairs.sort();
    pairs
}

/// A suite's environment. `ANDON_…` is the farm's own.
pub(crate) fn environment(findings: &mut Findings<'_>, pairs: Vec<Pair>) -> Vec<(String, String)> {
    let pairs = bounded(findings, "variables", pairs);
    for (key, _) in &pairs {
        if !is_variable(&key.value) {
            let message = format!("{} is no variable: letters, digits and \"_\"", quoted(&key.value));
            findings.problem(key.place.clone(), message);
        } else if key.value.starts_with("ANDON_") {
            let message = format!("{} is set by Andon itself: choose another name", quoted(&key.value));
            findings.problem(key.place.clone(), message);
        }
    }
    plain(pairs)
}

/// Build arguments.
pub(crate) fn build_args(findings: &mut Findings<'_>, pairs: Vec<Pair>) -> Vec<(String, String)> {
    let pairs = bounded(findings, "build arguments", pairs);
    for (key, _) in pairs.iter().filter(|(key, _)| !is_variable(&key.value)) {
        let message = format!("{} is no build argument: letters, digits and \"_\"", quoted(&key.value));
        findings.problem(key.place.clone(), message);
    }
    plain(pairs)
}

/// The user's labels; `dev.andon.…` is the farm's own.
pub(crate) fn labels(findings: &mut Findings<'_>, pairs: Vec<Pair>) -> Vec<(String, String)> {
    let pairs = bounded(findings, "labels", pairs);
    for (key, _) in &pairs {
        if key.value.is_empty()
            || key.value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=')
        {
            let message = format!("{} is no label: no spaces and no \"=\"", quoted(&key.value));
            findings.problem(key.place.clone(), message);
        } else if key.value.starts_with("dev.andon.") || key.value.starts_with("org.opencontainers.") {
            let message = format!("label {} is set by Andon itself: choose another name", quoted(&key.value));
            findings.problem(key.place.clone(), message);
        }
    }
    plain(pairs)
}

/// Absolute, normal, and not the container's root.
pub(crate) fn workdir(findings: &mut Findings<'_>, path: Located<String>) -> String {
    if !is_container_path(&path.value) || path.value == "/" {
        let message = format!(
            "workdir {}: write an absolute path without \"..\", such as \"/src\"",
            quoted(&path.value)
        );
        findings.problem(path.place, message);
    }
    path.value
}

/// An absolute path with nothing surprising in it.
pub(crate) fn is_container_path(path: &str) -> bool {
    path.len() <= 1024
        && path.starts_with('/')
        && !path.contains([':', '\\', ','])
        && !path.chars().any(char::is_control)
        && (path == "/" || path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != ".."))
}

/// A reference as engines take it: no more than its characters is checked.
pub(crate) fn image_reference(findings: &mut Findings<'_>, text: &Located<String>) {
    if !is_image_reference(&text.value) {
        let message =
            format!("{} is no image: write \"name:tag\" or \"registry/name@sha256:…\"", quoted(&text.value));
        findings.problem(text.place.clone(), message);
    }
}

pub(crate) fn is_image_reference(text: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    !text.is_empty()
        && text.len() <= REFERENCE_LEN_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(fit)
}
