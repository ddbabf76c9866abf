//! `gateway.toml`: which projects there are, where they come from, whose webhooks are believed, and who is told.
//!
//! Secrets are never in the file: it names a file or a variable of the environment for each. Unknown keys are errors.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{DEFAULT_EVERY, Hooks, WatchedProject};
use crate::forge::client::Settings as ForgeSettings;
use crate::forge::guard::{Allowed, Guard};
use crate::forge::{Kind, Secret, is_broken_signing_token};
use crate::git::RemoteUrl;
use crate::git::mirror::Credentials;

/// The largest configuration, and the largest file of a secret.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The shortest secret of a webhook: shorter ones can be guessed.
const SECRET_LEN_MIN: usize = 16;
/// A lost webhook is found by polling within a minute: longer intervals are refused.
pub const EVERY_MAX: Duration = Duration::from_secs(50);

/// Why `gateway.toml` cannot be used: everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not there, not readable.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No TOML, or with keys that are not known.
    #[error("{path} is not as it should be: {why}")]
    Toml {
        /// Which file.
        path: PathBuf,
        /// With line and column.
        why: String,
    },
    /// Mistakes in what it says.
    #[error("{path} has mistakes:\n{}", .mistakes.join("\n"))]
    Mistakes {
        /// Which file.
        path: PathBuf,
        /// One line each.
        mistakes: Vec<String>,
    },
}

/// What `gateway.toml` says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The projects.
    pub projects: Vec<WatchedProject>,
    /// Where webhooks are listened for.
    pub listen: Option<SocketAddr>,
    /// How often repositories are polled.
    pub every: Option<Duration>,
    /// Where a run is to be seen: `https://…/{run}`.
    pub run_url: Option<String>,
    /// Which internal addresses may be gone to.
    pub guard: Guard,
}

/// Who may run a fork's pull request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForkPolicy {
    /// Nobody.
    Never,
    /// Once somebody who may has approved the very commit.
    #[default]
    AfterApproval,
    /// Everybody who can open one.
    Always,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    webhooks: Webhooks,
    #[serde(default)]
    polling: Polling,
    #[serde(default)]
    statuses: Statuses,
    #[serde(default)]
    network: Network,
    #[serde(default)]
    project: Vec<Project>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhooks {
    listen: Option<SocketAddr>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Polling {
    every: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statuses {
    run_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    #[serde(default)]
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Project {
    name: String,
    url: String,
    branches: Option<Vec<String>>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    credentials: Whose,
    forge: Option<Kind>,
    repository: Option<String>,
    api: Option<String>,
    webhook_secret: Option<Source>,
    token: Option<Source>,
    #[serde(default)]
    checks: bool,
    #[serde(default)]
    forks: ForkPolicy,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Whose {
    #[default]
    None,
    User,
}

/// Where a secret is.
enum Source {
    File(PathBuf),
    Env(String),
}

/// Written out, because the usual message for a wrong type quotes the value: here that could be the secret.
impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Source;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("{ file = \"…\" } or { env = \"…\" }")
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Source, E> {
                let form = "no secret stands in this file: write { file = \"…\" } or { env = \"…\" }";
                Err(E::custom(form))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Source, A::Error> {
                use serde::de::Error as _;
                let form = || A::Error::custom("write { file = \"…\" } or { env = \"…\" }");
                let (key, value): (String, String) = map.next_entry()?.ok_or_else(form)?;
                if map.next_key::<serde::de::IgnoredAny>()?.is_some() {
                    return Err(form());
                }
                match key.as_str() {
                    "file" => Ok(Source::File(value.into())),
                    "env" => Ok(Source::Env(value)),
                    _ => Err(form()),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Source {
    /// Its values, one a line; those of a file beside `gateway.toml` by a relative path.
    fn read(&self, folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Secret>, String> {
        let text = match self {
            Self::File(path) => {
                let path = folder.join(path);
                let wrong = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
                let file = std::fs::File::open(&path).map_err(wrong)?;
                let mut text = String::new();
                file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(wrong)?;
                text
            }
            Self::Env(name) => env(name).ok_or_else(|| format!("{name} is not in the environment"))?,
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Vec<_> = lines.map(Secret::new).collect();
        if secrets.is_empty() { Err("it is empty".to_owned()) } else { Ok(secrets) }
    }
}

/// Reads the file. `env` gives variables of the environment.
pub fn read(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
    let failed = |source| SettingsError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let document: Document = toml::from_str(&text)
        .map_err(|error| SettingsError::Toml { path: path.to_owned(), why: said(&text, &error) })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut mistakes = Vec::new();
    let settings = check(document, folder, env, &mut mistakes);
    if mistakes.is_empty() {
        Ok(settings)
    } else {
        Err(SettingsError::Mistakes { path: path.to_owned(), mistakes })
    }
}

/// Place and message, without the line itself: it could hold a secret.
fn said(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message.to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

fn check(
    document: Document,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    mistakes: &mut Vec<String>,
) -> Settings {
    let mut allowed = Vec::new();
    for text in &document.network.allow {
        match Allowed::parse(text) {
            Ok(one) => allowed.push(one),
            Err(why) => mistakes.push(format!("[network] allow: {why}")),
        }
    }
    let every = document.polling.every.and_then(|text| match humantime::parse_duration(&text) {
        Ok(every) if every > Duration::ZERO && every <= EVERY_MAX => Some(every),
        Ok(_) => {
            let most = humantime::format_duration(EVERY_MAX);
            mistakes.push(format!("[polling] every = {text:?}: more than nothing, at most {most}"));
            None
        }
        Err(error) => {
            mistakes.push(format!("[polling] every = {text:?}: {error}"));
            None
        }
    });
    let run_url = document.statuses.run_url.filter(|url| {
        let fit = url.contains("{run}") && (url.starts_with("https://") || url.starts_with("http://"));
        if !fit {
            mistakes.push(format!("[statuses] run_url = {url:?}: an http(s) address with {{run}} in it"));
        }
        fit
    });
    let mut projects: Vec<WatchedProject> = Vec::new();
    for project in document.project {
        let name = project.name.clone();
        match project_of(project, folder, env) {
            Ok(project) => projects.push(project),
            Err(found) => mistakes.extend(found.into_iter().map(|why| format!("project {name:?}: {why}"))),
        }
    }
    let listen = document.webhooks.listen;
    Settings { projects, listen, every, run_url, guard: Guard::new(allowed) }
}

fn project_of(
    project: Project,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<WatchedProject, Vec<String>> {
    let mut wrong = Vec::new();
    if !crate::config::is_name(&project.name) {
        wrong.push(format!("no name for a project: {}", crate::config::NAME_FORM));
    }
    let url = RemoteUrl::parse(&project.url).map_err(|error| wrong.push(error.to_string())).ok();
    let repository = project.repository.unwrap_or_default();
    let needs_forge = project.webhook_secret.is_some() || project.token.is_some();
    if needs_forge && project.forge.is_none() {
        wrong.push(
            "webhook_secret and token need forge = \"github\", \"gitlab\", \"gitea\" or \"forgejo\"".into(),
        );
    }
    if needs_forge && !is_repository(&repository) {
        wrong.push(format!("repository = {repository:?}: write it as owner/name"));
    }
    let mut read = |what: &str, source: &Option<Source>| {
        let read = source.as_ref()?.read(folder, env);
        read.map_err(|why| wrong.push(format!("{what}: {why}"))).ok()
    };
    let (secrets, token) = (read("webhook_secret", &project.webhook_secret), read("token", &project.token));
    for secret in secrets.iter().flatten() {
        if secret.reveal().len() < SECRET_LEN_MIN {
            wrong
                .push(format!("webhook_secret: at least {SECRET_LEN_MIN} characters (openssl rand -hex 32)"));
        }
        if is_broken_signing_token(secret) {
            wrong.push("webhook_secret: begins with whsec_ and is no signing token of GitLab".to_owned());
        }
    }
    if project.checks && project.forge != Some(Kind::GitHub) {
        wrong.push("checks: only GitHub has check runs".to_owned());
    }
    let forge = project.forge.zip(token.and_then(|token| token.into_iter().next())).map(|(kind, token)| {
        let (api, repository) = (project.api.or_else(|| usual_api(kind)), repository.clone());
        if api.is_none() {
            wrong.push(format!("api: where {kind}'s is, as https://git.example.org/api/v1"));
        }
        ForgeSettings { kind, api: api.unwrap_or_default(), repository, token, checks: project.checks }
    });
    if forge.is_none() && project.checks {
        wrong.push("checks: needs a token".to_owned());
    }
    let hooks = project.forge.zip(secrets).map(|(kind, secrets)| Hooks { kind, secrets, repository });
    match (url, wrong.is_empty()) {
        (Some(url), true) => Ok(WatchedProject {
            name: project.name,
            url,
            branches: project.branches,
            tags: project.tags,
            credentials: match project.credentials {
                Whose::None => Credentials::None,
                Whose::User => Credentials::User,
            },
            kind: project.forge,
            hooks,
            forge,
            forks: project.forks,
        }),
        _ => Err(wrong),
    }
}

fn usual_api(kind: Kind) -> Option<String> {
    match kind {
        Kind::GitHub => Some("https://api.github.com".to_owned()),
        Kind::GitLab => Some("https://gitlab.com/api/v4".to_owned()),
        Kind::Forgejo => Some("https://codeberg.org/api/v1".to_owned()),
        Kind::Gitea => None,
    }
}

/// `owner/name`, or deeper: it becomes part of addresses.
fn is_repository(name: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let part = |part: &str| !part.is_empty() && part.chars().all(fit) && part != "." && part != "..";
    name.len() <= 512 && name.contains('/') && name.split('/').all(part)
}

impl Settings {
    /// How often repositories are polled.
    pub fn every(&self) -> Duration {
        self.every.unwrap_or(DEFAULT_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::write(
            folder.path().join("secret"),
            "new-secret-of-32-characters-0123\nthe-one-before-it-9876\n",
        )
        .unwrap();
        let env = |name: &str| (name == "TOKEN").then(|| "t0ken-of-the-forge".to_owned());
        read(&path, &env).map_err(|error| error.to_string())
    }

    #[test]
    fn a_project_on_a_forge_needs_a_handful_of_lines() {
        let read = settings(
            "[webhooks]\nlisten = \"127.0.0.1:7080\"\n[polling]\nevery = \"30s\"\n[statuses]\nrun_url = \
             \"https://a.example.org/runs/{run}\"\n[[project]]\nname = \"shop\"\nurl = \
             \"https://github.com/acme/shop.git\"\nforge = \"github\"\nrepository = \"acme/shop\"\nwebhook_secret = \
             { file = \"secret\" }\ntoken = { env = \"TOKEN\" }\n",
        )
        .unwrap();
        let shop = &read.projects[0];
        let hooks = shop.hooks.as_ref().unwrap();
        assert_eq!(hooks.secrets.len(), 2, "a secret is changed without losing a delivery");
        assert_eq!(shop.forge.as_ref().unwrap().api, "https://api.github.com");
        assert_eq!(shop.forks, ForkPolicy::AfterApproval);
        let shown = format!("{read:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("new-secret"), "{shown}");
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_secret_with_them() {
        let said = settings(
            "[polling]\nevery = \"5m\"\n[statuses]\nrun_url = \"x\"\n[network]\nallow = [\"10.0.0.0/99\"]\n[[project]]\nname \
             = \"../x\"\nurl = \"ext::sh\"\nrepository = \"../../x\"\nwebhook_secret = { env = \"NOBODY\" }\ntoken = { env \
             = \"TOKEN\" }\nchecks = true\n[[project]]\nname = \"b\"\nurl = \"/srv/b\"\nforge = \"gitea\"\nrepository = \
             \"a/b\"\ntoken = { env = \"TOKEN\" }\n",
        )
        .expect_err("a heap of mistakes");
        for part in [
            "every = \"5m\"",
            "run_url",
            "10.0.0.0/99",
            "no name for a project",
            "remote helper",
            "owner/name",
            "NOBODY is not in the environment",
            "need forge =",
            "only GitHub has check runs",
            "api: where gitea's is",
        ] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
        assert!(!said.contains("t0ken"), "{said}");
    }

    #[test]
    fn unknown_keys_and_secrets_in_the_file_itself_are_refused() {
        for text in [
            "[webhook]\n",
            "[[project]]\nname = \"a\"\nurl = \"/srv/a\"\nsecret = \"x\"\n",
            "[[project]]\nname = \"a\"\nurl = \"/srv/a\"\ntoken = \"verbatim\"\n",
        ] {
            let said = settings(text).expect_err(text);
            assert!(said.contains("line ") && !said.contains("verbatim"), "{said}");
        }
    }
}
