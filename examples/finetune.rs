//! Fine-tunes the default model on one picture for a dozen steps; shows its caption before and after.
//!
//! ```sh
//! cargo run --release --example finetune
//! ```
//!
//! The records, the recipe and the trained model are written to a folder that is removed at the end;
//! with a folder named (`-- runs/mine`) they stay there.

use std::io::Write;
use std::path::{Path, PathBuf};
use victor::{CAPTION_PROMPT, Device, GenerateOptions, Request, Victor};
use victor_train::{DataSource, Part, Progress, TrainConfig};

/// What the model is taught to say.
const CAPTION: &str = "A strawberry, picked this morning.";

fn main() -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| scratch.path().into());
    let records = write_records(&folder)?;
    let picture = victor::decode_image(&folder.join("strawberry-1.png"))?;

    let (base, device) = (victor::default_weights()?, Device::best()?);
    say("before", &base, device, picture.clone())?;
    let recipe = TrainConfig {
        model: base,
        output: folder.join("run"),
        data: vec![DataSource {
            json: records,
            images: None,
            weight: 1.0,
        }],
        train: vec![Part::Projector, Part::Decoder],
        batch_size: 1,
        max_steps: Some(12),
        learning_rate: 3e-4,
        warmup_ratio: 0.0,
        checkpoint_every: 0,
        ..Default::default()
    };
    let trained = victor_train::train(&recipe, device, Progress::Bars)?;
    eprintln!(
        "{} steps in {:.1} s, loss {:.3}",
        trained.steps, trained.seconds, trained.loss
    );
    say("after", &trained.model, device, picture)
}

/// Writes the picture and one LLaVA record about it.
fn write_records(folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/strawberry.png");
    std::fs::copy(bundled, folder.join("strawberry-1.png"))?;
    let records = serde_json::json!([{
        "id": "strawberry",
        "image": "strawberry-1.png",
        "conversations": [
            { "from": "human", "value": format!("<image>\n{CAPTION_PROMPT}") },
            { "from": "gpt", "value": CAPTION },
        ],
    }]);
    let path = folder.join("records.json");
    std::fs::write(&path, serde_json::to_string_pretty(&records)?)?;
    Ok(path)
}

fn say(when: &str, model: &Path, device: Device, picture: victor::RgbImage) -> anyhow::Result<()> {
    let model = Victor::from_pretrained(model, device)?;
    let options = GenerateOptions {
        max_new_tokens: 24,
        ..Default::default()
    };
    let (captions, _) = model.generate_batch(&[Request::caption(picture)], &options)?;
    writeln!(std::io::stdout(), "{when}: {}", captions[0].text)?;
    Ok(())
}
