use super::*;

/// Logits of probabilities.
fn logits(probabilities: &[f64]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln() as f32).collect()
}

fn sampler(sampling: &Sampling, prompt: &[u32]) -> Sampler {
    assert_eq!(sampling.check(1000), Ok(()));
    Sampler::new(sampling.clone(), None, prompt, None)
}

fn draw(sampling: &Sampling, logits: &[f32], pos: usize) -> Result<u32, Failure> {
    let drawn = sampler(sampling, &[]).draw(logits, pos, &mut Scratch::default());
    drawn.map(|(token, _)| token)
}

/// Ids that filters leave.
fn left(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
    let (_, max) = argmax(logits).unwrap();
    let kept = filter(sampling, logits, max, &mut Vec::new());
    kept.iter().map(|&(id, _)| id).collect()
}

/// Whether draws at 20,000 positions have the frequencies `expected`: chi-square within five standard deviations of
/// its mean, and nothing drawn that has probability zero.
fn check_frequencies(name: &str, sampling: &Sampling, logits: &[f32], expected: &[f64]) {
    let n = 20_000;
    let mut counts = vec![0u32; logits.len()];
    for pos in 0..n {
        counts[draw(sampling, logits, pos).unwrap() as usize] += 1;
    }
    let (mut chi2, mut freedom) = (0.0, -1.0);
    for (id, (&count, &p)) in counts.iter().zip(expected).enumerate() {
        if p == 0.0 {
            assert_eq!(count, 0, "{name}: token {id} is not to be drawn");
            continue;
        }
        let mean = p * n as f64;
        chi2 += (f64::from(count) - mean).powi(2) / mean;
        freedom += 1.0;
    }
    let limit = freedom + 5.0 * (2.0 * f64::max(freedom, 1.0)).sqrt();
    assert!(chi2 <= limit, "{name}: chi-square {chi2:.1} over {limit:.1}: {counts:?}");
}

#[test]
fn draws_follow_the_filtered_distribution() {
    let p = [0.1, 0.4, 0.05, 0.25, 0.2];
    let x = logits(&p);
    let with = |change: fn(&mut Sampling)| {
        let mut sampling = Sampling { seed: 99, ..Sampling::default() };
        change(&mut sampling);
        sampling
    };
    let hot: Vec<f64> = p.iter().map(|p| p.powf(0.5)).collect();
    let hot: Vec<f64> = hot.iter().map(|w| w / hot.iter().sum::<f64>()).collect();
    let cases = [
        ("as it is", with(|_| ()), p.to_vec()),
        ("temperature 2", with(|s| s.temperature = 2.0), hot),
        ("temperature 0", with(|s| s.temperature = 0.0), vec![0.0, 1.0, 0.0, 0.0, 0.0]),
        ("top-k 2", with(|s| s.top_k = 2), vec![0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0]),
        ("top-p 0.5", with(|s| s.top_p = 0.5), vec![0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0]),
        ("top-p 0", with(|s| s.top_p = 0.0), vec![0.0, 1.0, 0.0, 0.0, 0.0]),
        ("min-p 0.3", with(|s| s.min_p = 0.3), vec![0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85, 0.2 / 0.85]),
        (
            "bias",
            with(|s| s.logit_bias = vec![(1, f32::NEG_INFINITY), (2, 2.0f32.ln())]),
            [0.1, 0.0, 0.1, 0.25, 0.2].map(|w| w / 0.65).to_vec(),
        ),
    ];
    for (name, sampling, expected) in cases {
        check_frequencies(name, &sampling, &x, &expected);
    }
}

#[test]
fn filters_leave_the_right_tokens() {
    let x = logits(&[0.1, 0.4, 0.05, 0.25, 0.2]);
    let ties = [1.0; 6];
    let base = Sampling::default;
    let cases: &[(&str, Sampling, &[f32], &[u32])] = &[
        ("nothing set", base(), &x, &[0, 1, 2, 3, 4]),
        ("top-k", Sampling { top_k: 3, ..base() }, &x, &[1, 3, 4]),
        ("top-k of all", Sampling { top_k: 5, ..base() }, &x, &[0, 1, 2, 3, 4]),
        ("top-k beyond all", Sampling { top_k: 50, ..base() }, &x, &[0, 1, 2, 3, 4]),
        ("top-k takes the lower of equals", Sampling { top_k: 2, ..base() }, &ties, &[0, 1]),
        ("top-p just reached", Sampling { top_p: 0.64, ..base() }, &x, &[1, 3]),
        ("top-p just missed", Sampling { top_p: 0.66, ..base() }, &x, &[1, 3, 4]),
        ("top-p takes the lower of equals", Sampling { top_p: 0.4, ..base() }, &ties, &[0, 1, 2]),
        ("top-p small: one is left", Sampling { top_p: 1e-9, ..base() }, &ties, &[0]),
        // Of the two that top-k leaves, the first has 0.4 / 0.65 = 0.615.
        ("top-p counts what top-k left", Sampling { top_k: 2, top_p: 0.6, ..base() }, &x, &[1]),
        (
            "top-p counts at the temperature",
            Sampling { temperature: 0.1, top_p: 0.9, ..base() },
            &x,
            &[1],
        ),
        ("min-p keeps the equal", Sampling { min_p: 1.0, ..base() }, &ties, &[0, 1, 2, 3, 4, 5]),
        ("min-p after top-p", Sampling { top_p: 0.9, min_p: 0.55, ..base() }, &x, &[1, 3]),
        ("min-p after top-k", Sampling { top_k: 4, min_p: 0.3, ..base() }, &x, &[1, 3, 4]),
        ("zero probability is never left", base(), &[0.0, f32::NEG_INFINITY, -200.0, 0.0], &[0, 3]),
    ];
    for (name, sampling, logits, expected) in cases {
        let mut ids = left(sampling, logits);
        ids.sort_unstable();
        assert_eq!(ids, *expected, "{name}");
    }
}

#[test]
fn penalties_count_as_documented() {
    // Tokens 0 and 1 in the prompt, 1 once and 2 twice in the answer.
    let x = [2.0, -2.0, 2.0, -2.0];
    let base = Sampling::default;
    let cases: &[(&str, Sampling, [f32; 4])] = &[
        (
            "repetition: prompt and answer",
            Sampling { repetition_penalty: 2.0, ..base() },
            [1.0, -4.0, 1.0, -2.0],
        ),
        (
            "presence: answer only, once",
            Sampling { presence_penalty: 0.5, ..base() },
            [2.0, -2.5, 1.5, -2.0],
        ),
        (
            "frequency: answer only, each",
            Sampling { frequency_penalty: 0.5, ..base() },
            [2.0, -2.5, 1.0, -2.0],
        ),
        (
            "negative ones reward",
            Sampling { frequency_penalty: -0.5, ..base() },
            [2.0, -1.5, 3.0, -2.0],
        ),
        (
            "all, then bias",
            Sampling {
                repetition_penalty: 2.0,
                presence_penalty: 0.25,
                frequency_penalty: 0.5,
                logit_bias: vec![(0, 10.0), (3, f32::NEG_INFINITY), (0, 1.0)],
                ..base()
            },
            [12.0, -4.75, -0.25, f32::NEG_INFINITY],
        ),
        ("none", base(), x),
    ];
    for (name, sampling, expected) in cases {
        let mut sampler = sampler(sampling, &[0, 1, 1]);
        for token in [2, 1, 2] {
            sampler.accept(token);
        }
        assert_eq!(sampler.adjust(&x, &mut Vec::new()), expected, "{name}");
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let x = vec![0.0; 1000];
    let sampling = |seed| Sampling { seed, ..Sampling::default() };
    let sequence = |seed: u64| -> Vec<u32> {
        (0..50).map(|pos| draw(&sampling(seed), &x, pos).unwrap()).collect()
    };
    assert_eq!(sequence(5), sequence(5));
    assert_ne!(sequence(5), sequence(6));
    let backwards: Vec<u32> =
        (0..50).rev().map(|pos| draw(&sampling(5), &x, pos).unwrap()).collect();
    assert!(sequence(5).iter().eq(backwards.iter().rev()));
    // On a flat distribution over 1,000 tokens the draw is the random number itself.
    let u = Rng::new(5, 3).next_f64();
    assert_eq!(draw(&sampling(5), &x, 3), Ok((u * 1000.0) as u32));
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let greedy = Sampling::greedy();
    assert_eq!(draw(&greedy, &[1.0, 3.0, 3.0, 2.0], 0), Ok(1));
    assert_eq!(draw(&Sampling { logit_bias: vec![(3, 5.0)], ..greedy }, &[1.0; 4], 0), Ok(3));
}

#[test]
fn logits_that_are_no_numbers_fail() {
    let nan = [0.0, f32::NAN, 5.0];
    let none = [f32::NEG_INFINITY; 3];
    for sampling in [
        Sampling::greedy(),
        Sampling::default(),
        Sampling { top_k: 1, ..Sampling::default() },
        Sampling { top_p: 0.5, ..Sampling::default() },
        Sampling { logit_bias: vec![(1, f32::NEG_INFINITY)], ..Sampling::default() },
    ] {
        assert_eq!(draw(&sampling, &nan, 0), Err(Failure::NotANumber { token: 1 }));
        assert_eq!(draw(&sampling, &none, 0), Err(Failure::AllForbidden));
    }
    let ban_all = (0..3).map(|id| (id, f32::NEG_INFINITY)).collect();
    let ban_all = Sampling { logit_bias: ban_all, ..Sampling::default() };
    assert_eq!(draw(&ban_all, &[0.0; 3], 0), Err(Failure::AllForbidden));
    let overflow = Sampling { repetition_penalty: 1e-38, ..Sampling::greedy() };
    let found = sampler(&overflow, &[2]).draw(&[1.0, 1.0, 9.0], 0, &mut Scratch::default());
    assert_eq!(found, Err(Failure::NotANumber { token: 2 }));
}

#[test]
fn logprobs_are_the_models_own() {
    let x = logits(&[0.1, 0.4, 0.05, 0.25, 0.2]);
    let sampling = Sampling { logit_bias: vec![(2, 100.0)], top_k: 1, ..Sampling::default() };
    let mut sampler = Sampler::new(sampling, Some(2), &[], None);
    let (token, logprobs) = sampler.draw(&x, 0, &mut Scratch::default()).unwrap();
    let logprobs = logprobs.unwrap();
    let close = |found: f32, p: f64| (f64::from(found) - p.ln()).abs() < 1e-6;
    assert!(token == 2 && close(logprobs.chosen, 0.05), "{logprobs:?}");
    let [(first, p1), (second, p2)] = logprobs.top[..] else { panic!("{logprobs:?}") };
    assert!(first == 1 && close(p1, 0.4) && second == 3 && close(p2, 0.25), "{logprobs:?}");
}
