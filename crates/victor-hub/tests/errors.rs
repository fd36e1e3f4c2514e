//! What the Hub refuses, and how that is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_hub;

use std::net::TcpListener;
use std::time::Duration;

use fake_hub::*;
use victor_hub::{HubError, RepoId, Revision, Silent, Wanted};

/// The error of opening the model with or without a token; its message has neither the token nor a
/// signature.
fn refused(hub: &FakeHub, token: &str, revision: &str) -> HubError {
    let cache = tempfile::tempdir().unwrap();
    let client = hub
        .client(cache.path())
        .token(token)
        .unwrap()
        .build()
        .unwrap();
    let error = open(&client, revision, &Wanted::Model).unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains(TOKEN) && !told.contains(SIGNATURE), "{told}");
    error
}

#[test]
fn gated_names_the_page_and_the_token() {
    let hub = FakeHub::model(1000);
    let page = format!("{}/owner/llava", hub.endpoint);
    for (token, status, says) in [("", 401, "HF_TOKEN"), (TOKEN, 403, "account")] {
        hub.fault(
            "HEAD /owner/llava/resolve",
            Fault::Status(status, "X-Error-Code: GatedRepo\r\n"),
            1,
        );
        let error = refused(&hub, token, "main");
        assert!(matches!(error, HubError::Gated { .. }), "{error:?}");
        let told = error.to_string();
        assert!(told.contains(&page) && told.contains(says), "{told}");
        hub.clear_faults();
    }
}

#[test]
fn a_missing_repository_is_a_typo_or_private() {
    let hub = FakeHub::model(1000);
    let cache = tempfile::tempdir().unwrap();
    for (token, says) in [("", "a token in HF_TOKEN"), (TOKEN, "may not")] {
        let client = hub
            .client(cache.path())
            .token(token)
            .unwrap()
            .build()
            .unwrap();
        let typo = RepoId::parse("owner/lava").unwrap();
        let error = client.snapshot(&typo, &Revision::default(), &Wanted::Model, &Silent);
        let error = error.unwrap_err();
        assert!(matches!(error, HubError::RepoNotFound { .. }), "{error:?}");
        let told = error.to_string();
        assert!(
            told.contains("owner/lava") && told.contains("spelling") && told.contains(says),
            "{told}"
        );
    }
    assert!(!cache.path().join("models--owner--lava").exists());
}

#[test]
fn a_missing_revision_is_named() {
    let hub = FakeHub::model(1000);
    for revision in ["v2", "0123456789012345678901234567890123456789"] {
        let error = refused(&hub, "", revision);
        assert!(
            matches!(error, HubError::RevisionNotFound { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(revision));
    }
}

#[test]
fn a_refused_token_is_not_a_missing_repository() {
    let hub = FakeHub::model(1000);
    let headers = "X-Error-Message: Invalid credentials in Authorization header\r\n";
    hub.fault("GET /api", Fault::Status(401, headers), 1);
    let error = refused(&hub, TOKEN, "main");
    assert!(matches!(error, HubError::TokenRefused { .. }), "{error:?}");
}

#[test]
fn repositories_of_gguf_files_say_how_to_choose() {
    let hub = FakeHub::new(&[("config.json", b"{}".to_vec()), ("m-Q4.gguf", bytes(1, 9))]);
    let error = refused(&hub, "", "main");
    assert!(matches!(error, HubError::NoWeights { .. }), "{error:?}");
    assert!(error.to_string().contains("owner/llava:m-Q4.gguf"));
    assert_eq!(hub.take_log().len(), 1);
}

#[test]
fn names_that_leave_the_snapshot_condemn_the_repository() {
    let hub = FakeHub::model(1000);
    for name in ["../../x", "/etc/passwd", "a/../../x", "..\\x"] {
        hub.take_log();
        hub.fault("GET /api", Fault::Lists(name), 1);
        match refused(&hub, "", "main") {
            HubError::UnsafeFileName { file, .. } => assert_eq!(file, name),
            other => panic!("{other:?}"),
        }
        assert_eq!(hub.take_log().len(), 1);
    }
}

#[test]
fn a_login_page_is_no_hub() {
    let hub = FakeHub::model(1000);
    hub.fault("GET /api", Fault::Html, 1);
    let error = refused(&hub, "", "main");
    assert!(
        matches!(error, HubError::UnexpectedAnswer { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("HF_ENDPOINT"));
}

#[test]
fn redirects_have_an_end() {
    let hub = FakeHub::model(1000);
    let to_itself = "Location: /api/models/owner/llava/revision/main\r\n";
    hub.fault("GET /api", Fault::Status(302, to_itself), 100);
    let error = refused(&hub, "", "main");
    assert!(error.to_string().contains("more than 10 times"), "{error}");
    hub.clear_faults();
    hub.fault(
        "GET /api",
        Fault::Status(302, "Location: file:///etc/passwd\r\n"),
        1,
    );
    let error = refused(&hub, "", "main");
    assert!(error.to_string().contains("cannot be followed"), "{error}");
}

#[test]
fn no_network_names_the_endpoint() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let hub = FakeHub::model(1000);
    let cache = tempfile::tempdir().unwrap();
    let client = hub
        .client(cache.path())
        .endpoint(&endpoint)
        .build()
        .unwrap();
    let error = open(&client, "main", &Wanted::Model).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error:?}");
    let told = error.to_string();
    assert!(
        told.contains(&endpoint) && told.contains("HF_HUB_OFFLINE"),
        "{told}"
    );
    assert!(hub.take_log().is_empty());
}

#[test]
fn a_long_rate_limit_is_told_and_not_waited_for() {
    let hub = FakeHub::model(1000);
    hub.fault(
        "GET /api",
        Fault::Status(429, "RateLimit: \"api\";r=0;t=900\r\n"),
        1,
    );
    match refused(&hub, "", "main") {
        HubError::RateLimited { wait, .. } => assert_eq!(wait, Some(Duration::from_secs(900))),
        other => panic!("{other:?}"),
    }
    hub.clear_faults();
    hub.fault("GET /api", Fault::Status(429, "Retry-After: 0\r\n"), 100);
    let error = refused(&hub, "", "main");
    assert!(matches!(error, HubError::RateLimited { .. }), "{error:?}");
}

#[test]
fn other_refusals_keep_the_hubs_words() {
    let hub = FakeHub::model(1000);
    hub.fault(
        "GET /storage",
        Fault::Status(403, "X-Error-Message: Request has expired\r\n"),
        100,
    );
    let error = refused(&hub, TOKEN, "main");
    assert!(
        matches!(error, HubError::Status { status: 403, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("Request has expired"));
}
