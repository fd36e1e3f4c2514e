//! The cache alone: by wish, and when the Hub does not answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_hub;

use std::fs;

use fake_hub::*;
use victor_hub::{HubError, Snapshot, Wanted};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn missing(result: Result<Snapshot, HubError>) -> Vec<String> {
    match result {
        Err(HubError::NotCached { files, .. }) => files,
        other => panic!("{other:?}"),
    }
}

#[test]
fn offline_needs_no_hub() {
    let hub = FakeHub::model(1000);
    let cache = tempfile::tempdir().unwrap();
    let offline = hub.client(cache.path()).offline(true).build().unwrap();
    let error = open(&offline, "main", &Wanted::Model).unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("owner/llava") && told.contains("offline"),
        "{told}"
    );
    assert_eq!(missing(Err(error)), ["every file"]);

    let online = hub.open(cache.path()).unwrap();
    hub.take_log();
    for revision in ["main", &online.commit] {
        let snapshot = open(&offline, revision, &Wanted::Model).unwrap();
        assert_eq!(snapshot.folder, online.folder);
    }
    let files = Wanted::Files(vec!["optimizer.pt".to_owned(), "config.json".to_owned()]);
    assert_eq!(missing(open(&offline, "main", &files)), ["optimizer.pt"]);
    assert_eq!(missing(open(&offline, "v2", &files)).len(), 2);
    assert!(hub.take_log().is_empty());
}

#[test]
fn what_a_cut_download_lacks_is_named() {
    let hub = FakeHub::model(1000);
    let cache = tempfile::tempdir().unwrap();
    hub.fault(
        "GET /api/resolve-cache/models/owner/llava",
        Fault::Status(404, ""),
        1,
    );
    hub.open(cache.path()).unwrap_err();
    let offline = hub.client(cache.path()).offline(true).build().unwrap();
    let files = missing(open(&offline, "main", &Wanted::Model));
    assert!(files.contains(&"model.safetensors".to_owned()), "{files:?}");
    assert!(files.len() == 2 || files.len() == 3, "{files:?}");
}

#[test]
fn a_cache_without_lists_is_judged_by_its_index() {
    let hub = FakeHub::model(1000);
    let cache = tempfile::tempdir().unwrap();
    let folder = cache
        .path()
        .join("models--owner--llava/snapshots")
        .join(COMMIT);
    fs::create_dir_all(&folder).unwrap();
    let offline = hub.client(cache.path()).offline(true).build().unwrap();
    let look = || open(&offline, COMMIT, &Wanted::Model);
    assert_eq!(missing(look()), ["config.json", "model.safetensors"]);
    fs::write(folder.join("config.json"), "{}").unwrap();
    let index = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    fs::write(folder.join("m-1.safetensors"), "x").unwrap();
    assert_eq!(missing(look()), ["m-2.safetensors"]);
    fs::write(folder.join("m-2.safetensors"), "x").unwrap();
    assert_eq!(look().unwrap().folder, folder);
    // A whole commit is not asked for online either.
    let online = hub.client(cache.path()).build().unwrap();
    assert_eq!(
        open(&online, COMMIT, &Wanted::Model).unwrap().folder,
        folder
    );
    assert!(hub.take_log().is_empty());
}

#[test]
fn a_hub_that_does_not_answer_leaves_the_last_snapshot() {
    let gated = "X-Error-Code: GatedRepo\r\n";
    for fault in [
        Fault::Status(503, ""),
        Fault::Status(403, gated),
        Fault::Html,
        Fault::Cut(0),
    ] {
        let hub = FakeHub::model(1000);
        let cache = tempfile::tempdir().unwrap();
        let before = hub.open(cache.path()).unwrap();
        hub.take_log();
        hub.fault("GET /api", fault.clone(), 100);
        let after = hub.open(cache.path()).unwrap();
        assert_eq!(after.folder, before.folder);
        assert!(after.outdated.is_some(), "{fault:?}");
        assert_eq!(hub.take_log().len(), 1, "{fault:?}");
        // What the snapshot lacks is not made up for.
        let client = hub.client(cache.path()).build().unwrap();
        let more = Wanted::Files(vec!["README.md".to_owned()]);
        let error = open(&client, "main", &more).unwrap_err();
        assert!(!matches!(error, HubError::NotCached { .. }), "{error:?}");
    }
}

#[test]
fn a_revision_that_is_gone_is_an_error_all_the_same() {
    let hub = FakeHub::model(1000);
    hub.branch("v1");
    let cache = tempfile::tempdir().unwrap();
    let client = hub.client(cache.path()).build().unwrap();
    open(&client, "v1", &Wanted::Model).unwrap();
    hub.fault(
        "GET /api",
        Fault::Status(404, "X-Error-Code: RevisionNotFound\r\n"),
        1,
    );
    let error = open(&client, "v1", &Wanted::Model).unwrap_err();
    assert!(
        matches!(error, HubError::RevisionNotFound { .. }),
        "{error:?}"
    );
}
