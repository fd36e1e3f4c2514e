//! Snapshots from a Hub that answers, sometimes badly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_hub;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use fake_hub::*;
use victor_hub::{Event, HubError, Revision, Wanted};

const WEIGHTS: usize = 700_000;

/// The names right in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|one| one.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn blobs(cache: &Path) -> Vec<String> {
    names(&cache.join("models--owner--llava/blobs"))
}

fn weights_in(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn only_what_a_model_needs_is_fetched() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    let snapshot = hub.open(cache.path()).unwrap();
    assert_eq!(
        names(&snapshot.folder),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    assert_eq!(weights_in(&snapshot.folder), bytes(3, WEIGHTS));
    assert_eq!(
        fs::read(snapshot.folder.join("tokenizer.json")).unwrap(),
        bytes(2, 3000)
    );
    assert_eq!(snapshot.commit, hub.commit());
    assert!(snapshot.outdated.is_none());
    let repo = cache.path().join("models--owner--llava");
    assert_eq!(
        fs::read_to_string(repo.join("refs/main")).unwrap(),
        hub.commit()
    );
    assert_eq!(blobs(cache.path()).len(), 3);
    let unwanted = ["optimizer", "onnx", "README", "pytorch"];
    for request in hub.take_log() {
        assert!(
            !unwanted.iter().any(|part| request.path.contains(part)),
            "{request:?}"
        );
    }
}

#[test]
fn the_token_is_sent_to_the_hub_and_nowhere_else() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    let client = hub.client(cache.path()).token(TOKEN).unwrap();
    hub.fault("GET /storage/", Fault::Cut(1000), 1);
    let client = client.build().unwrap();
    open(&client, "main", &Wanted::Model).unwrap();
    let (storage, own): (Vec<_>, Vec<_>) =
        hub.take_log().into_iter().partition(|one| one.at_storage);
    assert!(storage.len() >= 2 && own.len() >= 5);
    for request in storage {
        assert_eq!(request.header("authorization"), None);
        assert!(!format!("{request:?}").contains(TOKEN));
    }
    for request in own {
        assert_eq!(
            request.header("authorization"),
            Some(format!("Bearer {TOKEN}").as_str())
        );
    }
    assert!(!format!("{client:?}").contains(TOKEN));
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    let first = hub.open(cache.path()).unwrap();
    hub.take_log();
    let second = hub.open(cache.path()).unwrap();
    assert_eq!(first.folder, second.folder);
    let log = hub.take_log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(
        log[0]
            .path
            .starts_with("/api/models/owner/llava/revision/main")
    );

    let client = hub.client(cache.path()).build().unwrap();
    let pinned = open(&client, &hub.commit(), &Wanted::Model).unwrap();
    assert_eq!(pinned.folder, first.folder);
    assert!(hub.take_log().is_empty());
}

#[test]
fn a_moved_branch_brings_the_new_files_only() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    let old = hub.open(cache.path()).unwrap();
    hub.take_log();
    let new_config = b"{\"a\": 1}".to_vec();
    let weights = bytes(3, WEIGHTS);
    hub.push(&[
        ("config.json", new_config.clone()),
        ("model.safetensors", weights.clone()),
    ]);
    let new = hub.open(cache.path()).unwrap();
    assert_ne!(old.commit, new.commit);
    assert_eq!(
        fs::read(new.folder.join("config.json")).unwrap(),
        new_config
    );
    assert_eq!(weights_in(&new.folder), weights);
    assert_eq!(fs::read(old.folder.join("config.json")).unwrap(), b"{}");
    assert_eq!(downloads(&hub.take_log()), 0);
}

#[test]
fn a_cut_connection_is_resumed_where_it_ended() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    hub.fault("GET /storage/", Fault::Cut(200_000), 1);
    hub.fault("GET /storage/", Fault::Cut(300_000), 1);
    let snapshot = hub.open(cache.path()).unwrap();
    assert_eq!(weights_in(&snapshot.folder), bytes(3, WEIGHTS));
    let log = hub.take_log();
    let at_storage: Vec<_> = log.iter().filter(|one| one.at_storage).cloned().collect();
    assert_eq!(ranges(&at_storage), ["bytes=200000-", "bytes=500000-"]);
    assert!(
        blobs(cache.path())
            .iter()
            .all(|name| !name.ends_with(".incomplete"))
    );
}

#[test]
fn a_later_run_resumes_an_earlier_one() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    hub.fault("GET /storage/", Fault::Cut(400_000), 1);
    hub.fault("GET /storage/", Fault::Cut(0), 100);
    let error = hub.open(cache.path()).unwrap_err();
    match &error {
        HubError::Interrupted {
            file,
            received,
            size,
            ..
        } => {
            assert_eq!(
                (file.as_str(), *received, *size),
                ("model.safetensors", 400_000, 700_000)
            );
        }
        other => panic!("{other:?}"),
    }
    hub.clear_faults();
    hub.take_log();
    let snapshot = hub.open(cache.path()).unwrap();
    assert_eq!(weights_in(&snapshot.folder), bytes(3, WEIGHTS));
    let log = hub.take_log();
    let at_storage: Vec<_> = log.iter().filter(|one| one.at_storage).cloned().collect();
    assert_eq!(ranges(&at_storage), ["bytes=400000-"]);
    assert_eq!(downloads(&log), 1);
}

#[test]
fn servers_without_ranges_send_from_the_start() {
    for fault in [Fault::WholeFile, Fault::Status(416, "")] {
        let hub = FakeHub::model(WEIGHTS);
        let cache = tempfile::tempdir().unwrap();
        hub.fault("GET /storage/", Fault::Cut(200_000), 1);
        hub.fault("GET /storage/", fault, 1);
        let snapshot = hub.open(cache.path()).unwrap();
        assert_eq!(weights_in(&snapshot.folder), bytes(3, WEIGHTS));
    }
}

#[test]
fn a_server_that_cuts_and_has_no_ranges_is_given_up() {
    for refusal in [Fault::WholeFileCut(200_000), Fault::Status(416, "")] {
        let hub = FakeHub::model(WEIGHTS);
        let cache = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            hub.fault("GET /storage/", Fault::Cut(200_000), 1);
            hub.fault("GET /storage/", refusal.clone(), 1);
        }
        let error = hub.open(cache.path()).unwrap_err();
        assert!(matches!(error, HubError::Interrupted { .. }), "{error:?}");
        assert!(downloads(&hub.take_log()) <= 8);
    }
}

#[test]
fn busy_and_failing_servers_are_asked_again() {
    let faults = [
        ("GET /api/models", Fault::Status(503, "")),
        ("HEAD /owner/llava/resolve", Fault::Status(500, "")),
        ("GET /storage/", Fault::Status(502, "")),
        ("GET /storage/", Fault::Status(429, "Retry-After: 1\r\n")),
        ("GET /api/resolve-cache", Fault::Status(504, "")),
    ];
    for (part, fault) in faults {
        let hub = FakeHub::model(WEIGHTS);
        let cache = tempfile::tempdir().unwrap();
        let waits = matches!(fault, Fault::Status(429, _));
        hub.fault(part, fault, 1);
        let begin = std::time::Instant::now();
        let snapshot = hub.open(cache.path()).unwrap();
        assert_eq!(weights_in(&snapshot.folder), bytes(3, WEIGHTS), "{part}");
        assert!(!waits || begin.elapsed() >= Duration::from_secs(1));
    }
}

#[test]
fn wrong_bytes_never_become_a_blob() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    hub.fault("GET /storage/", Fault::Flip, 100);
    let error = hub.open(cache.path()).unwrap_err();
    match &error {
        HubError::WrongHash { file, expected, .. } => {
            assert_eq!(file, "model.safetensors");
            assert_eq!(*expected, sha256(&bytes(3, WEIGHTS)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(blobs(cache.path()).len(), 2);
    assert_eq!(downloads(&hub.take_log()), 1);
    hub.clear_faults();
    let snapshot = hub.open(cache.path()).unwrap();
    assert_eq!(weights_in(&snapshot.folder), bytes(3, WEIGHTS));
}

#[test]
fn a_damaged_piece_of_an_earlier_run_is_fetched_anew() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--owner--llava/blobs");
    fs::create_dir_all(&folder).unwrap();
    let hash = sha256(&bytes(3, WEIGHTS));
    fs::write(folder.join(format!("{hash}.incomplete")), bytes(99, 1000)).unwrap();
    let snapshot = hub.open(cache.path()).unwrap();
    assert_eq!(weights_in(&snapshot.folder), bytes(3, WEIGHTS));
    let log = hub.take_log();
    assert!(ranges(&log).contains(&"bytes=1000-"));
    assert_eq!(downloads(&log), 2);
}

fn sharded() -> FakeHub {
    let index = r#"{"metadata": {}, "weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors", "c": "part-1.safetensors"}}"#;
    FakeHub::new(&[
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.as_bytes().to_vec()),
        ("part-1.safetensors", bytes(1, 200_000)),
        ("part-2.safetensors", bytes(2, 200_000)),
        ("part-3.safetensors", bytes(3, 200_000)),
    ])
}

#[test]
fn shards_are_those_the_index_names() {
    let hub = sharded();
    let cache = tempfile::tempdir().unwrap();
    let snapshot = hub.open(cache.path()).unwrap();
    let index = "model.safetensors.index.json";
    let expected = [
        "config.json",
        index,
        "part-1.safetensors",
        "part-2.safetensors",
    ];
    assert_eq!(names(&snapshot.folder), expected);
}

#[test]
fn a_shard_the_repository_lacks_is_named() {
    let hub = FakeHub::new(&[
        ("config.json", b"{}".to_vec()),
        (
            "pytorch_model.bin.index.json",
            br#"{"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}"#.to_vec(),
        ),
        ("pytorch_model-00001-of-00002.bin", bytes(1, 100)),
    ]);
    let cache = tempfile::tempdir().unwrap();
    match hub.open(cache.path()) {
        Err(HubError::FileNotFound { file, .. }) => {
            assert_eq!(file, "pytorch_model-00002-of-00002.bin");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let hub = FakeHub::new(&[
        ("config.json", b"{}".to_vec()),
        (
            "model.safetensors.index.json",
            br#"{"weight_map": {"a": "../../../x"}}"#.to_vec(),
        ),
    ]);
    let cache = tempfile::tempdir().unwrap();
    match hub.open(cache.path()) {
        Err(HubError::UnsafeFileName { file, .. }) => assert_eq!(file, "../../../x"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_named_file_in_a_folder_of_a_branch() {
    let hub = FakeHub::new(&[
        ("gguf/m-Q4_K_M.gguf", bytes(1, 1000)),
        ("gguf/m-Q8_0.gguf", bytes(2, 1000)),
    ]);
    hub.branch("refs/pr/1");
    let cache = tempfile::tempdir().unwrap();
    let client = hub.client(cache.path()).build().unwrap();
    let from = victor_hub::HubRef::parse("owner/llava@refs/pr/1:gguf/m-Q4_K_M.gguf").unwrap();
    let snapshot = client
        .snapshot(
            &from.repo,
            &from.revision,
            &from.wanted(),
            &victor_hub::Silent,
        )
        .unwrap();
    let file = snapshot.folder.join("gguf/m-Q4_K_M.gguf");
    assert_eq!(fs::read(file).unwrap(), bytes(1, 1000));
    assert_eq!(names(&snapshot.folder.join("gguf")), ["m-Q4_K_M.gguf"]);
    let reference = cache.path().join("models--owner--llava/refs/refs/pr/1");
    assert_eq!(fs::read_to_string(reference).unwrap(), hub.commit());
    match open(
        &client,
        "main",
        &Wanted::Files(vec!["m-Q9.gguf".to_owned()]),
    ) {
        Err(HubError::FileNotFound { file, .. }) => assert_eq!(file, "m-Q9.gguf"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn several_files_come_at_once_but_not_more_than_asked_for() {
    let shards: Vec<String> = (1..=8)
        .map(|n| format!("model-{n:05}-of-00008.safetensors"))
        .collect();
    let mut files = vec![("config.json", b"{}".to_vec())];
    for (seed, name) in shards.iter().enumerate() {
        files.push((name.as_str(), bytes(seed as u64, 100_000)));
    }
    let hub = FakeHub::new(&files);
    hub.fault(
        "GET /storage/",
        Fault::Slow(Duration::from_millis(100)),
        100,
    );
    let cache = tempfile::tempdir().unwrap();
    let client = hub.client(cache.path()).connections(3).build().unwrap();
    open(&client, "main", &Wanted::Model).unwrap();
    let most = hub.most_at_once();
    assert!((2..=3).contains(&most), "{most}");
}

#[test]
fn progress_tells_every_byte_once() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    hub.fault("GET /storage/", Fault::Cut(200_000), 1);
    let planned = Mutex::new((0, 0));
    let last = Mutex::new(std::collections::BTreeMap::new());
    let finished = Mutex::new(Vec::new());
    let retries = Mutex::new(0);
    let listen = |event: Event<'_>| match event {
        Event::Planned { files, bytes } => {
            let mut planned = planned.lock().unwrap();
            *planned = (planned.0 + files, planned.1 + bytes);
        }
        Event::Advanced { file, done } => {
            let before = last.lock().unwrap().insert(file.to_owned(), done);
            assert!(before.unwrap_or(0) < done);
        }
        Event::Retrying { file, .. } => {
            assert_eq!(file, "model.safetensors");
            *retries.lock().unwrap() += 1;
        }
        Event::Finished { file } => finished.lock().unwrap().push(file.to_owned()),
        _ => {}
    };
    let client = hub.client(cache.path()).build().unwrap();
    client
        .snapshot(&repo(), &Revision::default(), &Wanted::Model, &listen)
        .unwrap();
    let total = 2 + 3000 + WEIGHTS as u64;
    assert_eq!(*planned.lock().unwrap(), (3, total));
    assert_eq!(last.lock().unwrap().values().sum::<u64>(), total);
    assert_eq!(finished.lock().unwrap().len(), 3);
    assert_eq!(*retries.lock().unwrap(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_file() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--owner--llava/blobs");
    fs::create_dir_all(&folder).unwrap();
    let hash = sha256(&bytes(3, WEIGHTS));
    let incomplete = folder.join(format!("{hash}.incomplete"));
    std::os::unix::fs::symlink("/dev/full", &incomplete).unwrap();
    let error = hub.open(cache.path()).unwrap_err();
    match &error {
        HubError::DiskFull {
            file, path, size, ..
        } => {
            assert_eq!(
                (file.as_str(), path, *size),
                ("model.safetensors", &incomplete, 700_000)
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(incomplete.is_symlink());
    assert_eq!(downloads(&hub.take_log()), 1);
}

#[test]
fn the_hf_hub_crate_finds_our_files_and_we_find_its() {
    let hub = FakeHub::model(WEIGHTS);
    let cache = tempfile::tempdir().unwrap();
    let snapshot = hub.open(cache.path()).unwrap();
    let theirs = hf_hub::Cache::new(cache.path().to_owned()).model(REPO.to_owned());
    let found = theirs.get("model.safetensors").unwrap();
    assert_eq!(found, snapshot.folder.join("model.safetensors"));

    let cache = tempfile::tempdir().unwrap();
    let theirs = hf_hub::Cache::new(cache.path().to_owned()).model(REPO.to_owned());
    let commit = hub.commit();
    theirs.create_ref(&commit).unwrap();
    let folder = theirs.pointer_path(&commit);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), "{}").unwrap();
    fs::write(folder.join("model.safetensors"), "x").unwrap();
    let client = hub.client(cache.path()).offline(true).build().unwrap();
    let snapshot = open(&client, "main", &Wanted::Model).unwrap();
    assert_eq!(snapshot.folder, folder);
}
