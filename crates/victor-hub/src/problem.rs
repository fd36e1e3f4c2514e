//! What exactly is wrong with an id or an answer; the second half of a [`HubError`](crate::HubError).

/// Why a text is not a Hub id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdProblem {
    /// There is no text.
    #[error("it is empty")]
    Empty,
    /// There is no `/`, or nothing before or behind it.
    #[error("it has no owner and name with a `/` between them")]
    NoOwner,
    /// There is more than one `/` in the part before `@` and `:`.
    #[error("it has more than one `/`")]
    TooManySlashes,
    /// An address was given.
    #[error("it is an address; give only the owner/name part of it")]
    Address,
    /// A character that ids do not have.
    #[error("{0:?} cannot be in it; letters, digits, `-`, `_` and `.` can")]
    Character(char),
    /// Owner or name begins or ends with `-` or `.`.
    #[error("owner and name cannot begin or end with `-` or `.`")]
    Edge,
    /// `--` or `..`, which the Hub keeps for itself.
    #[error("`--` and `..` cannot be in it")]
    Doubled,
    /// More than 96 characters.
    #[error("it is longer than 96 characters")]
    TooLong,
    /// The name ends in `.git`.
    #[error("a name cannot end in `.git`; leave that off")]
    GitSuffix,
    /// `@` with nothing, or nothing that can be a branch, tag or commit, behind it.
    #[error("what follows `@` is not a branch, tag or commit")]
    Revision,
    /// `:` with nothing, or nothing that can be a file of the repository, behind it.
    #[error("what follows `:` is not the name of a file in the repository")]
    File,
}

/// Why an answer is not one the Hub would give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerProblem {
    /// The listing is not the JSON it should be.
    #[error("it is not the list of a repository's files")]
    Listing(#[source] serde_json::Error),
    /// The commit is not 40 hexadecimal digits.
    #[error("it names no commit")]
    Commit,
    /// There is no ETag, or one that cannot be a file's name.
    #[error("it has no usable ETag")]
    ETag,
    /// Neither `X-Linked-Size` nor `Content-Length`.
    #[error("it does not tell the file's size")]
    Size,
    /// The bytes are not those that were asked for.
    #[error("its Content-Range is not what was asked for")]
    Range,
    /// A redirect without a valid address, or from https to http.
    #[error("it redirects to an address that cannot be followed")]
    Redirect,
    /// Redirects without an end.
    #[error("it redirects more than 10 times")]
    TooManyRedirects,
}
