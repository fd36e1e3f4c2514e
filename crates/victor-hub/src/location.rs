//! What a user may give as a model: a local path or a Hub id.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::file_name::is_plain;
use crate::{HubError, IdProblem, RepoId, Revision, Wanted};

/// A model's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file or folder of this machine, which exists.
    Local(PathBuf),
    /// Something on the Hub, which may not exist.
    Hub(HubRef),
}

impl Location {
    /// Tells a path from an id. A path that exists always wins; what begins with `/`, `.` or `~`, or
    /// has a backslash, can only be a path; all else has to be `owner/name[@revision][:FILE]`.
    ///
    /// # Errors
    /// [`HubError::NoSuchPath`] and [`HubError::InvalidId`].
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let path = PathBuf::from(text);
        if !text.is_empty() && path.exists() {
            return Ok(Self::Local(path));
        }
        if text.starts_with(['/', '.', '~']) || text.contains('\\') {
            return Err(HubError::NoSuchPath { path });
        }
        HubRef::parse(text).map(Self::Hub)
    }
}

/// A repository, a revision of it, and one file if one was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRef {
    /// The repository.
    pub repo: RepoId,
    /// The revision; `main` if none was given.
    pub revision: Revision,
    /// The file that was named, a relative path in the repository.
    pub file: Option<String>,
}

impl HubRef {
    /// Reads `owner/name`, `owner/name@revision`, `owner/name:FILE` or `owner/name@revision:FILE`.
    ///
    /// # Errors
    /// [`HubError::InvalidId`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        Self::check(text).map_err(|problem| HubError::InvalidId {
            id: text.to_owned(),
            problem,
        })
    }

    fn check(text: &str) -> Result<Self, IdProblem> {
        if text.contains("://") {
            return Err(IdProblem::Address);
        }
        let (text, file) = match text.split_once(':') {
            Some((_, file)) if !is_plain(file) => return Err(IdProblem::File),
            Some((text, file)) => (text, Some(file.to_owned())),
            None => (text, None),
        };
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Revision::check(revision)?),
            None => (text, Revision::default()),
        };
        Ok(Self {
            repo: RepoId::check(id)?,
            revision,
            file,
        })
    }

    /// The file that was named, or all that a model is opened from.
    pub fn wanted(&self) -> Wanted {
        match &self.file {
            Some(file) => Wanted::Files(vec![file.clone()]),
            None => Wanted::Model,
        }
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repo)?;
        if self.revision != Revision::default() {
            write!(f, "@{}", self.revision)?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

impl FromStr for HubRef {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let whole = HubRef::parse("a/b@refs/pr/1:gguf/m-Q4_K_M.gguf").unwrap();
        assert_eq!(whole.repo.to_string(), "a/b");
        assert_eq!(whole.revision.as_str(), "refs/pr/1");
        assert_eq!(whole.file.as_deref(), Some("gguf/m-Q4_K_M.gguf"));
        for text in ["a/b", "a/b@v1", "a/b:x.gguf", "a/b@v1:x/y.gguf"] {
            assert_eq!(HubRef::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(HubRef::parse("a/b").unwrap().wanted(), Wanted::Model);
    }

    #[test]
    fn what_exists_is_local() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().to_str().unwrap();
        assert_eq!(
            Location::parse(text).unwrap(),
            Location::Local(folder.path().to_owned())
        );
        assert!(matches!(
            Location::parse("src/lib.rs"),
            Ok(Location::Local(_))
        ));
        assert!(matches!(
            Location::parse("src/nothing"),
            Ok(Location::Hub(_))
        ));
    }

    #[test]
    fn what_is_neither_says_so() {
        for path in [
            "./nothing",
            "/nothing/here",
            "~/nothing",
            "C:\\nothing",
            "..",
        ] {
            let found = Location::parse(path);
            let fits = matches!(
                found,
                Err(HubError::NoSuchPath { .. }) | Ok(Location::Local(_))
            );
            assert!(fits, "{path}: {found:?}");
        }
        let cases = [
            ("", IdProblem::Empty),
            ("models/llava/weights", IdProblem::TooManySlashes),
            ("https://huggingface.co/a/b", IdProblem::Address),
            ("a/b@", IdProblem::Revision),
            ("a/b@../x", IdProblem::Revision),
            ("a/b:", IdProblem::File),
            ("a/b:../x", IdProblem::File),
            ("a/b c", IdProblem::Character(' ')),
        ];
        for (text, expected) in cases {
            match Location::parse(text) {
                Err(HubError::InvalidId { id, problem }) => {
                    assert_eq!((id.as_str(), problem), (text, expected));
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
