//! Hugging Face Hub ids to local snapshots.
//!
//! [`Location::parse`] tells a local path from an id, and [`Hub::snapshot`] turns a repository and a
//! revision into a folder that holds the files a model is opened from. Nothing in here knows what
//! the files mean; nothing is printed or drawn ([`Progress`]).
//!
//! ```no_run
//! use victor_hub::{Hub, HubError, Location, Silent};
//!
//! fn folder(model: &str) -> Result<std::path::PathBuf, HubError> {
//!     match Location::parse(model)? {
//!         Location::Local(path) => Ok(path),
//!         Location::Hub(from) => {
//!             let hub = Hub::from_env()?;
//!             let snapshot = hub.snapshot(&from.repo, &from.revision, &from.wanted(), &Silent)?;
//!             Ok(snapshot.folder)
//!         }
//!     }
//! }
//! ```
//!
//! # The cache is the Hub's
//!
//! Files lie where Python's `huggingface_hub` and the `hf-hub` crate put them, so a model that one of
//! them fetched is not fetched again:
//!
//! ```text
//! $HF_HUB_CACHE (else $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub)
//!   .locks/models--owner--name/ETAG.lock           one writer a blob, over processes
//!   models--owner--name/
//!     refs/main                                    the commit a branch or tag stood at
//!     trees/COMMIT.json                            all files of a commit (huggingface_hub 1.x)
//!     blobs/ETAG, blobs/ETAG.incomplete            contents, whole and on the way
//!     snapshots/COMMIT/config.json -> ../../blobs/ETAG
//! ```
//!
//! A branch or tag is asked for at the Hub each time, as Python does; when the Hub does not answer, the
//! commit it last stood at is used and [`Snapshot::outdated`] says why. A commit whose files are all
//! there is opened without the network, and so is everything when offline (`HF_HUB_OFFLINE=1`).
//!
//! # Why not `hf-hub`
//!
//! Its release 1.0 needs an asynchronous runtime and some 300 crates, starts a file again from its first
//! byte after a cut, compares no hash, and has no offline switch. 0.5 resumes and is small, but
//! compares no hash either, knows neither `HF_HUB_CACHE` nor `HF_TOKEN`, and has one error for a
//! gated, a missing and a misspelt repository. What is left to share is the layout above, and a test
//! holds ours against that crate's.
//!
//! # The token
//!
//! It goes to the endpoint's own scheme, host and port and nowhere else: downloads are redirected to
//! other hosts, and redirects are followed by hand for that reason. It is never part of a message.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod blob;
mod cache;
mod client;
mod error;
mod fetch;
mod file_name;
mod hub;
mod id;
mod listing;
mod location;
mod lock;
mod partial;
mod problem;
mod progress;
mod response;
mod retry;
mod roots;
mod settings;
mod snapshot;
mod token;
mod wanted;
mod workers;

pub use error::HubError;
pub use hub::{Hub, HubBuilder, Snapshot};
pub use id::{RepoId, Revision};
pub use location::{HubRef, Location};
pub use problem::{AnswerProblem, IdProblem};
pub use progress::{Event, Progress, Silent};
pub use wanted::Wanted;
