//! Temporary driver.
use victor_train::{Progress, TrainConfig, train};
fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_default();
    let config = TrainConfig::from_file(path.as_ref())?;
    let report = train(&config, victor::Device::best()?, Progress::default())?;
    eprintln!("{report:?}");
    Ok(())
}
