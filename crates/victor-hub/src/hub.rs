//! The Hub as a user of this crate sees it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::HubError;
use crate::client::Client;
use crate::retry::Patience;
use crate::settings::Settings;
use crate::token::Token;

/// A Hub and a cache of it. See [`Hub::snapshot`].
#[derive(Debug)]
pub struct Hub {
    pub(crate) client: Client,
    pub(crate) cache: PathBuf,
    pub(crate) offline: bool,
    pub(crate) connections: usize,
    pub(crate) patience: Patience,
}

/// A commit's files on this machine.
#[derive(Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The folder, with the files under their names in the repository.
    pub folder: PathBuf,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// Why the Hub could not say whether the revision has moved on, if it could not; then the commit is
    /// the one it stood at when it was last asked for. To be shown as a warning.
    pub outdated: Option<HubError>,
}

impl Hub {
    /// The Hub the environment names: `HF_ENDPOINT`; `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`;
    /// `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH` or the file `token` in `HF_HOME`;
    /// `HF_HUB_OFFLINE`. Proxies are those of `HTTPS_PROXY` and its kin; `SSL_CERT_FILE` replaces the
    /// certificate authorities that come with the program.
    ///
    /// # Errors
    /// [`HubError::InvalidEndpoint`], [`HubError::MalformedToken`], [`HubError::NoCertificates`], or a
    /// file of these that cannot be read.
    pub fn from_env() -> Result<Self, HubError> {
        Self::builder()?.build()
    }

    /// The same, to be changed before use.
    ///
    /// # Errors
    /// [`HubError::MalformedToken`], or a token's file that cannot be read.
    pub fn builder() -> Result<HubBuilder, HubError> {
        Ok(HubBuilder {
            settings: Settings::read(|name| std::env::var_os(name))?,
            connections: 4,
            patience: Patience {
                attempts: 5,
                first: Duration::from_secs(1),
            },
        })
    }

    /// The folder all repositories lie in.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}

/// Settings of a [`Hub`].
#[derive(Debug, Clone)]
pub struct HubBuilder {
    settings: Settings,
    connections: usize,
    patience: Patience,
}

impl HubBuilder {
    /// Another Hub than the environment's, as `https://host[:port][/path]`.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.settings.endpoint = endpoint.into();
        self
    }

    /// Another cache folder; what `HF_HUB_CACHE` would name.
    #[must_use]
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.cache = folder.into();
        self
    }

    /// Another token than the environment's. The empty one is none.
    ///
    /// # Errors
    /// [`HubError::MalformedToken`] if it cannot be sent.
    pub fn token(mut self, token: &str) -> Result<Self, HubError> {
        self.settings.token = Token::parse(token, "the program's own setting")?;
        Ok(self)
    }

    /// Whether to use the cache only. The environment's word is replaced.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.settings.offline = offline;
        self
    }

    /// How many files are fetched at once; 4 unless set.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// How often a request is made before it is given up, and the wait after the first failure, which
    /// doubles up to 30 s; 5 and 1 s unless set. A download that goes on after a cut counts anew.
    #[must_use]
    pub fn attempts(mut self, attempts: u32, first_wait: Duration) -> Self {
        self.patience = Patience {
            attempts: attempts.max(1),
            first: first_wait,
        };
        self
    }

    /// The Hub.
    ///
    /// # Errors
    /// [`HubError::InvalidEndpoint`] and [`HubError::NoCertificates`].
    pub fn build(self) -> Result<Hub, HubError> {
        Ok(Hub {
            client: Client::new(
                &self.settings.endpoint,
                self.settings.token,
                self.settings.authorities.as_deref(),
            )?,
            cache: self.settings.cache,
            offline: self.settings.offline,
            connections: self.connections,
            patience: self.patience,
        })
    }
}
