use proptest::prelude::*;
use puna_core::Rng;
use puna_testkit::{Golden, testdata};

use super::*;
use crate::testing::{N_THREADS, random};
use crate::{Isa, dequantize};

fn quantised_types() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|dtype| !dtype.is_float())
}

fn stored(cpu: &Cpu, dtype: DType, cols: usize, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0; x.len() / cols * dtype.row_bytes(cols).unwrap()];
    quantize(cpu, dtype, cols, x, importance, &mut bytes);
    bytes
}

/// The values after being stored.
fn there_and_back(dtype: DType, x: &[f32]) -> Vec<f32> {
    let bytes = stored(&Cpu::new(1).unwrap(), dtype, x.len(), x, None);
    let mut back = vec![f32::NAN; x.len()];
    dequantize(dtype, &bytes, &mut back);
    back
}

fn squared_error(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum()
}

fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, 0);
    (0..n).map(|_| rng.next_normal() as f32).collect()
}

/// Half of what lies between two levels when evenly spaced levels reach all of `x`: the furthest that plain
/// rounding is off, so no search for the least squares may leave a greater root mean square. Integer scales
/// cost a little more, as many parts as there are of them.
fn half_step(dtype: DType, x: &[f32]) -> f64 {
    let least = x.iter().copied().fold(0.0, f32::min);
    let greatest = x.iter().copied().fold(0.0, f32::max);
    let (width, largest) = (f64::from(greatest - least), f64::from(greatest.max(-least)));
    match dtype {
        DType::Q8_0 => largest / 127.0 / 2.0,
        DType::Q4_0 => largest / 7.0 / 2.0,
        DType::Q4_1 => width / 15.0 / 2.0,
        DType::Q5_0 => largest / 15.0 / 2.0,
        DType::Q5_1 => width / 31.0 / 2.0,
        DType::Q2_K => width / 3.0 / 2.0 * (16.0 / 15.0),
        DType::Q3_K => largest / 3.0 / 2.0 * (32.0 / 31.0),
        DType::Q4_K => width / 15.0 / 2.0 * (64.0 / 63.0),
        DType::Q5_K => width / 31.0 / 2.0 * (64.0 / 63.0),
        DType::Q6_K => largest / 31.0 / 2.0 * (128.0 / 127.0),
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("not quantised"),
    }
}

/// Blocks of many kinds: normal, with an outlier, with an offset, of one sign, two-valued, sparse.
fn block(seed: u64, n: usize) -> Vec<f32> {
    let mut x = normal(seed, n);
    match seed % 6 {
        1 => x[seed as usize % n] *= 20.0,
        2 => x.iter_mut().for_each(|x| *x += 8.0),
        3 => x.iter_mut().for_each(|x| *x = -x.abs()),
        4 => x.iter_mut().for_each(|x| *x = 1f32.copysign(*x)),
        5 => x.iter_mut().step_by(3).for_each(|x| *x = 0.0),
        _ => {}
    }
    x
}

/// Root mean square of `x − y`, as the weights ask.
fn rms(x: &[f32], y: &[f32], weight: impl Fn(usize) -> f64) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
        sum += weight(i) * (f64::from(x) - f64::from(y)).powi(2);
        total += weight(i);
    }
    (sum / total).sqrt()
}

#[test]
fn no_type_is_further_off_than_llama_cpps() {
    let golden = Golden::open(testdata("quantize/golden.safetensors"));
    let cpu = Cpu::new(1).unwrap();
    let importance = golden.f32("importance");
    let cols = importance.len();
    for dtype in quantised_types() {
        let theirs = golden.f32(dtype.name());
        let samples = ["normal", "heavy", "outliers", "offset"];
        assert_eq!(theirs.len(), 3 * samples.len());
        for (sample, theirs) in samples.into_iter().zip(theirs.as_chunks::<3>().0) {
            let x = golden.f32(sample);
            let stored = |importance| {
                let mut back = vec![f32::NAN; x.len()];
                dequantize(dtype, &stored(&cpu, dtype, cols, &x, importance), &mut back);
                back
            };
            let (plain, weighted) = (stored(None), stored(Some(&importance)));
            let mean_squares: Vec<f64> = x
                .chunks(cols)
                .map(|row| squared_error(row, &vec![0.0; cols]) / cols as f64)
                .collect();
            let importance = |i: usize| f64::from(importance[i % cols]);
            let llama_cpps = |i: usize| {
                importance(i) * (mean_squares[i / cols] + f64::from(x[i]).powi(2)).sqrt()
            };
            let ours = [
                rms(&x, &plain, |_| 1.0),
                rms(&x, &weighted, importance),
                rms(&x, &weighted, llama_cpps),
            ];
            for (ours, &theirs) in ours.into_iter().zip(theirs) {
                assert!(
                    ours <= f64::from(theirs),
                    "{dtype}, {sample}: {ours}, llama.cpp's {theirs}"
                );
            }
        }
    }
}

#[test]
fn floats_are_rounded_to_nearest() {
    let values = [1.0, -2.5, 1.0 + f32::EPSILON, 65504.0, 1e-8, -0.0];
    let cpu = Cpu::new(2).unwrap();
    for (dtype, expected) in [
        (DType::F32, values),
        (DType::F16, [1.0, -2.5, 1.0, 65504.0, 0.0, -0.0]),
        (DType::BF16, [1.0, -2.5, 1.0, 65536.0, 1.001_172e-8, -0.0]),
    ] {
        let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
        quantize(&cpu, dtype, 3, &values, None, &mut bytes);
        let mut back = [f32::NAN; 6];
        dequantize(dtype, &bytes, &mut back);
        for (back, expected) in back.iter().zip(expected) {
            assert!((back - expected).abs() <= 1e-6 * expected.abs(), "{back}, {expected}");
        }
    }
}

#[test]
fn bytes_are_the_same_on_every_instruction_set_and_for_any_number_of_threads() {
    let importance: Vec<f32> = random(2, 1280).iter().map(|w| w * w).collect();
    for dtype in quantised_types() {
        // Rows of five K-quant blocks, and of less than eight blocks of 32.
        for cols in [1280, dtype.block_len()] {
            let mut x = normal(1, cols * 40);
            x.iter_mut().skip(cols).take(cols).for_each(|x| *x += 5.0);
            x[2 * cols..3 * cols].fill(0.0);
            for importance in [None, Some(&importance[..cols])] {
                let expected =
                    stored(&Cpu::with_isa(Isa::Scalar, 1).unwrap(), dtype, cols, &x, importance);
                for isa in Isa::available() {
                    for n_threads in N_THREADS {
                        let cpu = Cpu::with_isa(isa, n_threads).unwrap();
                        let bytes = stored(&cpu, dtype, cols, &x, importance);
                        assert!(bytes == expected, "{dtype} on {isa} with {n_threads} threads");
                    }
                }
            }
        }
    }
}

/// FNV-1a, 64 bits.
fn fingerprint(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The same numbers on x86-64 and, under an emulator, on aarch64. A better search changes them, on purpose.
#[test]
fn bytes_are_the_same_on_every_machine() {
    let golden = Golden::open(testdata("quantize/golden.safetensors"));
    let importance = golden.f32("importance");
    let (cpu, cols) = (Cpu::new(2).unwrap(), importance.len());
    let expected: [(DType, u64); 10] = [
        (DType::Q4_0, 0xc69c_90a8_317f_8bef),
        (DType::Q4_1, 0xbc18_25fe_1b5e_1e97),
        (DType::Q5_0, 0x8321_1625_f1c8_ae90),
        (DType::Q5_1, 0xdc62_a574_5947_41d1),
        (DType::Q8_0, 0x0546_a154_c6ba_e807),
        (DType::Q2_K, 0x54b6_8c93_c8be_d015),
        (DType::Q3_K, 0xb013_6160_35e7_b226),
        (DType::Q4_K, 0xd7fd_9fae_04b3_7af0),
        (DType::Q5_K, 0xfe86_fa89_a79a_c7a6),
        (DType::Q6_K, 0x4f61_49d6_da4d_8702),
    ];
    let found = expected.map(|(dtype, _)| {
        let samples = ["normal", "heavy", "outliers", "offset"].map(|name| golden.f32(name));
        let both = [None, Some(&importance[..])];
        let bytes = samples.iter().flat_map(|x| both.map(|i| stored(&cpu, dtype, cols, x, i)));
        (dtype, fingerprint(&bytes.collect::<Vec<_>>().concat()))
    });
    assert_eq!(found, expected);
}

#[test]
fn no_block_is_further_off_than_plain_rounding_may_be() {
    for dtype in quantised_types() {
        for seed in 0..300 {
            let x = block(seed, dtype.block_len());
            let error = (squared_error(&x, &there_and_back(dtype, &x)) / x.len() as f64).sqrt();
            let bound = half_step(dtype, &x);
            assert!(error <= bound, "{dtype}, block {seed}: {error} > {bound}");
        }
    }
}

/// A second time costs little: the blocks are nearly found again.
#[test]
fn what_was_stored_is_stored_again() {
    for dtype in quantised_types() {
        let (mut first, mut second) = (0.0, 0.0);
        for seed in 0..60 {
            let x = block(seed, dtype.block_len() * 8);
            let y = there_and_back(dtype, &x);
            first += squared_error(&x, &y);
            second += squared_error(&y, &there_and_back(dtype, &y));
        }
        assert!(second <= 0.05 * first, "{dtype}: {first} at first, {second} more");
    }
}

#[test]
fn extreme_blocks() {
    for dtype in quantised_types() {
        let n = dtype.block_len();
        let check = |what: &str, x: &[f32], tolerance: f64| {
            let back = there_and_back(dtype, x);
            for (&x, &back) in x.iter().zip(&back) {
                assert!(back.is_finite(), "{dtype}, {what}: {back}");
                let x = if x.is_finite() { f64::from(x) } else { 0.0 };
                let error = (x - f64::from(back)).abs();
                assert!(error <= tolerance, "{dtype}, {what}: {x} became {back}");
            }
        };
        check("zeros", &vec![0.0; n], 0.0);
        check("negative zeros", &vec![-0.0; n], 0.0);
        for constant in [1.0, -3.0, 0.02, 1234.5] {
            check("constant", &vec![constant; n], f64::from(constant.abs()) * 2e-3);
        }
        check("denormals", &vec![f32::from_bits(77); n], 1e-30);
        check("largest", &vec![f32::MAX; n], f64::from(f32::MAX));
        let mut x = normal(3, n);
        (x[0], x[n / 2], x[n - 1]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        check("not finite", &x, 4.0);
        check("nothing finite", &vec![f32::NAN; n], 0.0);
        let mut single = vec![0.0; n];
        single[n - 3] = 0.125;
        check("single", &single, 1e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever the bits of values and importance: no panic, nothing stored that is not finite, and
    /// the same on every instruction set.
    #[test]
    fn any_bits(
        dtype in prop::sample::select(quantised_types().collect::<Vec<_>>()),
        bits in prop::collection::vec(any::<u32>(), 512),
        low_bits in any::<u32>(),
        weighted: bool,
    ) {
        // Of a limited range of exponents, or of any.
        let x: Vec<f32> = bits[..256].iter().map(|&bits| f32::from_bits(bits & (low_bits | 0x807f_ffff))).collect();
        let importance: Vec<f32> = bits[256..].iter().map(|&bits| f32::from_bits(bits)).collect();
        let importance = weighted.then_some(&importance[..]);
        let mut all = Isa::available().into_iter().map(|isa| {
            stored(&Cpu::with_isa(isa, 1).unwrap(), dtype, 256, &x, importance)
        });
        let bytes = all.next().unwrap();
        let mut back = vec![f32::NAN; 256];
        dequantize(dtype, &bytes, &mut back);
        prop_assert!(back.iter().all(|x| x.is_finite()), "{back:?}");
        prop_assert!(all.all(|other| other == bytes));
    }
}
