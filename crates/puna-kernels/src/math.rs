//! Functions of one variable on vectors.

use crate::simd::Simd;

/// `eˣ` with an error of at most 1.02 ulp (measured over all of f32); zero below `x = −87.33`, where the
/// result would soon be a denormal number, which CPUs are slow to make. `e^∞ = ∞`, a NaN stays.
///
/// `x = n·ln 2 + r` with integral `n` and `|r| ≤ ln 2 / 2`; then `eˣ = 2ⁿ · (1 + r + r²·q(r))`. The
/// coefficients of `q` minimise the largest relative error over that interval, 3.1·10⁻⁹, and were rounded to
/// f32 one after the other, the later ones fitted again. `ln 2` is split in two: the first part has so few
/// bits that its product with `n` is exact.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const LN2_HIGH: f32 = 0.693_359_4; // 355 / 512
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const Q: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_255, 0.008_368_662, 0.001_382_144_6];
    const LOWEST: f32 = -87.33;
    let given = x;
    // Above 88.8 the result is infinite.
    let x = simd.min(simd.splat(89.0), simd.max(simd.splat(LOWEST), x));

    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN2_LOW), r);
    let mut q = simd.splat(Q[4]);
    q = simd.mul_add(q, r, simd.splat(Q[3]));
    q = simd.mul_add(q, r, simd.splat(Q[2]));
    q = simd.mul_add(q, r, simd.splat(Q[1]));
    q = simd.mul_add(q, r, simd.splat(Q[0]));
    let p = simd.mul_add(simd.mul(q, r), r, r);
    simd.zero_below(simd.mul_exp2(simd.add(p, simd.splat(1.0)), n), given, LOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Op;
    use crate::testing::tokens;

    /// `eˣ` of each element.
    struct Exp<'a>(&'a mut [f32]);

    impl Op for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for chunk in self.0.chunks_mut(S::LANES) {
                simd.store_partial(exp(simd, simd.load_partial(chunk)), chunk);
            }
        }
    }

    /// The largest error in ulp over every `step`-th f32 whose exponential is normal.
    fn worst_ulp(step: usize) -> f64 {
        let mut worst = 0f64;
        for token in tokens() {
            for sign in [0u32, 1 << 31] {
                let all: Vec<f32> = (0..=89f32.to_bits())
                    .step_by(step)
                    .map(|bits| f32::from_bits(bits | sign))
                    .filter(|x| (-87.33..=88.72).contains(x))
                    .collect();
                let mut found = all.clone();
                token.dispatch(Exp(&mut found));
                for (x, y) in all.iter().zip(found) {
                    let exact = f64::from(*x).exp();
                    let ulp = f64::from(f32::from_bits((exact as f32).to_bits() & 0x7f80_0000))
                        * f64::from(f32::EPSILON);
                    worst = worst.max((f64::from(y) - exact).abs() / ulp);
                }
            }
        }
        worst
    }

    #[test]
    fn exp_is_within_its_bound() {
        let worst = worst_ulp(10_007);
        assert!(worst < 1.02, "{worst} ulp");
        assert!(worst > 0.5, "an error below half an ulp would mean that nothing was compared");
    }

    #[test]
    #[ignore = "every f32: minutes"]
    fn exp_is_within_its_bound_everywhere() {
        let worst = worst_ulp(1);
        assert!(worst < 1.02, "{worst} ulp");
    }

    #[test]
    fn exp_at_the_edges() {
        let cases = [
            (0.0, 1.0),
            (-0.0, 1.0),
            (f32::from_bits(1), 1.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
            (88.8, f32::INFINITY),
            (f32::NEG_INFINITY, 0.0),
            (f32::MIN, 0.0),
            (-87.34, 0.0),
        ];
        for token in tokens() {
            for (x, expected) in cases {
                let mut v = [x; 19];
                token.dispatch(Exp(&mut v));
                assert_eq!(v, [expected; 19], "exp({x}) on {}", token.isa());
            }
            let mut v = [f32::NAN; 3];
            token.dispatch(Exp(&mut v));
            assert!(v.iter().all(|y| y.is_nan()), "{v:?} on {}", token.isa());
        }
    }
}
