//! What the headers of an answer say.

use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode};
use url::Url;

use crate::client::{Client, shown};
use crate::file_name::is_etag;
use crate::{AnswerProblem, HubError, RepoId, Revision};

/// The longest message of the Hub's that is passed on, in characters.
const MAX_MESSAGE: usize = 300;

/// What a request is about, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) repo: &'a RepoId,
    pub(crate) revision: &'a Revision,
    pub(crate) file: Option<&'a str>,
}

/// An answer and where it came from.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) url: Url,
    /// Whether it is the endpoint's own answer and not that of a storage it redirected to.
    pub(crate) own: bool,
}

/// A `Content-Range`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) total: Option<u64>,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Where to go on, if this is a redirect. One that already tells a file's hash and size is an
    /// end for those who only ask for that.
    pub(crate) fn redirect(&self, only_head: bool) -> Result<Option<Url>, HubError> {
        let is_redirect = matches!(self.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let told = || {
            self.header("X-Linked-Etag")
                .and(self.header("X-Linked-Size"))
                .is_some()
        };
        if !is_redirect || (only_head && told()) {
            return Ok(None);
        }
        let next = self
            .header("Location")
            .and_then(|to| self.url.join(to).ok());
        let follows = |next: &Url| match next.scheme() {
            "https" => true,
            "http" => self.url.scheme() == "http",
            _ => false,
        };
        next.filter(follows)
            .map(Some)
            .ok_or_else(|| unexpected(&self.url, AnswerProblem::Redirect))
    }

    /// The hash in the ETag: that of the linked file if there is one.
    pub(crate) fn etag(&self) -> Result<String, HubError> {
        self.header("X-Linked-Etag")
            .or_else(|| self.header("ETag"))
            .map(|etag| etag.trim_start_matches("W/").trim_matches('"'))
            .filter(|etag| is_etag(etag))
            .map(str::to_owned)
            .ok_or_else(|| unexpected(&self.url, AnswerProblem::ETag))
    }

    pub(crate) fn size(&self) -> Result<u64, HubError> {
        let linked = self
            .header("X-Linked-Size")
            .and_then(|size| size.parse().ok());
        let own = self
            .content_length()
            .filter(|_| !self.status().is_redirection());
        linked
            .or(own)
            .ok_or_else(|| unexpected(&self.url, AnswerProblem::Size))
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header("Content-Length")?.parse().ok()
    }

    pub(crate) fn range(&self) -> Option<Range> {
        parse_range(self.header("Content-Range")?)
    }

    /// Why the request was refused, by the Hub's own code where there is one.
    pub(crate) fn refusal(&self, client: &Client, about: &About<'_>) -> HubError {
        let repo = about.repo.clone();
        let status = self.status().as_u16();
        if status == 429 {
            return HubError::RateLimited {
                endpoint: self.url.origin().ascii_serialization(),
                wait: self.asked_wait(),
            };
        }
        let message = self.header("X-Error-Message");
        let code = self.header("X-Error-Code").filter(|_| self.own);
        let missing_file = || HubError::FileNotFound {
            repo: about.repo.clone(),
            revision: about.revision.clone(),
            file: about.file.unwrap_or_default().to_owned(),
        };
        let missing_repo = || HubError::RepoNotFound {
            repo: about.repo.clone(),
            endpoint: client.endpoint(),
            with_token: client.has_token(),
        };
        match (code, status) {
            (Some("GatedRepo"), _) => HubError::Gated {
                repo,
                page: client.page(about),
                with_token: client.has_token(),
            },
            (Some("RepoNotFound"), _) => missing_repo(),
            (Some("RevisionNotFound"), _) => HubError::RevisionNotFound {
                repo,
                revision: about.revision.clone(),
                page: client.page(about),
            },
            (Some("EntryNotFound"), _) => missing_file(),
            (_, 401) if self.own && message.is_some_and(|text| text.contains("credentials")) => {
                HubError::TokenRefused {
                    endpoint: client.endpoint(),
                }
            }
            // The Hub does not tell strangers whether a repository exists.
            (_, 401) if self.own => missing_repo(),
            (_, 404) if self.own && about.file.is_some() => missing_file(),
            (_, 404) if self.own => missing_repo(),
            _ => HubError::Status {
                url: shown(&self.url),
                status,
                message: message.map(one_line),
            },
        }
    }

    /// Seconds to wait, from `Retry-After` or from `t` of the Hub's `RateLimit`.
    fn asked_wait(&self) -> Option<Duration> {
        let asked = self
            .header("Retry-After")
            .and_then(|value| value.trim().parse().ok());
        let reset = || {
            let mut parts = self.header("RateLimit")?.split(';');
            parts.find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
        };
        asked.or_else(reset).map(Duration::from_secs)
    }
}

/// An answer that the Hub would not give.
pub(crate) fn unexpected(url: &Url, problem: AnswerProblem) -> HubError {
    HubError::UnexpectedAnswer {
        url: shown(url),
        problem,
    }
}

fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(MAX_MESSAGE).collect()
}

/// `bytes 5-9/10`, or `*` for an unknown total.
fn parse_range(text: &str) -> Option<Range> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some(Range {
        start: start.trim().parse().ok()?,
        total: total.trim().parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let range = |start, total| Some(Range { start, total });
        assert_eq!(parse_range("bytes 5-9/10"), range(5, Some(10)));
        assert_eq!(parse_range("bytes 0-0/*"), range(0, None));
        assert_eq!(parse_range("bytes */10"), None);
        assert_eq!(parse_range("5-9"), None);
    }
}
