//! Runs the binary, and makes the files it is fed.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A case of reference values, which is a checkpoint too.
pub(crate) fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(name)
}

/// The checkpoint of tests that do not care which.
pub(crate) const MODEL: &str = "victor-vicuna-m4-k3";

/// The command, in a folder of its own.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns its name.
    pub(crate) fn write<'a>(&self, name: &'a str, bytes: impl AsRef<[u8]>) -> &'a str {
        std::fs::write(self.path(name), bytes).expect("written");
        name
    }

    /// Writes a picture in which every pixel differs from its neighbours.
    pub(crate) fn picture<'a>(&self, name: &'a str, width: u32, height: u32) -> &'a str {
        let pixel = |x: u32, y: u32| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x + y) as u8]);
        let picture = image::RgbImage::from_fn(width, height, pixel);
        picture.save(self.path(name)).expect("written");
        name
    }

    /// A copy of [`MODEL`] whose files may be spoilt, called `model`.
    pub(crate) fn model(&self) -> &'static str {
        let copy = self.path("model");
        std::fs::create_dir(&copy).expect("made");
        for entry in std::fs::read_dir(case(MODEL)).expect("the case") {
            let entry = entry.expect("an entry");
            let bytes = std::fs::read(entry.path()).expect("read");
            std::fs::write(copy.join(entry.file_name()), bytes).expect("written");
        }
        "model"
    }

    /// Changes a JSON file of the copy.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).expect("read");
        let mut value = serde_json::from_str(&text).expect("JSON");
        change(&mut value);
        std::fs::write(path, value.to_string()).expect("written");
    }

    /// Rewrites the weights of the copy; `change` returns the shape a tensor is to have, or drops it.
    pub(crate) fn reshape(&self, change: impl Fn(&str, &[usize]) -> Option<Vec<usize>>) {
        let path = self.path("model/model.safetensors");
        let bytes = std::fs::read(&path).expect("read");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let changed: BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)> = tensors
            .iter()
            .filter_map(|(name, view)| {
                let shape = change(name, view.shape())?;
                let length = shape.iter().product::<usize>() * view.dtype().bitsize() / 8;
                let bytes = view.data().iter().copied().cycle().take(length).collect();
                Some((name.to_owned(), (shape, view.dtype(), bytes)))
            })
            .collect();
        let views = changed.iter().map(|(name, (shape, dtype, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor");
            (name, view)
        });
        let file = safetensors::serialize(views, None).expect("serialized");
        std::fs::write(path, file).expect("written");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_victor"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("VICTOR_WEIGHTS")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// Runs, expects success, and returns standard output.
    #[track_caller]
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(done.stdout).expect("UTF-8")
    }

    /// Runs, expects exit status 1 with one clean message that says all of `parts`, nothing on
    /// standard output, and no new file in the folder.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], parts: &[&str]) {
        let before = self.files();
        let done = self.run(arguments);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.starts_with("error: "), "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        assert_eq!(String::from_utf8_lossy(&done.stdout), "", "{arguments:?}");
        for part in parts {
            assert!(errors.contains(part), "{part:?} is not in: {errors}");
        }
        assert_eq!(self.files(), before, "{arguments:?} left files");
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder");
        let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
        files.sort();
        files
    }
}

/// A conversation record about a picture, with further fields.
pub(crate) fn record(id: &str, image: &str, question: &str, answer: &str, fields: Value) -> Value {
    let mut record = json!({
        "id": id,
        "image": image,
        "conversations": [
            { "from": "human", "value": format!("<image>\n{question}") },
            { "from": "gpt", "value": answer },
        ],
    });
    if let (Value::Object(record), Value::Object(fields)) = (&mut record, fields) {
        record.extend(fields);
    }
    record
}

/// A safetensors file whose header is taken as it is.
pub(crate) fn safetensors_file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}
