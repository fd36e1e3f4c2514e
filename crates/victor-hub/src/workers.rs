//! A few threads over a list of items, ended together by the first error.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tells the other workers that one has failed.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Sleeps, but not beyond a stop; `true` if there was one.
    pub(crate) fn pause(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        while !self.is_set() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        true
    }
}

/// Runs `work` over `items` on up to `threads` threads; results come in the items' order. After a
/// first error no further item begins, and that error is returned.
pub(crate) fn run<I: Sync, T: Send, E: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(&I, &Stop) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let stop = Stop::default();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let failed = Mutex::new(None);
    let worker = || {
        while !stop.is_set() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            match work(item, &stop) {
                Ok(value) => lock(&done).push((index, value)),
                Err(error) => {
                    // What others return because of the stop is no cause.
                    if !stop.is_set() {
                        lock(&failed).get_or_insert(error);
                    }
                    stop.set();
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(worker);
        }
    });
    if let Some(error) = into_inner(failed) {
        return Err(error);
    }
    let mut done = into_inner(done);
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        let items: Vec<u64> = (0..20).collect();
        let doubled = run(4, &items, |item, _| {
            std::thread::sleep(Duration::from_millis(20 - item));
            Ok::<_, ()>(item * 2)
        });
        assert_eq!(doubled, Ok((0..20).map(|item| item * 2).collect()));
        assert_eq!(run(4, &[] as &[u64], |_, _| Err::<(), _>(())), Ok(vec![]));
    }

    #[test]
    fn the_first_error_ends_all() {
        let items: Vec<usize> = (0..100).collect();
        let begun = AtomicUsize::new(0);
        let result = run(2, &items, |item, stop| {
            begun.fetch_add(1, Ordering::Relaxed);
            match item {
                0 => Err("first"),
                _ if stop.pause(Duration::from_secs(30)) => Err("stopped"),
                _ => Ok(()),
            }
        });
        assert_eq!(result, Err("first"));
        assert!(begun.into_inner() <= 3);
    }
}
