//! Requests to the Hub, and the redirects they end in.
//!
//! Redirects are followed here and not by the HTTP library, so that each request is decided on: the
//! token goes to the endpoint only, and a file's hash stands in the redirect to its storage.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ureq::http::StatusCode;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, BodyReader};
use url::Url;

use crate::listing::Listing;
use crate::response::{About, Answer, Range, unexpected};
use crate::roots;
use crate::token::Token;
use crate::{AnswerProblem, HubError};

/// A connection without a byte for so long is given up, and resumed where there is something to resume.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest list of files that is read, in bytes.
const MAX_LISTING: u64 = 1 << 28;

const MAX_REDIRECTS: usize = 10;

/// Asks one endpoint.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: Url,
    token: Option<Token>,
}

/// What the Hub says about a file before it sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileInfo {
    /// The blob's name: a SHA-256 for files in large-file storage, else git's hash.
    pub(crate) etag: String,
    pub(crate) size: u64,
}

/// The bytes of a file from `start` on.
pub(crate) struct Bytes {
    pub(crate) start: u64,
    pub(crate) reader: BodyReader<'static>,
}

impl Client {
    pub(crate) fn new(
        endpoint: &str,
        token: Option<Token>,
        authorities: Option<&Path>,
    ) -> Result<Self, HubError> {
        let roots = authorities.map_or(Ok(RootCerts::WebPki), roots::read)?;
        let valid = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        let parsed = Url::parse(endpoint).ok().filter(valid);
        let endpoint = parsed.ok_or_else(|| HubError::InvalidEndpoint {
            endpoint: endpoint.to_owned(),
        })?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("victor/", env!("CARGO_PKG_VERSION")))
            // Compressed answers would hide sizes, and ranges would mean something else.
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            endpoint,
            token,
        })
    }

    /// The address without what may be secret in it.
    pub(crate) fn endpoint(&self) -> String {
        shown(&self.endpoint).trim_end_matches('/').to_owned()
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The commit of a revision and the names of its files.
    pub(crate) fn listing(&self, about: &About<'_>) -> Result<Listing, HubError> {
        let repo = about.repo;
        let path = ["api", "models", repo.owner(), repo.name(), "revision"];
        let mut url = self.address(path.into_iter().chain([about.revision.as_str()]));
        url.set_query(Some("blobs=true"));
        let answer = self.send(Method::Get, url, 0)?;
        if answer.status() != StatusCode::OK {
            return Err(answer.refusal(self, about));
        }
        let shown = shown(&answer.url);
        let mut json = Vec::new();
        let body = answer.response.into_body().into_reader();
        match body.take(MAX_LISTING).read_to_end(&mut json) {
            Ok(_) => Listing::parse(&json, repo, &shown),
            Err(source) => Err(HubError::Unreachable {
                endpoint: self.endpoint(),
                source: Box::new(source.into()),
            }),
        }
    }

    /// A file's hash and size.
    pub(crate) fn head(&self, about: &About<'_>, file: &str) -> Result<FileInfo, HubError> {
        let answer = self.send(Method::Head, self.file_address(about, file), 0)?;
        if !answer.status().is_success() && !answer.status().is_redirection() {
            return Err(answer.refusal(self, about));
        }
        Ok(FileInfo {
            etag: answer.etag()?,
            size: answer.size()?,
        })
    }

    /// A file's bytes from `from` on, or from the start if the server has no ranges; `None` if it
    /// refuses the range.
    pub(crate) fn bytes(
        &self,
        about: &About<'_>,
        file: &str,
        from: u64,
        size: u64,
    ) -> Result<Option<Bytes>, HubError> {
        let answer = self.send(Method::Get, self.file_address(about, file), from)?;
        let wrong_size = |found| HubError::WrongSize {
            file: file.to_owned(),
            expected: size,
            found,
        };
        let start = match answer.status() {
            StatusCode::OK => match answer.content_length() {
                Some(found) if found != size => return Err(wrong_size(found)),
                _ => 0,
            },
            StatusCode::PARTIAL_CONTENT => match answer.range() {
                Some(Range {
                    total: Some(found), ..
                }) if found != size => {
                    return Err(wrong_size(found));
                }
                Some(Range { start, .. }) if start == from => from,
                _ => return Err(unexpected(&answer.url, AnswerProblem::Range)),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => return Ok(None),
            _ => return Err(answer.refusal(self, about)),
        };
        let reader = answer.response.into_body().into_reader();
        Ok(Some(Bytes { start, reader }))
    }

    /// The page of a repository for people.
    pub(crate) fn page(&self, about: &About<'_>) -> String {
        format!("{}/{}", self.endpoint(), about.repo)
    }

    fn file_address(&self, about: &About<'_>, file: &str) -> Url {
        let repo = about.repo;
        let path = [
            repo.owner(),
            repo.name(),
            "resolve",
            about.revision.as_str(),
        ];
        self.address(path.into_iter().chain(file.split('/')))
    }

    /// The endpoint's own path and these parts, each of them one part whatever characters it has.
    fn address<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Only addresses without a host have no parts, and `new` refuses those.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    fn send(&self, method: Method, mut url: Url, from: u64) -> Result<Answer, HubError> {
        for _ in 0..=MAX_REDIRECTS {
            let own = url.origin() == self.endpoint.origin();
            let mut request = match method {
                Method::Get => self.agent.get(url.as_str()),
                Method::Head => self.agent.head(url.as_str()),
            };
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.header("Authorization", token.header());
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|source| HubError::Unreachable {
                endpoint: url.origin().ascii_serialization(),
                source: Box::new(source),
            })?;
            let answer = Answer { response, url, own };
            match answer.redirect(method == Method::Head)? {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        Err(unexpected(&url, AnswerProblem::TooManyRedirects))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
}

/// An address as it may be shown: storage is signed in the query, and a password may stand before the
/// host.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    if !url.username().is_empty() || url.password().is_some() {
        // These fail only for addresses without a host, which have neither.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RepoId, Revision};

    #[test]
    fn addresses_keep_their_parts_apart() {
        let repo = RepoId::parse("a/b").unwrap();
        let revision = Revision::parse("refs/pr/1").unwrap();
        let about = About {
            repo: &repo,
            revision: &revision,
            file: None,
        };
        for endpoint in ["https://hub.example", "https://hub.example/"] {
            let client = Client::new(endpoint, None, None).unwrap();
            let address = client.file_address(&about, "x y/ä?.json");
            let expected = "https://hub.example/a/b/resolve/refs%2Fpr%2F1/x%20y/%C3%A4%3F.json";
            assert_eq!(address.as_str(), expected);
        }
        let behind = Client::new("https://u:p@proxy.example/hub/", None, None).unwrap();
        assert_eq!(behind.endpoint(), "https://proxy.example/hub");
        let address = behind.file_address(&about, "x");
        assert!(address.path().starts_with("/hub/a/b/resolve/"));
        for bad in ["", "hub.example", "ftp://x", "file:///x", "http://"] {
            assert!(Client::new(bad, None, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn signatures_are_not_shown() {
        let url = Url::parse("https://cdn.example/x?X-Amz-Signature=secret#f").unwrap();
        assert_eq!(shown(&url), "https://cdn.example/x");
    }
}
