//! GGUF number formats against gguf's own reference, bit for bit.

use std::path::Path;
use victor_weights::gguf::GgufFile;

/// Written by `xtask/python/gguf_fixture.py`: blocks of every format and what gguf reads in them.
#[test]
fn every_format_is_dequantised_bit_for_bit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/blocks.gguf");
    let file = GgufFile::open(&path).expect("the fixture");
    let mut formats = 0;
    for name in file
        .tensor_names()
        .filter(|name| !name.ends_with(".expected"))
    {
        let tensor = file.tensor(name).expect("a tensor");
        assert_eq!(tensor.kind.to_string(), name);
        assert_eq!(tensor.shape, [2, 512], "{name}");
        let expected = file.tensor(&format!("{name}.expected"));
        let expected = expected.expect("its numbers").to_f32().expect("F32");
        let values = tensor.to_f32().expect("a format that is read");
        assert_eq!(values.len(), expected.len(), "{name}");
        let mut distinct = std::collections::BTreeSet::new();
        for (index, (ours, theirs)) in values.iter().zip(&expected).enumerate() {
            assert_eq!(
                ours.to_bits(),
                theirs.to_bits(),
                "{name}[{index}]: {ours} {theirs}"
            );
            distinct.insert(ours.to_bits());
        }
        assert!(
            distinct.len() > 15,
            "{name} holds {} numbers",
            distinct.len()
        );
        formats += 1;
    }
    assert_eq!(formats, 12);
}
