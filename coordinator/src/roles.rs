//! Who may do what: three roles, each with tokens of its own. Each may what the one before it may.
//!
//! | role | may |
//! | --- | --- |
//! | viewer | look: runs, logs, figures, pages |
//! | developer | submit, rerun, cancel; look into kept stacks; read and write blobs |
//! | admin | share images with all workers |
//!
//! Invariants: a token is kept as its digest alone; what is shown is compared as a digest, in constant time.

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Has runs made.
    Developer,
    /// Changes the farm.
    Admin,
}

impl Role {
    /// As people write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Admin => "admin",
        }
    }
}

/// The tokens that are taken, with their roles. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    known: Vec<(blake3::Hash, Role)>,
}

impl Tokens {
    pub(crate) fn new<'a>(tokens: impl IntoIterator<Item = (Role, &'a str)>) -> Self {
        let known = tokens.into_iter().map(|(role, token)| (blake3::hash(token.as_bytes()), role));
        Self { known: known.collect() }
    }

    /// The role of whoever shows this; `None` for a token that nobody gave out.
    pub(crate) fn role_of(&self, shown: &str) -> Option<Role> {
        let shown = blake3::hash(shown.as_bytes());
        // All are compared: which of them it was takes as long as any.
        self.known.iter().fold(None, |found, (known, role)| if *known == shown { Some(*role) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_its_role_and_roles_grow() {
        let tokens = Tokens::new([(Role::Admin, "one"), (Role::Viewer, "two")]);
        assert_eq!(tokens.role_of("one"), Some(Role::Admin));
        assert_eq!(tokens.role_of("two"), Some(Role::Viewer));
        assert_eq!((tokens.role_of("on"), tokens.role_of("")), (None, None));
        assert!(Role::Viewer < Role::Developer && Role::Developer < Role::Admin);
    }
}
