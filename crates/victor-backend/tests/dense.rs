//! `dense` of weights kept as halves against the plain statement on the same numbers in f32.

use burn::prelude::*;
use burn::tensor::DType;
use burn_flex::Flex;
use victor_backend::{VictorBackend, plain};

const HALVES: [DType; 2] = [DType::F16, DType::BF16];

/// Numbers in `[-0.5, 0.5)`, the same in every run.
fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<Flex, D> {
    // Knuth's 64-bit linear congruential generator.
    let mut state = seed;
    let values = (0..shape.iter().product()).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    });
    let values: Vec<f32> = values.collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn numbers<const D: usize>(x: Tensor<Flex, D>) -> Vec<f32> {
    x.into_data().into_vec().expect("f32")
}

/// A half weight gives the bits of the same numbers in f32, and those of burn but for rounding.
fn check([batch, seq, input, output]: [usize; 4], bias: bool) {
    let x = random([batch, seq, input], 1);
    let bias = bias.then(|| random([output], 2));
    for half in HALVES {
        let context = format!("{half:?} [{batch}, {seq}, {input}] to {output}");
        let half: Tensor<Flex, 2> = random([output, input], 3).cast(half);
        let wide = half.clone().cast(DType::F32);
        let found = numbers(Flex::dense(x.clone(), half, bias.clone()));
        let same = numbers(Flex::dense(x.clone(), wide.clone(), bias.clone()));
        assert_eq!(found, same, "{context}");
        let expected = numbers(plain::dense(x.clone(), wide, bias.clone()));
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(
            difference <= 1e-6 * size,
            "{context}: {difference} of {size}"
        );
    }
}

#[test]
fn halves_give_what_their_numbers_give_in_f32() {
    for rows in [1, 2, 3, 4, 5, 16, 17, 65] {
        for (input, output) in [(1, 1), (7, 3), (31, 66), (33, 1), (100, 257), (1001, 130)] {
            check([1, rows, input, output], rows % 2 == 1);
        }
    }
    check([3, 5, 96, 80], true);
}

#[test]
fn panels_do_not_show() {
    // Three panels of a weight, the last a row shorter.
    check([1, 17, 4099, 1031], true);
    // A row that is wider than a panel should be.
    check([1, 17, (2 << 20) + 5, 2], false);
}

#[test]
fn views_are_multiplied_as_they_look() {
    let x = random([2, 3, 40], 1).swap_dims(0, 1);
    let half: Tensor<Flex, 2> = random([40, 50], 2).cast(DType::F16);
    let half = half.transpose().narrow(0, 5, 20);
    let wide = half.clone().cast(DType::F32);
    let found = numbers(Flex::dense(x.clone(), half, None));
    let copied = TensorData::new(numbers(wide), [20, 40]);
    let wide = Tensor::from_data(copied, &Default::default());
    assert_eq!(found, numbers(Flex::dense(x, wide, None)));
}

#[test]
fn nothing_to_add_up_is_the_bias() {
    let x = random([1, 2, 0], 1);
    let weight = random([3, 0], 2);
    let bias = random([3], 3);
    let found = numbers(Flex::dense(x, weight, Some(bias.clone())));
    assert_eq!(found, numbers(bias).repeat(2));
}

#[test]
fn the_plain_statement_takes_halves() {
    let x = random([1, 3, 40], 1);
    let half: Tensor<Flex, 2> = random([50, 40], 2).cast(DType::BF16);
    let wide = half.clone().cast(DType::F32);
    let found = numbers(plain::dense(x.clone(), half, None));
    assert_eq!(found, numbers(plain::dense(x, wide, None)));
}
