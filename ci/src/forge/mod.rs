//! Forges: what their webhooks say and how they are told of a commit's state.
//!
//! Nothing here knows mirrors, runs or the disk: [`hooks`] makes an [`Event`] of a request's headers and body, purely;
//! the clients make a request of a [`Status`]. Secrets come in as [`Secret`], which is never shown.

mod alike;
pub mod client;
mod event;
mod gitea;
mod github;
mod gitlab;
pub mod guard;
pub mod hooks;
mod payload;
mod signature;
pub mod status;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::client::{Author, Forge, ForgeError};
pub use self::event::{Command, Event, May, Meaning};
pub(crate) use self::event::{is_prefix, short};
pub(crate) use self::signature::is_broken_signing_token;
pub use self::status::{Annotation, State, Status};

/// Which forge a project is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// github.com or GitHub Enterprise Server.
    GitHub,
    /// gitlab.com or a GitLab of one's own.
    GitLab,
    /// Gitea.
    Gitea,
    /// Forgejo, as on codeberg.org.
    Forgejo,
}

impl Kind {
    /// The ref under which the forge keeps the head of a pull or merge request.
    pub fn pull_ref(self, number: u64) -> String {
        match self {
            Self::GitLab => format!("refs/merge-requests/{number}/head"),
            Self::GitHub | Self::Gitea | Self::Forgejo => format!("refs/pull/{number}/head"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
        })
    }
}

/// Something that is never shown: not by `Debug`, not by `Display`, not by an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps it.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// For the one place that sends or compares it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
