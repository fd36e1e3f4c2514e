//! How often and after what wait a failed request is made again.

use std::time::Duration;

use crate::HubError;
use crate::progress::{Event, Progress};
use crate::workers::Stop;

/// The longest wait between two attempts that the Hub did not ask for.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest wait the Hub may ask for: its windows for counting requests are five minutes.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// A budget of attempts, and the wait after the first of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) attempts: u32,
    pub(crate) first: Duration,
}

impl Patience {
    /// How long to wait after so many failures in a row; `None` to give up.
    pub(crate) fn wait(&self, failures: u32, error: &HubError) -> Option<Duration> {
        if failures >= self.attempts || !error.is_transient() {
            return None;
        }
        self.backoff(failures, error)
    }

    /// Doubles from failure to failure, and is never shorter than what the Hub asks for.
    fn backoff(&self, failures: u32, error: &HubError) -> Option<Duration> {
        let doubled = self
            .first
            .saturating_mul(1 << failures.saturating_sub(1).min(10));
        let own = doubled.min(LONGEST);
        match error {
            HubError::RateLimited {
                wait: Some(asked), ..
            } => (*asked <= LONGEST_ASKED).then(|| own.max(*asked)),
            _ => Some(own),
        }
    }

    /// Makes a request until it succeeds, cannot succeed, or the budget is spent.
    pub(crate) fn retry<T>(
        &self,
        file: &str,
        progress: &dyn Progress,
        stop: &Stop,
        mut request: impl FnMut() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut failures = 0;
        loop {
            let error = match request() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failures += 1;
            let Some(wait) = self.wait(failures, &error) else {
                return Err(error);
            };
            progress.event(Event::Retrying {
                file,
                wait,
                error: &error,
            });
            if stop.pause(wait) {
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(seconds: u64) -> HubError {
        HubError::RateLimited {
            endpoint: "x".to_owned(),
            wait: Some(Duration::from_secs(seconds)),
        }
    }

    fn status(status: u16) -> HubError {
        HubError::Status {
            url: "x".to_owned(),
            status,
            message: None,
        }
    }

    #[test]
    fn waits_double_and_end() {
        let patience = Patience {
            attempts: 8,
            first: Duration::from_secs(1),
        };
        let waits: Vec<_> = (1..9)
            .map(|failures| {
                patience
                    .wait(failures, &status(503))
                    .map(|wait| wait.as_secs())
            })
            .collect();
        let expected = [1, 2, 4, 8, 16, 30, 30].map(Some);
        assert_eq!(waits[..7], expected);
        assert_eq!(waits[7], None);
        assert_eq!(patience.wait(1, &status(404)), None);
    }

    #[test]
    fn the_hub_may_ask_for_five_minutes() {
        let patience = Patience {
            attempts: 5,
            first: Duration::from_secs(1),
        };
        assert_eq!(
            patience.wait(1, &limited(60)),
            Some(Duration::from_secs(60))
        );
        assert_eq!(patience.wait(4, &limited(2)), Some(Duration::from_secs(8)));
        assert_eq!(patience.wait(1, &limited(301)), None);
    }
}
