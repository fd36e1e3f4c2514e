//! What recipes are taken and refused.

use super::*;

fn valid(dir: &Path) -> TrainConfig {
    std::fs::write(dir.join("a.json"), "[]").expect("writable");
    TrainConfig {
        model: dir.into(),
        output: dir.join("out"),
        data: vec![DataSource {
            json: dir.join("a.json"),
            images: None,
            weight: 1.0,
        }],
        ..TrainConfig::default()
    }
}

#[test]
fn presets_are_the_papers_table() {
    let stage1 = TrainConfig::preset("stage1").expect("built in");
    assert_eq!(stage1.batch_size * stage1.gradient_accumulation, 256);
    assert_eq!(stage1.train, [Part::Projector, Part::Registers]);
    let stage2 = TrainConfig::preset("stage2").expect("built in");
    assert_eq!(stage2.batch_size * stage2.gradient_accumulation, 128);
    assert_eq!(stage2.learning_rate, 2e-5);
    assert!(stage2.trains(Part::Decoder) && !stage2.trains(Part::VisionTower));
    assert!(TrainConfig::preset("stage3").is_err());
}

#[test]
fn a_file_overrides_its_preset() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("recipe.toml");
    let text =
        "preset = \"stage2\"\nmodel = \"m\"\nmax_steps = 7\n[learning_rates]\nprojector = 0.5\n";
    std::fs::write(&path, text).expect("writable");
    let config = TrainConfig::from_file(&path).expect("a recipe");
    assert_eq!((config.max_steps, config.learning_rate), (Some(7), 2e-5));
    assert_eq!(config.learning_rate_of(Part::Projector), 0.5);
    assert_eq!(config.learning_rate_of(Part::Decoder), 2e-5);
}

#[test]
fn unknown_settings_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("recipe.toml");
    for text in [
        "learning_rat = 1.0",
        "preset = \"stage1\"\nlearning_rat = 1.0",
    ] {
        std::fs::write(&path, text).expect("writable");
        let error = TrainConfig::from_file(&path)
            .expect_err("unknown")
            .to_string();
        assert!(error.contains("learning_rat"), "{error}");
    }
}

#[test]
fn bad_values_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = valid(dir.path());
    good.validate().expect("valid");
    type Spoil = fn(&mut TrainConfig);
    let cases: [(&str, Spoil); 9] = [
        ("model", |c| c.model = "nowhere".into()),
        ("output", |c| c.output = PathBuf::new()),
        ("data", |c| c.data[0].json = "nowhere.json".into()),
        ("train", |c| c.train.clear()),
        ("batch_size", |c| c.batch_size = 0),
        ("learning_rate", |c| c.learning_rate = f64::NAN),
        ("warmup_ratio", |c| c.warmup_ratio = 1.5),
        ("feature_cache", |c| {
            c.feature_cache = Some("cache".into());
            c.train.push(Part::VisionTower);
        }),
        ("discriminant_projector", |c| {
            c.discriminant_projector = true
        }),
    ];
    for (field, spoil) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = bad.validate().expect_err(field).to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
}
