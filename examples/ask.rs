//! Asks a question about a picture: the bundled one and "What is this?", or the two named.
//!
//! ```sh
//! cargo run --release --example ask
//! cargo run --release --example ask -- photo.jpg "What colour is the cup?"
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use victor::{Device, GenerateOptions, Request, Victor};

fn main() -> anyhow::Result<()> {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/strawberry.png");
    let path = std::env::args_os().nth(1).map_or(bundled, PathBuf::from);
    let question = std::env::args().nth(2);
    let question = question.as_deref().unwrap_or("What is this?");

    let picture = victor::decode_image(&path)?;
    let model = Victor::from_pretrained(victor::default_weights()?, Device::best()?)?;
    let options = GenerateOptions {
        max_new_tokens: 32,
        ..Default::default()
    };
    let mut generation = model.generate(&Request::ask(picture, question), &options)?;
    for token in &mut generation {
        token?;
    }
    let answer = generation.completion();
    writeln!(std::io::stdout(), "{}", answer.text)?;
    eprintln!(
        "{} rows of prompt, {} new tokens, {:?}; {:.0} ms to the first token",
        answer.prompt_tokens,
        answer.ids.len(),
        answer.finish_reason,
        1e3 * (generation.timings().vision_s + generation.timings().prefill_s),
    );
    Ok(())
}
