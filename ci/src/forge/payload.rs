//! Reading bodies of webhooks: a walk over JSON whose every miss is named. Nothing is taken that was not asked for.

use serde_json::Value;

use super::Meaning;

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON.
    #[error("it is no JSON: {0}")]
    Json(String),
    /// A field that the forge documents is not there, or is of another type.
    #[error("{path} is not {expected}")]
    Field {
        /// As in `pull_request.head.sha`.
        path: String,
        /// What should be there.
        expected: &'static str,
    },
    /// About another repository than the project's.
    #[error("it is about the repository {found}, the project is on {wanted}")]
    Repository {
        /// The body's.
        found: String,
        /// The project's.
        wanted: String,
    },
}

impl Malformed {
    /// Whether the body is well but about another repository.
    pub(crate) fn is_of_another(&self) -> bool {
        matches!(self, Self::Repository { .. })
    }
}

/// A body.
pub(super) struct Payload(Value);

impl Payload {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let value: Value =
            serde_json::from_slice(body).map_err(|error| Malformed::Json(error.to_string()))?;
        if !value.is_object() {
            return Err(Malformed::Json("an object is expected".to_owned()));
        }
        Ok(Self(value))
    }

    /// The value at `a.b.c`, if there is one and it is not null.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.0, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, path: &str) -> Result<&str, Malformed> {
        self.get(path).and_then(Value::as_str).ok_or_else(|| miss(path, "a string"))
    }

    pub(super) fn number(&self, path: &str) -> Result<u64, Malformed> {
        self.get(path).and_then(Value::as_u64).ok_or_else(|| miss(path, "a number"))
    }

    /// A full object id.
    pub(super) fn commit(&self, path: &str) -> Result<String, Malformed> {
        let text = self.text(path)?;
        let fit = text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fit { Ok(text.to_owned()) } else { Err(miss(path, "a commit's id")) }
    }

    /// A login: short, and nothing that could pass for something else where it is shown or in an address, as `..` would.
    pub(super) fn login(&self, path: &str) -> Result<String, Malformed> {
        let text = self.text(path)?;
        let fit = (1..=255).contains(&text.len())
            && text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '[' | ']'));
        if fit { Ok(text.to_owned()) } else { Err(miss(path, "a user's name")) }
    }

    /// That the body is about this repository. Forges do not tell capitals apart.
    pub(super) fn about(&self, path: &str, wanted: &str) -> Result<(), Malformed> {
        let found = self.text(path)?;
        if found.eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        Err(Malformed::Repository { found: crate::config::quoted(found), wanted: wanted.to_owned() })
    }
}

pub(super) fn miss(path: &str, expected: &'static str) -> Malformed {
    Malformed::Field { path: path.to_owned(), expected }
}

/// A pushed ref, if it is one that git itself would take.
pub(super) fn pushed(reference: &str, commit: String) -> Result<Meaning, Malformed> {
    use super::Event;
    if commit.bytes().all(|byte| byte == b'0') {
        return Ok(Meaning::Nothing("a ref was removed".to_owned()));
    }
    if reference.starts_with("refs/heads/") {
        let branch = crate::git::branch_name(reference).ok_or_else(|| miss("ref", "a branch's name"))?;
        return Ok(Meaning::Work(Event::Push { branch: branch.to_owned(), commit }));
    }
    if reference.starts_with("refs/tags/") {
        let tag = crate::git::tag_name(reference).ok_or_else(|| miss("ref", "a tag's name"))?;
        return Ok(Meaning::Work(Event::Tag { tag: tag.to_owned(), commit }));
    }
    Err(miss("ref", "refs/heads/… or refs/tags/…"))
}

pub(super) fn nothing(why: impl Into<String>) -> Result<Meaning, Malformed> {
    Ok(Meaning::Nothing(why.into()))
}
