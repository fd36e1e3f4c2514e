//! Captions several pictures in one batch: the bundled one three times over, or those named.
//!
//! ```sh
//! cargo run --release --example batch
//! cargo run --release --example batch -- one.jpg two.png three.webp
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use victor::{Device, GenerateOptions, Request, Victor};

fn main() -> anyhow::Result<()> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures");
        paths = vec![pictures.join("strawberry.png"); 3];
    }

    let pictures = paths.iter().map(|path| victor::decode_image(path));
    let requests = pictures
        .map(|picture| Ok(Request::caption(picture?)))
        .collect::<Result<Vec<Request>, victor::DataError>>()?;
    let model = Victor::from_pretrained(victor::default_weights()?, Device::best()?)?;
    let (captions, timings) = model.generate_batch(&requests, &GenerateOptions::default())?;

    let mut stdout = std::io::stdout();
    for (path, caption) in paths.iter().zip(&captions) {
        writeln!(stdout, "{}: {}", path.display(), caption.text)?;
    }
    let tokens: usize = captions.iter().map(|caption| caption.ids.len()).sum();
    eprintln!(
        "{tokens} tokens of {} captions in {:.2} s of decoding",
        captions.len(),
        timings.decode_s
    );
    Ok(())
}
