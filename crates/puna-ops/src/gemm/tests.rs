//! Tests of dense products.

use puna_testkit::assert_dot_within;

use super::*;
use crate::testing::{N_THREADS, assert_same_bits, cpus, random};

/// Sizes around the tiles of every instruction set, and around a block of terms.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (5, 3, 7),
    (6, 17, 16),
    (7, 255, 33),
    (12, 256, 32),
    (13, 257, 9),
    (97, 40, 31),
    (200, 5, 65),
    (3, 700, 130),
];

fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| data[i % rows * cols + i / rows]).collect()
}

/// One thread of every instruction set, with each precision that it has.
fn all() -> Vec<(Cpu, Precision)> {
    let with = |precision: Precision| {
        let cpus = cpus().into_iter().filter(move |cpu| precision.is_available(cpu.isa()));
        cpus.map(move |cpu| (cpu, precision))
    };
    with(Precision::F32).chain(with(Precision::Bf16)).collect()
}

/// What remains of factors in a precision: bf16 keeps the upper 16 bits, rounded to nearest even.
fn rounded(x: &[f32], precision: Precision) -> Vec<f32> {
    let to_bf16 = |x: f32| {
        let bits = x.to_bits();
        f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    };
    match precision {
        Precision::F32 => x.to_vec(),
        Precision::Bf16 => x.iter().copied().map(to_bf16).collect(),
    }
}

#[test]
fn products_equal_the_formula_in_every_layout() {
    for (cpu, precision) in all() {
        let mut products = Products::new(precision);
        for (m, k, n) in SHAPES {
            let (a, bt) = (random(1, m * k), random(2, n * k));
            let (at, b) = (transpose(&a, m, k), transpose(&bt, n, k));
            let mut first = vec![f32::NAN; m * n];
            for (i, (a_given, b_given)) in [
                (Mat::new(&a, m, k), Mat::new(&b, k, n)),
                (Mat::new(&at, k, m).t(), Mat::new(&b, k, n)),
                (Mat::new(&a, m, k), Mat::new(&bt, n, k).t()),
                (Mat::new(&at, k, m).t(), Mat::new(&bt, n, k).t()),
            ]
            .into_iter()
            .enumerate()
            {
                let mut c = vec![f32::NAN; m * n];
                products.gemm(&cpu, a_given, b_given, &mut c, Out::Set);
                if i > 0 {
                    assert_same_bits("layouts", &c, &first);
                    continue;
                }
                let (a, bt) = (rounded(&a, precision), rounded(&bt, precision));
                for (i, &c) in c.iter().enumerate() {
                    let what = format!("{} {precision:?} {m} {k} {n} at {i}", cpu.isa());
                    assert_dot_within(&what, c, &a[i / n * k..][..k], &bt[i % n * k..][..k]);
                }
                first = c;
            }
        }
    }
}

#[test]
fn rows_that_are_rounded_before_give_the_same_bits() {
    for (cpu, precision) in all().into_iter().filter(|(_, p)| *p == Precision::Bf16) {
        let mut products = Products::new(precision);
        for (m, k, n) in SHAPES {
            let (a, at, b) = (random(1, m * k), random(3, k * m), random(2, k * n));
            let round = |x: &[f32], cols: usize| {
                let mut rounded = vec![f32::NAN; x.len() / cols * rounded_len(cols)];
                for (x, out) in x.chunks(cols).zip(rounded.chunks_mut(rounded_len(cols))) {
                    round_row(&cpu, x, out);
                }
                rounded
            };
            let (a_rounded, at_rounded) = (round(&a, k), round(&at, m));
            for (given, before) in [
                (Mat::new(&a, m, k), Mat::rounded(&a_rounded, m, k)),
                (Mat::new(&at, k, m).t(), Mat::rounded(&at_rounded, k, m).t()),
            ] {
                let [found, expected] = [before, given].map(|a| {
                    let mut c = vec![f32::NAN; m * n];
                    products.gemm(&cpu, a, Mat::new(&b, k, n), &mut c, Out::Set);
                    c
                });
                assert_same_bits("rounded before", &found, &expected);
            }
        }
    }
}

#[test]
fn blocks_of_terms_may_be_added_one_by_one() {
    let (m, k, n) = (29, 3 * BLOCK_K, 40);
    let (at, b) = (random(1, k * m), random(2, k * n));
    for (cpu, precision) in all() {
        let mut products = Products::new(precision);
        let start = random(3, m * n);
        let mut whole = start.clone();
        let (a_all, b_all) = (Mat::new(&at, k, m).t(), Mat::new(&b, k, n));
        products.gemm(&cpu, a_all, b_all, &mut whole, Out::Add);
        let mut parts = start;
        for (a, b) in at.chunks(BLOCK_K * m).zip(b.chunks(BLOCK_K * n)) {
            let (a, b) = (Mat::new(a, BLOCK_K, m).t(), Mat::new(b, BLOCK_K, n));
            products.gemm(&cpu, a, b, &mut parts, Out::Add);
        }
        assert_same_bits("parts", &parts, &whole);
    }
}

#[test]
fn threads_and_company_change_no_bit() {
    let (m, k, n) = (211, 300, 70);
    let (a, b) = (random(1, m * k), random(2, k * n));
    for (alone, precision) in all() {
        let mut products = Products::new(precision);
        let mut expected = vec![0.0; m * n];
        for (a, c) in a.chunks(k).zip(expected.chunks_mut(n)) {
            products.gemm(&alone, Mat::new(a, 1, k), Mat::new(&b, k, n), c, Out::Set);
        }
        for n_threads in N_THREADS {
            let cpu = Cpu::with_isa(alone.isa(), n_threads).unwrap();
            let mut c = vec![0.0; m * n];
            products.gemm(&cpu, Mat::new(&a, m, k), Mat::new(&b, k, n), &mut c, Out::Set);
            assert_same_bits("gemm", &c, &expected);
        }
    }
}

#[test]
fn bf16_gives_the_same_bits_on_every_instruction_set() {
    let (m, k, n) = (50, 301, 70);
    let (a, b) = (random(1, m * k), random(2, k * n));
    let product = |cpu: &Cpu| {
        let mut c = vec![0.0; m * n];
        let (a, b) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
        Products::new(Precision::Bf16).gemm(cpu, a, b, &mut c, Out::Set);
        c
    };
    let expected = product(&Cpu::with_isa(Isa::Scalar, 1).unwrap());
    for cpu in cpus().into_iter().filter(|cpu| cpu.isa().has_bf16()) {
        assert_same_bits("bf16", &product(&cpu), &expected);
    }
}

#[test]
fn nothing_to_sum_gives_zeros_or_changes_nothing() {
    for cpu in cpus() {
        let mut products = Products::new(Precision::F32);
        let (a, b) = (Mat::new(&[], 2, 0), Mat::new(&[], 0, 2));
        let mut c = [1.0; 4];
        products.gemm(&cpu, a, b, &mut c, Out::Add);
        assert_eq!(c, [1.0; 4]);
        products.gemm(&cpu, a, b, &mut c, Out::Set);
        assert_eq!(c, [0.0; 4]);
    }
}
