//! The registry that baselines go to, as `andon worker` and `andon up` are told of it.
//!
//! A password comes from a file, from the environment, or from what `docker login` keeps; never from an argument, which
//! everybody on the machine could read.

use std::path::PathBuf;

use andon_worker::registry::{RegistryConfig, RegistryConfigError, docker_login, login_of};
use clap::Args;

use super::error::CliError;

/// Where Docker keeps its logins, beneath `DOCKER_CONFIG` or `~/.docker`.
const DOCKER_CONFIG_FILE: &str = "config.json";

/// What workers are told of a registry.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// Keep baselines in this OCI registry, HOST[:PORT]/PREFIX, instead of the coordinator's blob store
    #[arg(long, value_name = "HOST[:PORT]/PREFIX", env = "ANDON_REGISTRY")]
    registry: Option<String>,
    /// The registry speaks HTTP, without TLS
    #[arg(long, env = "ANDON_REGISTRY_INSECURE")]
    registry_insecure: bool,
    /// As whom it is asked [default: what `docker login` keeps for the host, else nobody]
    #[arg(long, value_name = "NAME", env = "ANDON_REGISTRY_USER")]
    registry_user: Option<String>,
    /// A file with the password
    #[arg(long, value_name = "FILE", env = "ANDON_REGISTRY_PASSWORD_FILE")]
    registry_password_file: Option<PathBuf>,
}

/// What is not told by arguments.
#[derive(Debug, Default, Clone)]
pub(crate) struct Surroundings {
    /// `ANDON_REGISTRY_PASSWORD`: how `andon up` tells its boxes.
    password: Option<String>,
    /// Docker's own configuration.
    docker_config: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let folder = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".docker")));
        Self {
            password: std::env::var("ANDON_REGISTRY_PASSWORD").ok(),
            docker_config: folder.map(|folder| folder.join(DOCKER_CONFIG_FILE)),
        }
    }
}

impl RegistryArgs {
    /// The registry, if one was told.
    pub(crate) fn config(&self, around: &Surroundings) -> Result<Option<RegistryConfig>, CliError> {
        let Some(address) = self.registry.as_deref().filter(|address| !address.is_empty()) else {
            return if self.registry_insecure
                || self.registry_user.is_some()
                || self.registry_password_file.is_some()
            {
                Err(CliError::usage(
                    "a registry's user, password or --registry-insecure is given, but no registry",
                )
                .hint("--registry HOST[:PORT]/PREFIX, or ANDON_REGISTRY"))
            } else {
                Ok(None)
            };
        };
        let checked = || {
            let place = RegistryConfig::new(address, self.registry_insecure, None)?;
            let password_file = self.registry_password_file.as_deref();
            let told = login_of(self.registry_user.clone(), around.password.clone(), password_file)?;
            let login = match (told, &around.docker_config) {
                (None, Some(config)) => docker_login(config, &place.host)?,
                (told, _) => told,
            };
            Ok(RegistryConfig { login, ..place })
        };
        checked().map(Some).map_err(|error: RegistryConfigError| {
            CliError::usage("the registry for baselines cannot be used").because(&error)
        })
    }
}

/// The same for a worker box: everything by its environment, as the join token.
pub(crate) fn environment(registry: &RegistryConfig) -> Vec<(String, String)> {
    let mut told = vec![("ANDON_REGISTRY", registry.address())];
    if registry.insecure {
        told.push(("ANDON_REGISTRY_INSECURE", "true".to_owned()));
    }
    if let Some(login) = &registry.login {
        told.push(("ANDON_REGISTRY_USER", login.user.clone()));
        told.push(("ANDON_REGISTRY_PASSWORD", login.password.clone()));
    }
    told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::exit::Exit;

    fn told(registry: &str) -> RegistryArgs {
        RegistryArgs { registry: Some(registry.to_owned()), ..RegistryArgs::default() }
    }

    #[test]
    fn what_a_box_is_told_makes_the_same_registry_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, "secret\n").unwrap();
        let mut args = told("h:5000/andon");
        (args.registry_insecure, args.registry_user) = (true, Some("farm".into()));
        args.registry_password_file = Some(password);
        let config = args.config(&Surroundings::default()).unwrap().unwrap();
        let told = environment(&config);
        let get = |name: &str| told.iter().find(|(told, _)| told == name).map(|(_, value)| value.clone());
        let inside = RegistryArgs {
            registry: get("ANDON_REGISTRY"),
            registry_insecure: get("ANDON_REGISTRY_INSECURE").as_deref() == Some("true"),
            registry_user: get("ANDON_REGISTRY_USER"),
            registry_password_file: None,
        };
        let around = Surroundings { password: get("ANDON_REGISTRY_PASSWORD"), docker_config: None };
        assert_eq!(inside.config(&around).unwrap().unwrap(), config);
    }

    #[test]
    fn a_registry_that_cannot_be_meant_is_a_mistake_of_the_call() {
        assert!(RegistryArgs::default().config(&Surroundings::default()).unwrap().is_none());
        let insecure = RegistryArgs { registry_insecure: true, ..RegistryArgs::default() };
        let mut half = told("h/andon");
        half.registry_user = Some("farm".into());
        for wrong in [told("https://h/andon"), told("h"), insecure, half] {
            let error = wrong.config(&Surroundings::default()).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn without_a_user_dockers_own_login_of_the_host_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, r#"{"auths": {"h:5000": {"auth": "dTpw"}}}"#).unwrap();
        let around = Surroundings { password: None, docker_config: Some(file) };
        let login = |registry: &str| told(registry).config(&around).unwrap().unwrap().login;
        assert_eq!(login("h:5000/andon").map(|login| login.user), Some("u".to_owned()));
        assert_eq!(login("other/andon"), None);
    }
}
