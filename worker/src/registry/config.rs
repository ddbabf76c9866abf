//! Where a registry is, and as whom this worker asks it. Pure but for the files that are named.
//!
//! Invariant: a password is never shown, by `Debug` or in an error.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// Longest repository name, as registries commonly take it.
const PREFIX_BYTES_MAX: usize = 200;
/// Longest password file, and longest file with Docker's logins.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was told of a registry cannot be meant.
#[derive(Debug, Error)]
pub enum RegistryConfigError {
    /// Not of the form.
    #[error(
        "{address:?} is no place in a registry: {why}; write HOST[:PORT]/PREFIX, as in registry.example.org:5000/andon"
    )]
    Address {
        /// As it was told.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A password without a name, or a name without a password.
    #[error("a registry's user and password go together: {0} is missing")]
    Half(&'static str),
    /// A file with a secret cannot be used.
    #[error("cannot use {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub user: String,
    /// Not shown.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A place in a registry: one repository, in which all baselines of the farm lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `HOST[:PORT]`.
    pub host: String,
    /// The repository's name.
    pub prefix: String,
    /// Without TLS.
    pub insecure: bool,
    /// Nobody in particular where absent.
    pub login: Option<Login>,
}

impl RegistryConfig {
    /// Reads `HOST[:PORT]/PREFIX`.
    ///
    /// # Errors
    /// Where it is of another form.
    pub fn new(address: &str, insecure: bool, login: Option<Login>) -> Result<Self, RegistryConfigError> {
        let wrong = |why| RegistryConfigError::Address { address: address.to_owned(), why };
        if address.contains("://") {
            return Err(wrong("it has a scheme; TLS is used unless --registry-insecure is given"));
        }
        let (host, prefix) = address.split_once('/').ok_or_else(|| wrong("it has no /PREFIX"))?;
        check_host(host).map_err(wrong)?;
        check_prefix(prefix).map_err(wrong)?;
        Ok(Self { host: host.to_owned(), prefix: prefix.to_owned(), insecure, login })
    }

    /// `HOST[:PORT]/PREFIX`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}/{}", self.host, self.prefix)
    }

    /// Whether a password would cross a network in the clear.
    #[must_use]
    pub fn tells_password(&self) -> bool {
        self.insecure && self.login.is_some() && !is_loopback(&self.host)
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err("its port is none");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(['.', '-']) {
        return Err("its host is none");
    }
    Ok(())
}

/// The grammar of the OCI distribution specification for repository names.
fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    if prefix.is_empty() {
        return Err("it has no /PREFIX");
    }
    if prefix.len() > PREFIX_BYTES_MAX {
        return Err("its prefix is too long");
    }
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = |part: &str| {
        let separated = part.split(alnum).filter(|separator| !separator.is_empty());
        let known = |separator: &str| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        };
        part.starts_with(alnum) && part.ends_with(alnum) && separated.into_iter().all(known)
    };
    if prefix.split('/').all(fits) {
        Ok(())
    } else {
        Err(
            "its prefix is no repository name: lower-case letters and digits, parted by '.', '_', '-' or '/', are",
        )
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// A login of its parts; none where nothing was told.
///
/// # Errors
/// Where one of them is missing, or the file cannot be read.
pub fn login_of(
    user: Option<String>,
    password: Option<String>,
    password_file: Option<&Path>,
) -> Result<Option<Login>, RegistryConfigError> {
    let password = match password_file {
        Some(file) => {
            let text = read_small(file)?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Some(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }
        None => password,
    };
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    match (given(&user), given(&password)) {
        (false, false) if password_file.is_none() => Ok(None),
        (false, _) => Err(RegistryConfigError::Half("ANDON_REGISTRY_USER")),
        (true, false) => Err(RegistryConfigError::Half("the password (ANDON_REGISTRY_PASSWORD_FILE)")),
        (true, true) => Ok(user.zip(password).map(|(user, password)| Login { user, password })),
    }
}

/// What `docker login` keeps for this host in a `config.json`; none where there is no such file, or nothing of the host
/// in it.
///
/// # Errors
/// Where the file cannot be understood, or keeps the host's login in a helper program.
pub fn docker_login(config: &Path, host: &str) -> Result<Option<Login>, RegistryConfigError> {
    let wrong = |why: String| RegistryConfigError::File { path: config.to_owned(), why };
    if !config.exists() {
        return Ok(None);
    }
    let text = read_small(config)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(format!("it is no JSON: {error}")))?;
    let entry = ["", "https://", "http://"].iter().find_map(|scheme| {
        let auths = json.get("auths")?;
        auths.get(format!("{scheme}{host}"))
    });
    let helper = json.pointer("/credHelpers").and_then(|helpers| helpers.get(host)).is_some();
    let auth = entry.and_then(|entry| entry.get("auth")).and_then(|auth| auth.as_str());
    match auth.filter(|auth| !auth.is_empty()) {
        Some(auth) => {
            let garbled = || wrong(format!("the auth of {host} is not USER:PASSWORD in base64"));
            let plain = STANDARD.decode(auth).map_err(|_| garbled())?;
            let plain = String::from_utf8(plain).map_err(|_| garbled())?;
            let (user, password) = plain.split_once(':').ok_or_else(garbled)?;
            Ok(Some(Login { user: user.to_owned(), password: password.to_owned() }))
        }
        None if helper || (entry.is_some() && json.get("credsStore").is_some()) => Err(wrong(format!(
            "the login of {host} is kept by a helper program, which is not asked; give ANDON_REGISTRY_USER and \
             ANDON_REGISTRY_PASSWORD_FILE"
        ))),
        None => Ok(None),
    }
}

fn read_small(path: &Path) -> Result<String, RegistryConfigError> {
    let wrong = |why: String| RegistryConfigError::File { path: path.to_owned(), why };
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str) -> String {
        RegistryConfig::new(address, false, None).unwrap_err().to_string()
    }

    #[test]
    fn a_place_is_a_host_and_a_repository() {
        let place = RegistryConfig::new("registry.example.org:5000/team/andon", false, None).unwrap();
        assert_eq!((place.host.as_str(), place.prefix.as_str()), ("registry.example.org:5000", "team/andon"));
        assert_eq!(place.address(), "registry.example.org:5000/team/andon");
        for fine in ["h/a", "10.0.0.1:80/a-b/c__d", "h/a.b--c"] {
            RegistryConfig::new(fine, false, None).unwrap();
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_is_wrong() {
        for (address, why) in [
            ("https://h/a", "--registry-insecure"),
            ("h", "no /PREFIX"),
            ("h/", "no /PREFIX"),
            ("/a", "its host"),
            ("h:x/a", "its port"),
            ("h:0/a", "its port"),
            ("h:99999/a", "its port"),
            ("user@h/a", "its host"),
            ("h/Team", "no repository name"),
            ("h/a//b", "no repository name"),
            ("h/../x", "no repository name"),
            ("h/a:tag", "no repository name"),
            ("h/a___b", "no repository name"),
        ] {
            let said = refusal(address);
            assert!(said.contains(why) && said.contains("HOST[:PORT]/PREFIX"), "{address}: {said}");
        }
    }

    #[test]
    fn a_password_is_in_the_clear_only_over_a_network_without_tls() {
        let login = || Some(Login { user: "u".into(), password: "p".into() });
        let tells = |address, insecure, login| {
            RegistryConfig::new(address, insecure, login).unwrap().tells_password()
        };
        assert!(tells("h:5000/a", true, login()));
        assert!(!tells("h:5000/a", true, None) && !tells("h:5000/a", false, login()));
        assert!(!tells("127.0.0.1:5000/a", true, login()) && !tells("localhost/a", true, login()));
    }

    #[test]
    fn a_login_needs_both_of_its_parts_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let login = login_of(Some("u".into()), None, Some(&file)).unwrap().unwrap();
        assert_eq!(login, Login { user: "u".into(), password: "secret".into() });
        assert!(!format!("{login:?}").contains("secret"));
        assert_eq!(login_of(None, None, None).unwrap(), None);
        assert!(login_of(None, None, Some(&file)).unwrap_err().to_string().contains("ANDON_REGISTRY_USER"));
        let said = login_of(Some("u".into()), None, None).unwrap_err().to_string();
        assert!(said.contains("ANDON_REGISTRY_PASSWORD_FILE"), "{said}");
        let said = login_of(Some("u".into()), None, Some(&dir.path().join("none"))).unwrap_err().to_string();
        assert!(said.contains("none: No such file"), "{said}");
    }

    #[test]
    fn dockers_own_login_serves_and_one_in_a_helper_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        assert_eq!(docker_login(&file, "h:5000").unwrap(), None);
        std::fs::write(
            &file,
            r#"{"auths": {"h:5000": {"auth": "dTpwOnE="}, "bad": {"auth": "!"}, "kept": {}}, "credsStore": "pass"}"#,
        )
        .unwrap();
        let login = docker_login(&file, "h:5000").unwrap().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("u", "p:q"));
        assert_eq!(docker_login(&file, "other").unwrap(), None);
        for (host, why) in [("bad", "base64"), ("kept", "helper program")] {
            let said = docker_login(&file, host).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
        std::fs::write(&file, "{").unwrap();
        assert!(docker_login(&file, "h").unwrap_err().to_string().contains("no JSON"));
    }
}
