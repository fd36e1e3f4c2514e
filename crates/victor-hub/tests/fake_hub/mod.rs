//! A server that behaves like the Hub, as far as one model repository goes, and a second one that is
//! the storage it redirects to. Every request is written down, and faults can be ordered.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use victor_hub::{Hub, HubBuilder, HubError, RepoId, Revision, Silent, Snapshot, Wanted};

pub(crate) const REPO: &str = "owner/llava";
pub(crate) const TOKEN: &str = "hf_aVerySecretToken";
pub(crate) const SIGNATURE: &str = "aSecretSignature";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) at_storage: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status with these header lines.
    Status(u16, &'static str),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// One byte of the body is another.
    Flip,
    /// The whole file comes although a part was asked for.
    WholeFile,
    /// Both of these.
    WholeFileCut(usize),
    /// A body that is no answer of a Hub.
    Html,
    /// The list of files has this one, too.
    Lists(&'static str),
    /// So long before each 64 KiB of the body.
    Slow(Duration),
}

#[derive(Debug, Default)]
struct Commit {
    files: BTreeMap<String, File>,
}

/// A file and its hashes, which are taken once.
#[derive(Debug)]
struct File {
    bytes: Vec<u8>,
    sha256: String,
    etag: String,
}

#[derive(Default)]
struct State {
    commits: BTreeMap<String, Commit>,
    branches: BTreeMap<String, String>,
    /// Where (a part of method and path), what, how many times.
    faults: Vec<(String, Fault, usize)>,
    log: Vec<Request>,
    storage: String,
}

pub(crate) struct FakeHub {
    state: Arc<Mutex<State>>,
    busy: Arc<AtomicUsize>,
    most_busy: Arc<AtomicUsize>,
    pub(crate) endpoint: String,
}

/// Bytes that no two offsets have alike.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn is_large(name: &str) -> bool {
    [".safetensors", ".bin", ".gguf", ".model", ".pt"]
        .iter()
        .any(|end| name.ends_with(end))
}

impl File {
    /// Large files are named by their SHA-256, small ones by 40 other digits.
    fn new(name: &str, bytes: &[u8]) -> Self {
        let sha256 = sha256(bytes);
        let etag = if is_large(name) {
            &sha256[..]
        } else {
            &sha256[24..]
        };
        Self {
            bytes: bytes.to_vec(),
            etag: etag.to_owned(),
            sha256,
        }
    }
}

impl FakeHub {
    /// A repository with these files on `main`.
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (busy, most_busy) = (Arc::default(), Arc::default());
        let serve = |at_storage: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let (state, busy, most_busy): (_, Arc<AtomicUsize>, Arc<AtomicUsize>) = (
                Arc::clone(&state),
                Arc::clone(&busy),
                Arc::clone(&most_busy),
            );
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, busy, most) = (state.clone(), busy.clone(), most_busy.clone());
                    thread::spawn(move || {
                        let now = busy.fetch_add(usize::from(at_storage), Ordering::SeqCst);
                        most.fetch_max(now + usize::from(at_storage), Ordering::SeqCst);
                        let _ = answer(&state, at_storage, stream);
                        busy.fetch_sub(usize::from(at_storage), Ordering::SeqCst);
                    });
                }
            });
            address
        };
        let endpoint = serve(false);
        let storage = serve(true);
        let hub = Self {
            state,
            busy,
            most_busy,
            endpoint,
        };
        hub.state.lock().unwrap().storage = storage;
        hub.push(files);
        hub
    }

    /// A small model: configuration, tokenizer, one file of weights, and what nobody wants.
    pub(crate) fn model(weights: usize) -> Self {
        Self::new(&[
            ("config.json", b"{}".to_vec()),
            ("tokenizer.json", bytes(2, 3000)),
            ("model.safetensors", bytes(3, weights)),
            ("README.md", b"a model".to_vec()),
            ("optimizer.pt", bytes(4, 5000)),
            ("onnx/model.onnx", bytes(5, 100)),
            ("pytorch_model.bin", bytes(6, 5000)),
        ])
    }

    /// Moves `main` to a new commit with these files; its hash.
    pub(crate) fn push(&self, files: &[(&str, Vec<u8>)]) -> String {
        let mut state = self.state.lock().unwrap();
        let commit = sha256(format!("{}", state.commits.len()).as_bytes())[..40].to_owned();
        let files = files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), File::new(name, bytes)));
        let files = Commit {
            files: files.collect(),
        };
        state.commits.insert(commit.clone(), files);
        state.branches.insert("main".to_owned(), commit.clone());
        commit
    }

    pub(crate) fn branch(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        let commit = state.branches["main"].clone();
        state.branches.insert(name.to_owned(), commit);
    }

    pub(crate) fn commit(&self) -> String {
        self.state.lock().unwrap().branches["main"].clone()
    }

    /// Orders a fault for the next `times` requests whose `METHOD path` contains `part`.
    pub(crate) fn fault(&self, part: &str, fault: Fault, times: usize) {
        let mut state = self.state.lock().unwrap();
        state.faults.push((part.to_owned(), fault, times));
    }

    pub(crate) fn clear_faults(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// The requests since the last call.
    pub(crate) fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.state.lock().unwrap().log.clone()
    }

    /// How many files were sent at once, at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most_busy.load(Ordering::SeqCst)
    }

    /// A client of this Hub that does not wait long.
    pub(crate) fn client(&self, cache: &Path) -> HubBuilder {
        let builder = Hub::builder()
            .unwrap()
            .endpoint(&self.endpoint)
            .cache(cache);
        let builder = builder.token("").unwrap().offline(false);
        builder.attempts(3, Duration::from_millis(5))
    }

    /// The model on `main`.
    pub(crate) fn open(&self, cache: &Path) -> Result<Snapshot, HubError> {
        open(&self.client(cache).build().unwrap(), "main", &Wanted::Model)
    }
}

pub(crate) fn open(hub: &Hub, revision: &str, wanted: &Wanted) -> Result<Snapshot, HubError> {
    hub.snapshot(
        &repo(),
        &Revision::parse(revision).unwrap(),
        wanted,
        &Silent,
    )
}

pub(crate) fn repo() -> RepoId {
    RepoId::parse(REPO).unwrap()
}

/// The contents of the `Range` headers of these requests.
pub(crate) fn ranges(log: &[Request]) -> Vec<&str> {
    log.iter()
        .filter_map(|request| request.header("range"))
        .collect()
}

/// Requests for bytes at the storage.
pub(crate) fn downloads(log: &[Request]) -> usize {
    log.iter()
        .filter(|request| request.at_storage && request.method == "GET")
        .count()
}

fn answer(state: &Mutex<State>, at_storage: bool, mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(());
    };
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request {
        at_storage,
        method,
        path,
        headers,
    };
    let (reply, fault) = {
        let mut state = state.lock().unwrap();
        state.log.push(request.clone());
        let fault = state.take_fault(&request);
        (state.reply(&request, fault.as_ref()), fault)
    };
    send(&mut stream, &request, reply, fault.as_ref())
}

struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn reply(status: u16, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Reply {
    Reply {
        status,
        headers: headers.into(),
        body: body.into(),
    }
}

impl State {
    fn take_fault(&mut self, request: &Request) -> Option<Fault> {
        let line = format!("{} {}", request.method, request.path);
        let fits = |(part, _, times): &(String, Fault, usize)| *times > 0 && line.contains(part);
        let (_, fault, times) = self.faults.iter_mut().find(|fault| fits(fault))?;
        *times -= 1;
        Some(fault.clone())
    }

    fn reply(&self, request: &Request, fault: Option<&Fault>) -> Reply {
        match fault {
            Some(Fault::Status(status, headers)) => return reply(*status, *headers, "no"),
            Some(Fault::Html) => return reply(200, "", "<html>Please log in</html>"),
            _ => {}
        }
        let path = request.path.split('?').next().unwrap_or_default();
        if let Some(hash) = path.strip_prefix("/storage/") {
            let mut files = self.commits.values().flat_map(|commit| &commit.files);
            let found = files.find(|(_, file)| file.etag == hash);
            return match found {
                Some((_, stored)) => file(request, &stored.bytes, "", fault),
                None => reply(404, "", ""),
            };
        }
        let api = format!("/api/models/{REPO}/revision/");
        let cached = format!("/api/resolve-cache/models/{REPO}/");
        if let Some(revision) = path.strip_prefix(&api) {
            return self.listing(revision, fault);
        }
        if let Some(rest) = path.strip_prefix(&cached) {
            let Some((commit, name)) = rest.split_once('/') else {
                return reply(404, "", "");
            };
            let stored = &self.commits[commit].files[name];
            let headers = format!("X-Repo-Commit: {commit}\r\nETag: W/\"{}\"\r\n", stored.etag);
            return file(request, &stored.bytes, &headers, fault);
        }
        match path
            .strip_prefix(&format!("/{REPO}/resolve/"))
            .and_then(|rest| rest.split_once('/'))
        {
            Some((commit, name)) => self.resolve(commit, name),
            None => reply(
                401,
                "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n",
                "",
            ),
        }
    }

    fn commit_of(&self, revision: &str) -> Option<(&str, &Commit)> {
        let revision = revision.replace("%2F", "/");
        let name = self.branches.get(&revision).unwrap_or(&revision);
        self.commits
            .get_key_value(name)
            .map(|(name, commit)| (name.as_str(), commit))
    }

    fn listing(&self, revision: &str, fault: Option<&Fault>) -> Reply {
        let Some((sha, commit)) = self.commit_of(revision) else {
            return reply(
                404,
                "X-Error-Code: RevisionNotFound\r\nX-Error-Message: Invalid rev id\r\n",
                "",
            );
        };
        let sibling = |(name, file): (&String, &File)| {
            let mut sibling = serde_json::json!({
                "rfilename": name, "size": file.bytes.len(), "blobId": &file.sha256[..40],
            });
            if is_large(name) {
                sibling["lfs"] = serde_json::json!({
                    "sha256": file.sha256, "size": file.bytes.len(), "pointerSize": 130,
                });
            }
            sibling
        };
        let mut siblings: Vec<_> = commit.files.iter().map(sibling).collect();
        if let Some(Fault::Lists(name)) = fault {
            siblings.push(serde_json::json!({"rfilename": name}));
        }
        let json = serde_json::json!({"id": REPO, "sha": sha, "siblings": siblings});
        reply(200, "Content-Type: application/json\r\n", json.to_string())
    }

    /// Large files are redirected to the storage, small ones to another address of the Hub.
    fn resolve(&self, revision: &str, name: &str) -> Reply {
        let found = self.commit_of(revision);
        let Some((commit, file)) = found.and_then(|(sha, c)| Some((sha, c.files.get(name)?)))
        else {
            return reply(404, "X-Error-Code: EntryNotFound\r\n", "");
        };
        let hash = &file.etag;
        if !is_large(name) {
            let to = format!("/api/resolve-cache/models/{REPO}/{commit}/{name}?etag={hash}");
            return reply(
                307,
                format!("X-Repo-Commit: {commit}\r\nLocation: {to}\r\n"),
                "",
            );
        }
        let storage = &self.storage;
        let headers = format!(
            "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{hash}\"\r\nX-Linked-Size: {}\r\n\
             Location: {storage}/storage/{hash}?X-Signature={SIGNATURE}\r\n",
            file.bytes.len()
        );
        reply(302, headers, "Found. Redirecting")
    }
}

/// A file or the part of it that was asked for.
fn file(request: &Request, bytes: &[u8], headers: &str, fault: Option<&Fault>) -> Reply {
    let from = request.header("range").and_then(|range| {
        let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        from.parse::<usize>().ok()
    });
    match from.filter(|_| !matches!(fault, Some(Fault::WholeFile | Fault::WholeFileCut(_)))) {
        None => reply(200, headers, bytes),
        Some(from) if from >= bytes.len() => reply(416, headers, ""),
        Some(from) => {
            let range = format!(
                "{headers}Content-Range: bytes {from}-{}/{}\r\n",
                bytes.len() - 1,
                bytes.len()
            );
            reply(206, range, &bytes[from..])
        }
    }
}

fn send(
    stream: &mut TcpStream,
    request: &Request,
    mut reply: Reply,
    fault: Option<&Fault>,
) -> std::io::Result<()> {
    if let (Some(Fault::Flip), Some(byte)) = (fault, reply.body.last_mut()) {
        *byte ^= 1;
    }
    let length = reply.body.len();
    write!(
        stream,
        "HTTP/1.1 {} Fake\r\nContent-Length: {length}\r\nConnection: close\r\n{}\r\n",
        reply.status, reply.headers
    )?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match fault {
        Some(Fault::Cut(after) | Fault::WholeFileCut(after)) => {
            stream.write_all(&reply.body[..length.min(*after)])
        }
        Some(Fault::Slow(wait)) => reply.body.chunks(1 << 16).try_for_each(|chunk| {
            thread::sleep(*wait);
            stream.write_all(chunk)
        }),
        _ => stream.write_all(&reply.body),
    }
}
