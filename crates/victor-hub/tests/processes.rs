//! Several at once, and one that is killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_hub;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fake_hub::*;
use victor_hub::{Hub, Wanted};

const WEIGHTS: usize = 2_000_000;
const ENDPOINT: &str = "VICTOR_HUB_TEST_ENDPOINT";
const CACHE: &str = "VICTOR_HUB_TEST_CACHE";

/// What the child processes of the tests below do.
#[test]
#[ignore = "it is started by the other tests of this file, as a process of its own"]
fn child() {
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let cache = std::env::var_os(CACHE).unwrap();
    let hub = Hub::builder().unwrap().endpoint(endpoint).cache(cache);
    let hub = hub.token("").unwrap().offline(false).build().unwrap();
    open(&hub, "main", &Wanted::Model).unwrap();
}

fn start(hub: &FakeHub, cache: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child"])
        .env(ENDPOINT, &hub.endpoint)
        .env(CACHE, cache)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn weights(cache: &Path, hub: &FakeHub) -> Vec<u8> {
    let folder = cache
        .join("models--owner--llava/snapshots")
        .join(hub.commit());
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn two_processes_fetch_one_file_once() {
    let hub = FakeHub::model(WEIGHTS);
    hub.fault("GET /storage/", Fault::Slow(Duration::from_millis(20)), 100);
    let cache = tempfile::tempdir().unwrap();
    let children = [start(&hub, cache.path()), start(&hub, cache.path())];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(weights(cache.path(), &hub), bytes(3, WEIGHTS));
    assert_eq!(downloads(&hub.take_log()), 1);
}

#[test]
fn two_threads_fetch_one_file_once() {
    let hub = FakeHub::model(WEIGHTS);
    hub.fault("GET /storage/", Fault::Slow(Duration::from_millis(10)), 100);
    let cache = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| hub.open(cache.path()).unwrap());
        }
    });
    assert_eq!(weights(cache.path(), &hub), bytes(3, WEIGHTS));
    assert_eq!(downloads(&hub.take_log()), 1);
}

#[test]
fn a_killed_process_leaves_what_the_next_one_resumes() {
    let hub = FakeHub::model(WEIGHTS);
    hub.fault("GET /storage/", Fault::Slow(Duration::from_millis(100)), 1);
    let cache = tempfile::tempdir().unwrap();
    let hash = sha256(&bytes(3, WEIGHTS));
    let blobs = cache.path().join("models--owner--llava/blobs");
    let incomplete = blobs.join(format!("{hash}.incomplete"));
    let mut child = start(&hub, cache.path());
    let begin = Instant::now();
    while fs::metadata(&incomplete).map_or(0, |data| data.len()) < 200_000 {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = fs::metadata(&incomplete).unwrap().len();
    assert!(kept < WEIGHTS as u64);
    hub.take_log();
    hub.open(cache.path()).unwrap();
    assert_eq!(weights(cache.path(), &hub), bytes(3, WEIGHTS));
    let log = hub.take_log();
    let at_storage: Vec<_> = log.iter().filter(|one| one.at_storage).cloned().collect();
    assert_eq!(ranges(&at_storage), [format!("bytes={kept}-")]);
}
