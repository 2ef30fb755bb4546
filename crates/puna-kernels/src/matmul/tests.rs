//! Products on every instruction set, against f64 and against each other.

use half::{bf16, f16};
use proptest::prelude::*;
use puna_core::{DType, Rng};
use puna_testkit::{U_F32, assert_dot_within, dot_f64, gamma};

use super::*;
use crate::blocks::dequantize;
use crate::testing::{N_THREADS, assert_same_bits, cpus, random};

/// Offsets of the half-precision scales and minima in a block.
fn scale_offsets(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => &[],
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
    }
}

/// The most that `|scale·q| + |minimum|` can be when the stored scales are at most one.
fn most(dtype: DType) -> f64 {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Q4_0 => 8.0,
        DType::Q4_1 => 16.0,
        DType::Q5_0 => 16.0,
        DType::Q5_1 => 32.0,
        DType::Q8_0 => 128.0,
        DType::Q2_K => 15.0 * 3.0 + 15.0,
        DType::Q3_K => 32.0 * 4.0,
        DType::Q4_K => 63.0 * 15.0 + 63.0,
        DType::Q5_K => 63.0 * 31.0 + 63.0,
        DType::Q6_K => 128.0 * 32.0,
    }
}

/// A random matrix whose stored scales lie in −1..1; every eleventh block has scales of zero.
fn random_weights(seed: u64, dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed, dtype as u64);
    let mut float = || (rng.next_f64() * 2.0 - 1.0) as f32;
    let n = rows * cols;
    match dtype {
        DType::F32 => (0..n).flat_map(|_| float().to_le_bytes()).collect(),
        DType::F16 => (0..n).flat_map(|_| f16::from_f32(float()).to_le_bytes()).collect(),
        DType::BF16 => (0..n).flat_map(|_| bf16::from_f32(float()).to_le_bytes()).collect(),
        _ => {
            let (len, n_bytes) = dtype.block();
            let mut bytes: Vec<u8> =
                (0..n / len * n_bytes).map(|_| (float() * 128.0).floor() as i8 as u8).collect();
            for (i, block) in bytes.chunks_exact_mut(n_bytes).enumerate() {
                for &at in scale_offsets(dtype) {
                    let scale = if i % 11 == 7 { 0.0 } else { float() };
                    block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                }
            }
            bytes
        }
    }
}

/// `matmul` with activations of its own.
fn product(cpu: &Cpu, w: MatRef<'_>, x: &[f32]) -> Vec<f32> {
    let n_tokens = x.len() / w.cols();
    let mut activations = Activations::default();
    activations.set(cpu, x, n_tokens, w.cols(), &[w.dtype()]);
    let mut y = vec![f32::NAN; n_tokens * w.rows()];
    matmul(cpu, w, &activations, &mut y);
    y
}

/// Activations that are rounded without error: whole numbers, ±127 in every block.
fn whole_numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut x: Vec<f32> = random(seed, n).iter().map(|x| (x * 127.0).round()).collect();
    x.iter_mut().step_by(32).for_each(|x| *x = 127f32.copysign(*x));
    x
}

/// Asserts that `y` is the product of `w` and `x` within the bounds of its type.
fn check(what: &str, w: MatRef<'_>, x: &[f32], y: &[f32]) {
    let dtype = w.dtype();
    let mut row = vec![0.0; w.cols()];
    let x: Vec<f32> = match dtype {
        DType::BF16 => x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
        _ => x.to_vec(),
    };
    for r in 0..w.rows() {
        dequantize(dtype, w.row(r), &mut row);
        for (t, x) in x.chunks_exact(w.cols()).enumerate() {
            let what = format!("{what} {dtype} {}×{}: row {r}, token {t}", w.rows(), w.cols());
            let y = y[t * w.rows() + r];
            if dtype.is_float() {
                assert_dot_within(&what, y, &row, x);
                continue;
            }
            let (expected, _) = dot_f64(&row, x);
            // Half a step for every activation, and the roundings of the sum over blocks.
            let (mut rounding, mut magnitude) = (0.0, 0.0);
            for (row, x) in row.chunks_exact(32).zip(x.chunks_exact(32)) {
                let peak = x.iter().fold(0f32, |peak, x| peak.max(x.abs()));
                let is_exact = peak == 127.0 && x.iter().all(|x| x.fract() == 0.0);
                let half_step = if is_exact { 0.0 } else { f64::from(peak) / 254.0 * 1.0001 };
                rounding += row.iter().map(|w| f64::from(w.abs()) * half_step).sum::<f64>();
                magnitude += x.iter().map(|x| most(dtype) * f64::from(x.abs())).sum::<f64>();
            }
            let bound = rounding + gamma(w.cols() / 32 + 8, U_F32) * magnitude;
            let error = (f64::from(y) - expected).abs();
            assert!(
                error <= bound,
                "{what}: {y}, expected {expected}, error {error:e} > {bound:e}"
            );
        }
    }
}

/// Columns that `dtype` can have: the least, some, and more than a chunk.
fn widths(dtype: DType) -> Vec<usize> {
    match dtype.block_len() {
        1 => vec![1, 7, 16, 33, 77, 1100],
        32 => vec![32, 64, 544, 1056],
        len => vec![len, 3 * len],
    }
}

#[test]
fn products_are_within_their_bounds() {
    for cpu in cpus() {
        for dtype in DType::ALL {
            for (i, cols) in widths(dtype).into_iter().enumerate() {
                for (rows, n_tokens) in [(1, 1), (3, 2), (33, 7), (70, 5)] {
                    let data = random_weights(i as u64, dtype, rows, cols);
                    let w = MatRef::new(dtype, rows, cols, &data);
                    for x in [random(1, n_tokens * cols), whole_numbers(2, n_tokens * cols)] {
                        check(cpu.isa().name(), w, &x, &product(&cpu, w, &x));
                    }
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_company_threads_or_alignment() {
    let rows = 41;
    for cpu in cpus() {
        for dtype in DType::ALL {
            let cols = if dtype.is_float() { 589 } else { 768 };
            let mut data = vec![0];
            data.extend(random_weights(3, dtype, rows, cols));
            let w = MatRef::new(dtype, rows, cols, &data[1..]);
            let x = random(4, 64 * cols);
            let together = product(&cpu, w, &x);
            for n_threads in N_THREADS {
                let cpu = Cpu::with_isa(cpu.isa(), n_threads).unwrap();
                for n_tokens in [1, 2, 3, 4, 5, 7, 33] {
                    let what = format!("{} {dtype}, {n_threads} threads, {n_tokens}", cpu.isa());
                    let first = 64 - n_tokens;
                    let alone = product(&cpu, w, &x[first * cols..]);
                    assert_same_bits(&what, &alone, &together[first * rows..]);
                }
            }
        }
    }
}

#[test]
fn quantised_products_are_the_same_bits_on_every_instruction_set() {
    for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
        let (rows, cols) = (45, 768);
        let data = random_weights(5, dtype, rows, cols);
        let w = MatRef::new(dtype, rows, cols, &data);
        let x = random(6, 8 * cols);
        let all: Vec<Vec<f32>> = cpus().iter().map(|cpu| product(cpu, w, &x)).collect();
        for (cpu, y) in cpus().iter().zip(&all) {
            assert_same_bits(&format!("{} {dtype}", cpu.isa()), y, &all[0]);
        }
    }
}

/// Sums that are as large as they can be in 16 and in 32 bits.
#[test]
fn extreme_weights_are_exact() {
    for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
        let cols = 2 * dtype.block_len();
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let mut data = vec![byte; 40 * dtype.row_bytes(cols).unwrap()];
            for block in data.chunks_exact_mut(dtype.block().1) {
                for &at in scale_offsets(dtype) {
                    block[at..at + 2].copy_from_slice(&f16::ONE.to_le_bytes());
                }
            }
            let w = MatRef::new(dtype, 40, cols, &data);
            for x in [vec![127.0; cols], vec![-127.0; cols]] {
                for cpu in cpus() {
                    check(cpu.isa().name(), w, &x, &product(&cpu, w, &x));
                }
            }
        }
    }
}

#[test]
fn extreme_activations() {
    for cpu in cpus() {
        for dtype in DType::ALL {
            let cols = if dtype.is_float() { 40 } else { 512 };
            let data = random_weights(8, dtype, 40, cols);
            let w = MatRef::new(dtype, 40, cols, &data);
            for scale in [1e-44, 1e-38, 1e-20, 1e20, 1e30] {
                let x: Vec<f32> = random(9, cols).iter().map(|x| x * scale).collect();
                let y = product(&cpu, w, &x);
                if scale > 1e-30 {
                    check(cpu.isa().name(), w, &x, &y);
                } else {
                    assert!(y.iter().all(|y| y.abs() < 1e-25), "{} {dtype}", cpu.isa());
                }
            }
            assert!(product(&cpu, w, &vec![0.0; cols]).iter().all(|&y| y == 0.0));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = random(10, 2 * cols);
                x[cols + 33] = bad;
                let y = product(&cpu, w, &x);
                let what = format!("{} {dtype} {bad}", cpu.isa());
                assert!(y[..40].iter().all(|y| y.is_finite()), "{what}");
                assert!(y[40..].iter().all(|y| !y.is_finite()), "{what}");
            }
        }
    }
}

#[test]
fn one_preparation_serves_several_types_and_is_used_again() {
    let dtypes = [DType::F32, DType::BF16, DType::Q8_0, DType::Q4_K, DType::Q6_K, DType::Q2_K];
    for cpu in cpus() {
        let mut activations = Activations::default();
        for (n_tokens, cols) in [(9, 512), (1, 256), (4, 768)] {
            let x = random(11, n_tokens * cols);
            activations.set(&cpu, &x, n_tokens, cols, &dtypes);
            for dtype in dtypes {
                let data = random_weights(12, dtype, 20, cols);
                let w = MatRef::new(dtype, 20, cols, &data);
                let mut y = vec![f32::NAN; n_tokens * 20];
                matmul(&cpu, w, &activations, &mut y);
                assert_same_bits(dtype.name(), &y, &product(&cpu, w, &x));
            }
        }
    }
}

#[test]
fn empty_products() {
    let cpu = Cpu::new(1).unwrap();
    for dtype in [DType::F32, DType::Q4_0] {
        assert!(product(&cpu, MatRef::new(dtype, 0, 32, &[]), &[1.0; 64]).is_empty());
        let data = random_weights(1, dtype, 3, 32);
        assert!(product(&cpu, MatRef::new(dtype, 3, 32, &data), &[]).is_empty());
    }
}

#[test]
#[should_panic(expected = "bytes of 2 rows of 32 q8_0")]
fn a_matrix_has_its_bytes() {
    let _ = MatRef::new(DType::Q8_0, 2, 32, &[0; 67]);
}

#[test]
#[should_panic(expected = "not prepared for q4_0")]
fn activations_are_prepared_for_the_type() {
    let cpu = Cpu::new(1).unwrap();
    let mut x = Activations::default();
    x.set(&cpu, &[0.0; 32], 1, 32, &[DType::F32]);
    matmul(&cpu, MatRef::new(DType::Q4_0, 1, 32, &[0; 18]), &x, &mut [0.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn any_shape(seed: u64, dtype in 0..DType::ALL.len(), rows in 1..100usize, blocks in 1..4usize,
                 n_tokens in 1..20usize) {
        let dtype = DType::ALL[dtype];
        let cols = blocks * dtype.block_len().max(19);
        let data = random_weights(seed, dtype, rows, cols);
        let w = MatRef::new(dtype, rows, cols, &data);
        let x = random(seed, n_tokens * cols);
        for cpu in cpus() {
            check(cpu.isa().name(), w, &x, &product(&cpu, w, &x));
        }
    }
}
