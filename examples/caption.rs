//! Says what a picture shows, word by word: the bundled one, or the one named.
//!
//! ```sh
//! cargo run --release --example caption
//! cargo run --release --example caption -- photo.jpg
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use victor::{Device, GenerateOptions, Request, Victor};

fn main() -> anyhow::Result<()> {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/strawberry.png");
    let path = std::env::args_os().nth(1).map_or(bundled, PathBuf::from);

    let picture = victor::decode_image(&path)?;
    let model = Victor::from_pretrained(victor::default_weights()?, Device::best()?)?;
    let mut stdout = std::io::stdout();
    for token in model.generate(&Request::caption(picture), &GenerateOptions::default())? {
        write!(stdout, "{}", token?.text)?;
        stdout.flush()?;
    }
    writeln!(stdout)?;
    Ok(())
}
