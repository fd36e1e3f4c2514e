//! The files are written by `xtask/python/pickles.py`.

use super::*;
use crate::formats::Format;

const ZIP: &[u8] = include_bytes!("fixtures/zip.bin");
const STREAM: &[u8] = include_bytes!("fixtures/stream.bin");
const WRAPPED: &[u8] = include_bytes!("fixtures/wrapped.bin");

fn singles(bytes: &[u8], span: &Span) -> Vec<f32> {
    assert_eq!(span.format, Format::F32);
    bytes[span.bytes.clone()]
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().expect("four bytes")))
        .collect()
}

#[test]
fn both_containers_hold_the_same() {
    for bytes in [ZIP, STREAM, WRAPPED] {
        let spans = spans(bytes).expect("a state dict");
        assert_eq!(spans.len(), 8);
        assert_eq!(spans["single"].shape, [2, 3]);
        assert_eq!(
            singles(bytes, &spans["single"]),
            [1.5, -2.0, 0.25, 4.0, 5.0, 6.0]
        );
        assert_eq!(singles(bytes, &spans["tail_of_shared"]), [2.0, 3.0, 4.0]);
        assert_eq!(
            singles(bytes, &spans["whole_shared"]),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert_eq!(singles(bytes, &spans["parameter"]), [7.0]);
        assert_eq!(spans["half"].format, Format::F16);
        assert_eq!(bytes[spans["half"].bytes.clone()], [0x00, 0x38, 0x00, 0xbe]);
        assert_eq!(spans["brain"].format, Format::BF16);
        assert_eq!(
            bytes[spans["brain"].bytes.clone()],
            [0x00, 0x40, 0x40, 0xc0]
        );
        assert_eq!(spans["empty"].shape, [0, 3]);
        assert_eq!(spans["count"].format, Format::Other("int64"));
    }
}

#[test]
fn a_view_with_strides_is_an_error_only_when_it_is_read() {
    let spans = spans(include_bytes!("fixtures/strided.bin")).expect("a state dict");
    assert_eq!(spans["view"].shape, [3, 2]);
    assert!(matches!(spans["view"].format, Format::Other(word) if word.contains("strides")));
    assert_eq!(spans["plain"].format, Format::F32);
}

#[test]
fn functions_are_named_and_not_run() {
    let error = spans(include_bytes!("fixtures/function.bin")).expect_err("a path");
    assert!(error.to_string().contains("pathlib"), "{error}");
}

/// Every cut and every changed byte gives an error or spans inside the bytes.
#[test]
fn damage_is_an_error_or_stays_in_the_file() {
    for bytes in [ZIP, STREAM] {
        for length in 0..bytes.len() {
            if let Ok(spans) = spans(&bytes[..length]) {
                assert!(spans.values().all(|span| span.bytes.end <= length));
            }
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= change;
                if let Ok(spans) = spans(&damaged) {
                    assert!(spans.values().all(|span| span.bytes.end <= damaged.len()));
                }
            }
        }
    }
}

/// A value that refers to itself twice, again and again, would fill any memory if it were copied.
#[test]
fn references_are_not_copied() {
    let mut pickle = b"\x80\x02)q\x00".to_vec();
    for _ in 0..64 {
        pickle.extend_from_slice(b"h\x00h\x00\x86q\x00");
    }
    pickle.push(b'.');
    let (_, _, length) = pickle::read(&pickle).expect("nested tuples");
    assert_eq!(length, pickle.len());
}

/// Forty bytes for each of the file's, were there no end to it.
#[test]
fn a_pickle_without_end_is_refused() {
    let endless = vec![b'N'; 1 << 23];
    let error = pickle::read(&endless).expect_err("no end");
    assert!(error.to_string().contains("an end"), "{error}");
}
