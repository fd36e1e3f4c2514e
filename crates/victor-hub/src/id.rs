//! Names on the Hub: repositories and revisions. Both become parts of paths, so both are checked.

use std::fmt;
use std::str::FromStr;

use crate::{HubError, IdProblem};

/// The longest id the Hub has.
const MAX_ID: usize = 96;

/// A model repository, `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepoId {
    owner: String,
    name: String,
}

impl RepoId {
    /// Reads `owner/name`, by the Hub's rules for both parts.
    ///
    /// # Errors
    /// [`HubError::InvalidId`] says what is wrong.
    pub fn parse(id: &str) -> Result<Self, HubError> {
        Self::check(id).map_err(|problem| HubError::InvalidId {
            id: id.to_owned(),
            problem,
        })
    }

    pub(crate) fn check(id: &str) -> Result<Self, IdProblem> {
        if id.is_empty() {
            return Err(IdProblem::Empty);
        }
        if id.contains("://") {
            return Err(IdProblem::Address);
        }
        let (owner, name) = id.split_once('/').ok_or(IdProblem::NoOwner)?;
        if name.contains('/') {
            return Err(IdProblem::TooManySlashes);
        }
        if owner.is_empty() || name.is_empty() {
            return Err(IdProblem::NoOwner);
        }
        for part in [owner, name] {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if let Some(wrong) = part.chars().find(|c| !allowed(*c)) {
                return Err(IdProblem::Character(wrong));
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
                return Err(IdProblem::Edge);
            }
        }
        if id.contains("--") || id.contains("..") {
            return Err(IdProblem::Doubled);
        }
        if id.len() > MAX_ID {
            return Err(IdProblem::TooLong);
        }
        if name.ends_with(".git") {
            return Err(IdProblem::GitSuffix);
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Who the repository belongs to.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name without its owner.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl FromStr for RepoId {
    type Err = HubError;

    fn from_str(id: &str) -> Result<Self, HubError> {
        Self::parse(id)
    }
}

/// A branch, a tag, or a commit of 40 hexadecimal digits. The default is the branch `main`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision(String);

impl Revision {
    /// Reads the name of a revision, by git's rules for names of references.
    ///
    /// # Errors
    /// [`HubError::InvalidId`] if it cannot be one.
    pub fn parse(revision: &str) -> Result<Self, HubError> {
        Self::check(revision).map_err(|problem| HubError::InvalidId {
            id: format!("@{revision}"),
            problem,
        })
    }

    pub(crate) fn check(revision: &str) -> Result<Self, IdProblem> {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"~^:?*[\\@".contains(c);
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && !part.ends_with('.')
                && !part.ends_with(".lock")
        };
        let valid = revision.len() <= 250
            && revision.chars().all(plain)
            && !revision.contains("..")
            && revision.split('/').all(part);
        valid
            .then(|| Self(revision.to_owned()))
            .ok_or(IdProblem::Revision)
    }

    /// Whether this is a commit, which never changes, and not a name that may move.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = HubError;

    fn from_str(revision: &str) -> Result<Self, HubError> {
        Self::parse(revision)
    }
}

/// Whether a text is a whole commit hash.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_owner_and_name() {
        for id in ["llava-hf/llava-1.5-7b-hf", "a/b", "Qwen/Qwen2.5-0.5B_x"] {
            assert_eq!(RepoId::parse(id).unwrap().to_string(), id);
        }
    }

    #[test]
    fn typos_are_told_apart() {
        let cases = [
            ("", IdProblem::Empty),
            ("gpt2", IdProblem::NoOwner),
            ("owner/", IdProblem::NoOwner),
            ("/name", IdProblem::NoOwner),
            ("a/b/c", IdProblem::TooManySlashes),
            ("https://huggingface.co/a/b", IdProblem::Address),
            ("a/b c", IdProblem::Character(' ')),
            ("ä/b", IdProblem::Character('ä')),
            ("a/b\\c", IdProblem::Character('\\')),
            ("../b", IdProblem::Edge),
            ("a/..", IdProblem::Edge),
            ("a/-b", IdProblem::Edge),
            ("a/b--c", IdProblem::Doubled),
            ("a/b..c", IdProblem::Doubled),
            ("a/b.git", IdProblem::GitSuffix),
        ];
        for (id, expected) in cases {
            assert_eq!(RepoId::check(id), Err(expected), "{id}");
        }
        let long = format!("a/{}", "b".repeat(95));
        assert_eq!(RepoId::check(&long), Err(IdProblem::TooLong));
        assert!(RepoId::check(&long[..96]).is_ok());
    }

    #[test]
    fn revisions_cannot_leave_the_refs_folder() {
        for good in ["main", "refs/pr/1", "v1.0", "feature/x-y_z"] {
            assert!(Revision::check(good).is_ok(), "{good}");
        }
        let bad = [
            "", "..", "../x", "a/../b", "/a", "a/", "a//b", ".git", "a/.b", "a b", "a\\b",
            "a.lock", "a:b",
        ];
        for bad in bad {
            assert!(Revision::check(bad).is_err(), "{bad}");
        }
        assert!(Revision::parse(&"0a".repeat(20)).unwrap().is_commit());
        assert!(!Revision::parse(&"0A".repeat(20)).unwrap().is_commit());
        assert!(!Revision::default().is_commit());
    }
}
