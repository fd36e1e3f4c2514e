//! Everything that can go wrong between an id and a snapshot.
//!
//! Each message names the thing at fault and what to do about it. No message holds the token, nor
//! the query of an address (redirects to storage are signed there).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::{AnswerProblem, IdProblem, RepoId, Revision};

/// Why a model could not be brought to this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text is neither a path that exists nor a Hub id.
    #[error(
        "`{id}` is neither a file or folder here nor a Hub id, owner/name[@revision][:FILE]: {problem}"
    )]
    InvalidId {
        /// The text.
        id: String,
        /// What is wrong with it as an id.
        problem: IdProblem,
    },
    /// A text that can only be a path does not exist.
    #[error("{}: no such file or folder; check the spelling and the working folder", path.display())]
    NoSuchPath {
        /// The path.
        path: PathBuf,
    },
    /// The endpoint is not an http or https address.
    #[error("the Hub's endpoint `{endpoint}` is not an http or https address; correct HF_ENDPOINT")]
    InvalidEndpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// The token cannot be sent. Its value is not shown.
    #[error(
        "the Hub token from {from} has characters a token cannot have; copy it again from the Hub's settings page"
    )]
    MalformedToken {
        /// Where the token came from.
        from: String,
    },

    /// The file of certificate authorities names none.
    #[error("{}: no certificate in it; correct or unset SSL_CERT_FILE", path.display())]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },

    /// The repository exists and its owner asks for consent first.
    #[error(
        "{repo} is gated: accept its conditions on {page}{}",
        if *with_token { ", with the account the token belongs to" } else { ", then set HF_TOKEN to a token of that account" }
    )]
    Gated {
        /// The repository.
        repo: RepoId,
        /// The page to accept the conditions on.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// There is no such repository, or it is private and the token may not see it.
    #[error(
        "{endpoint} has no model {repo}: check the spelling; a private one needs {}",
        if *with_token { "a token that may read it, and the one that was sent may not" } else { "a token in HF_TOKEN" }
    )]
    RepoNotFound {
        /// The repository.
        repo: RepoId,
        /// The Hub that was asked.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repo} has no branch, tag or commit `{revision}`; see {page}/tree/main")]
    RevisionNotFound {
        /// The repository.
        repo: RepoId,
        /// The revision.
        revision: Revision,
        /// The repository's page.
        page: String,
    },
    /// The repository has no such file at that revision.
    #[error("{repo} has no file `{file}` at {revision}")]
    FileNotFound {
        /// The repository.
        repo: RepoId,
        /// The revision.
        revision: Revision,
        /// The file.
        file: String,
    },
    /// The repository has no weights that a model is opened from.
    #[error(
        "{repo} has no safetensors or PyTorch weights{}",
        gguf.first().map(|file| format!("; choose one of its GGUF files: {repo}:{file} (of {})", gguf.len())).unwrap_or_default()
    )]
    NoWeights {
        /// The repository.
        repo: RepoId,
        /// The GGUF files it has instead.
        gguf: Vec<String>,
    },
    /// The repository lists a file whose name leads out of the snapshot.
    #[error(
        "{repo} lists a file named {file:?}, which is no plain relative path; nothing was fetched"
    )]
    UnsafeFileName {
        /// The repository.
        repo: RepoId,
        /// The name.
        file: String,
    },
    /// The Hub does not know the token.
    #[error(
        "{endpoint} refuses the Hub token; it is mistyped or was withdrawn: replace or unset HF_TOKEN"
    )]
    TokenRefused {
        /// The Hub that was asked.
        endpoint: String,
    },
    /// Too many requests from this address or account.
    #[error(
        "{endpoint} limits the rate of requests; try again {}",
        wait.map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs()))
    )]
    RateLimited {
        /// The Hub that was asked.
        endpoint: String,
        /// How long the Hub asks to wait.
        wait: Option<Duration>,
    },
    /// Any other refusal.
    #[error("{url} answers with status {status}{}", message.as_ref().map(|message| format!(": {message}")).unwrap_or_default())]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the Hub says about it.
        message: Option<String>,
    },
    /// The answer is not the Hub's.
    #[error(
        "the answer of {url} is not the Hub's: {problem}; check HF_ENDPOINT, or a proxy or login page on the way"
    )]
    UnexpectedAnswer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        #[source]
        problem: AnswerProblem,
    },

    /// No connection.
    #[error(
        "cannot reach {endpoint}: {source}; check the network, the proxy and HF_ENDPOINT, or work offline (HF_HUB_OFFLINE=1)"
    )]
    Unreachable {
        /// Scheme, host and port that were tried.
        endpoint: String,
        /// What failed.
        source: Box<ureq::Error>,
    },
    /// The connection was lost within a file, again and again.
    #[error(
        "{file}: the connection was lost at byte {received} of {size}, {attempts} times without a new byte between; run it again, it goes on from there"
    )]
    Interrupted {
        /// The file.
        file: String,
        /// Bytes that are kept.
        received: u64,
        /// Bytes of the whole file.
        size: u64,
        /// How often it was tried without progress.
        attempts: u32,
        /// The last failure.
        source: io::Error,
    },
    /// A file's length is not what the Hub said.
    #[error("{file}: the Hub announces {expected} bytes and sends {found}; try again later")]
    WrongSize {
        /// The file.
        file: String,
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that were sent or announced with the file.
        found: u64,
    },
    /// A file's content is not what the Hub said.
    #[error(
        "{file}: damaged on the way (SHA-256 {found}, expected {expected}); it was removed, try again"
    )]
    WrongHash {
        /// The file.
        file: String,
        /// The SHA-256 that was announced.
        expected: String,
        /// The SHA-256 of what came.
        found: String,
    },

    /// Files are missing in the cache and may not be fetched.
    #[error(
        "{repo} at {revision} is not wholly in the cache {} and the Hub may not be asked (offline); missing: {}",
        cache.display(), files.join(", ")
    )]
    NotCached {
        /// The repository.
        repo: RepoId,
        /// The revision.
        revision: Revision,
        /// The cache.
        cache: PathBuf,
        /// What is missing, at least; `every file` if nothing is known of the revision.
        files: Vec<String>,
    },
    /// There is no room for a file.
    #[error(
        "{file}: the disk is full at byte {kept} of {size} ({}); make room and run it again, it goes on from there",
        path.display()
    )]
    DiskFull {
        /// The file.
        file: String,
        /// Where it is written.
        path: PathBuf,
        /// Bytes that are kept.
        kept: u64,
        /// Bytes of the whole file.
        size: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The cache cannot be read.
    #[error("{}: cannot be read; check its permissions", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The cache cannot be written.
    #[error("{}: cannot be written; check its permissions, or choose another cache with HF_HOME", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A shard index in the snapshot is damaged.
    #[error("{}: not the index of a sharded checkpoint; remove the file and fetch it again", path.display())]
    DamagedIndex {
        /// The index.
        path: PathBuf,
        /// Where and why reading stopped.
        source: serde_json::Error,
    },
}

impl HubError {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500..=599),
            _ => false,
        }
    }

    /// Whether a snapshot from before may stand in: the Hub did not say that the revision is gone.
    pub(crate) fn leaves_cache_valid(&self) -> bool {
        self.is_transient()
            || matches!(
                self,
                Self::Gated { .. }
                    | Self::RepoNotFound { .. }
                    | Self::TokenRefused { .. }
                    | Self::Status { .. }
                    | Self::UnexpectedAnswer { .. }
            )
    }
}
