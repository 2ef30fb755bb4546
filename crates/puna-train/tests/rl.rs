//! The formulas of alignment beside PyTorch's autograd in f64, and what must hold of them whatever the numbers.

use puna_core::Rng;
use puna_testkit::testdata;
use puna_train::rl::{
    LOGIT_LIMIT, Margins, PairLabels, RewardLoss, SAFETY_THRESHOLD, best_of, combined, dpo_loss,
    entropy, gae, kl_k1, kl_k3, log_sigmoid, logit, max_and_median, policy_loss, sigmoid,
    token_rewards, value_loss, whiten,
};
use serde_json::Value;

/// The largest error, beside 1 or the largest value. Found: 3·10⁻¹⁵.
const BOUND: f64 = 1e-12;

fn golden() -> Value {
    let text = std::fs::read_to_string(testdata("train/rl.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    let cases = golden()[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn number(case: &Value, name: &str) -> f64 {
    case[name].as_f64().unwrap_or_else(|| panic!("{name} of {case}"))
}

fn numbers(case: &Value, name: &str) -> Vec<f64> {
    let numbers = case[name].as_array().unwrap_or_else(|| panic!("{name} of {case}"));
    numbers.iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_close(found: f64, expected: f64, what: &dyn std::fmt::Display) {
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error <= BOUND, "{what}: expected {expected}, found {found}");
}

fn assert_all_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert_close(found, expected, &format!("{what} {i}"));
    }
}

#[test]
fn pairs_with_every_margin_and_label() {
    for case in cases("pair") {
        let margins = match case["margins"].as_str().unwrap() {
            "none" => Margins::None,
            "small" => Margins::Small,
            "large" => Margins::Large,
            other => panic!("{other}"),
        };
        let labels = PairLabels {
            margin: margins.of(number(&case, "strength") as u8),
            chosen_safe: case["chosen_safe"].as_bool(),
            rejected_safe: case["rejected_safe"].as_bool(),
        };
        assert_close(labels.margin, number(&case, "margin"), &case);
        let loss = RewardLoss { safety_weight: number(&case, "weight"), center_weight: 0.0 };
        let found = loss.pair(number(&case, "chosen"), number(&case, "rejected"), &labels);
        assert_close(found.loss, number(&case, "loss"), &case);
        assert_close(found.d_chosen, number(&case, "d_chosen"), &case);
        assert_close(found.d_rejected, number(&case, "d_rejected"), &case);
    }
}

#[test]
fn direct_preference() {
    for case in cases("dpo") {
        let of = |name| number(&case, name);
        let found = dpo_loss(
            of("chosen"),
            of("rejected"),
            of("chosen_ref"),
            of("rejected_ref"),
            of("beta"),
        );
        assert_close(found.loss, of("loss"), &case);
        assert_close(found.d_chosen, of("d_chosen"), &case);
        assert_close(-found.d_chosen, of("d_rejected"), &case);
        let implied = found.reward_chosen - found.reward_rejected;
        assert_close(-log_sigmoid(implied), found.loss, &case);
    }
}

#[test]
fn policy_and_value() {
    let (mut n_clipped, mut n_free) = (0, 0);
    for case in cases("policy") {
        let of = |name| number(&case, name);
        let found =
            policy_loss(of("logprob"), of("logprob_old"), of("advantage"), of("clip_range"));
        assert_close(found.loss, of("loss"), &case);
        assert_close(found.derivative, of("d_logprob"), &case);
        assert_eq!(found.is_clipped, of("d_logprob") == 0.0, "{case}");
        *if found.is_clipped { &mut n_clipped } else { &mut n_free } += 1;
    }
    assert!(n_clipped > 3 && n_free > 3, "{n_clipped} clipped, {n_free} not");
    for case in cases("value") {
        let of = |name| number(&case, name);
        let found = value_loss(of("value"), of("value_old"), of("target"), of("clip_range"));
        assert_close(found.loss, of("loss"), &case);
        assert_close(found.derivative, of("d_value"), &case);
        let plain = value_loss(of("value"), of("value_old"), of("target"), f64::INFINITY);
        assert_close(plain.derivative, of("value") - of("target"), &case);
    }
}

#[test]
fn advantages_and_whitening() {
    for case in cases("gae") {
        let (rewards, values) = (numbers(&case, "rewards"), numbers(&case, "values"));
        let (mut advantages, mut returns) =
            (vec![f64::NAN; rewards.len()], vec![0.0; rewards.len()]);
        let (gamma, lambda) = (number(&case, "gamma"), number(&case, "lambda"));
        gae(&mut advantages, &mut returns, &rewards, &values, gamma, lambda);
        assert_all_close(&advantages, &numbers(&case, "advantages"), "advantage");
        assert_all_close(&returns, &numbers(&case, "returns"), "return");
    }
    for case in cases("whiten") {
        let mut values = numbers(&case, "values");
        let (n, first) = (values.len() as f64, values[0]);
        let moments = whiten(&mut values);
        // The mean of values near 10,000 is exact to 10⁻¹², and their distance from it is about 0.01.
        let expected = numbers(&case, "whitened");
        let bound = if first > 100.0 { 1e-9 } else { BOUND };
        assert!(values.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= bound), "{case}");
        assert!((values.iter().sum::<f64>() / n).abs() <= bound);
        let variance = values.iter().map(|x| x * x).sum::<f64>() / n;
        assert!((variance - 1.0).abs() <= 1e-8 / moments.variance + BOUND, "{variance}");
    }
    let mut equal = [3.25; 4];
    whiten(&mut equal);
    assert_eq!(equal, [0.0; 4]);
    assert_eq!(whiten(&mut []).mean, 0.0);
}

#[test]
fn rewards_of_tokens_and_the_rule_of_two_models() {
    let case = &golden()["token_rewards"];
    let (logprobs, logprobs_ref) = (numbers(case, "logprobs"), numbers(case, "logprobs_ref"));
    let mut rewards = vec![f64::NAN; logprobs.len()];
    let (kl_coef, score) = (number(case, "kl_coef"), number(case, "score"));
    token_rewards(&mut rewards, &logprobs, &logprobs_ref, kl_coef, score);
    assert_all_close(&rewards, &numbers(case, "rewards"), "reward");

    let case = &golden()["logit"];
    let logits: Vec<f64> = numbers(case, "probabilities").into_iter().map(logit).collect();
    assert_all_close(&logits, &numbers(case, "logits"), "logit");
    assert_eq!((logit(0.0), logit(1.0)), (-LOGIT_LIMIT, LOGIT_LIMIT));
    assert_close(logit(1e-6), -LOGIT_LIMIT, &"the limit");
    assert!(logit(f64::NAN).is_nan());

    let rule = |safety, is_safety| combined(safety, 0.75, is_safety, SAFETY_THRESHOLD);
    assert_eq!(rule(0.149, false), 0.149);
    assert_eq!(rule(0.15, false), 0.75);
    assert_eq!(rule(0.9, false), 0.75);
    assert_eq!(rule(0.9, true), 0.9);
}

#[test]
fn the_estimators_find_the_exact_divergence() {
    let case = &golden()["distributions"];
    let (p, q) = (numbers(case, "logprobs"), numbers(case, "logprobs_ref"));
    let exact = number(case, "kl");
    let logits: Vec<f32> = numbers(case, "logits").iter().map(|&x| x as f32).collect();
    assert!((entropy(&logits) - number(case, "entropy")).abs() < 1e-6);
    assert_eq!(entropy(&[0.0, f32::NEG_INFINITY]), 0.0);
    let k3: Vec<f64> = p.iter().zip(&q).map(|(&p, &q)| kl_k3(p, q)).collect();
    assert_all_close(&k3, &numbers(case, "k3"), "k3");

    for estimator in [kl_k1, kl_k3] {
        let of = |i: usize| estimator(p[i], q[i]);
        let mean: f64 = (0..p.len()).map(|i| p[i].exp() * of(i)).sum();
        assert_close(mean, exact, &"mean over the vocabulary");
        let n = 40_000;
        let mut rng = Rng::new(3, 0);
        let draws: Vec<f64> = (0..n).map(|_| of(draw(&p, rng.next_f64()))).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let error = (variance / n as f64).sqrt();
        assert!((mean - exact).abs() < 3.0 * error, "{mean} beside {exact}, ±{error}");
        assert!(error < 0.02 * exact, "±{error} of {exact} says little");
    }
}

fn draw(logprobs: &[f64], mut at: f64) -> usize {
    for (i, logprob) in logprobs.iter().enumerate() {
        at -= logprob.exp();
        if at < 0.0 {
            return i;
        }
    }
    logprobs.len() - 1
}

#[test]
fn before_the_first_update_nothing_is_clipped() {
    let mut rng = Rng::new(5, 0);
    for _ in 0..1000 {
        let (logprob, advantage) = (-20.0 * rng.next_f64(), rng.next_normal());
        let policy = policy_loss(logprob, logprob, advantage, 0.2);
        assert_eq!((policy.loss, policy.derivative), (-advantage, -advantage));
        let value = value_loss(advantage, advantage, logprob, 0.2);
        assert!(!policy.is_clipped && !value.is_clipped);
    }
}

#[test]
fn the_best_of_samples_and_of_fewer() {
    for case in cases("subsets") {
        let n = number(&case, "n") as usize;
        let (max, median) = max_and_median(&numbers(&case, "scores"), n);
        assert_close(max, number(&case, "max"), &case);
        assert_close(median, number(&case, "median"), &case);
    }
    let many: Vec<f64> = (0..1000).map(f64::from).collect();
    let (max, median) = max_and_median(&many, 500);
    // The mean of the largest of n out of K whole numbers is n (K + 1) / (n + 1), less 1 as these begin at 0.
    assert!((max - (500.0 * 1001.0 / 501.0 - 1.0)).abs() < 1e-8 && (median - 499.5).abs() < 1e-8);
    let (max, median) = max_and_median(&[0.1; 7], 3);
    assert_close(max, 0.1, &"of equals");
    assert_close(median, 0.1, &"of equals");

    assert_eq!(best_of(&[0.5, 2.0, f64::NEG_INFINITY, 2.0]), Some(1));
    assert_eq!(best_of(&[f64::NEG_INFINITY]), Some(0));
    assert_eq!(best_of(&[]), None);
}

#[test]
#[should_panic(expected = "score 1 of 2 is not a number")]
fn a_score_that_is_no_number_is_not_ranked() {
    let _ = best_of(&[1.0, f64::NAN]);
}

#[test]
fn the_logistic_function_is_right_at_its_ends() {
    assert_eq!((sigmoid(-800.0), sigmoid(800.0)), (0.0, 1.0));
    assert_eq!((log_sigmoid(-800.0), log_sigmoid(800.0)), (-800.0, 0.0));
    assert_close(log_sigmoid(0.0), 0.5f64.ln(), &"at 0");
    let pair = RewardLoss { safety_weight: 1.0, center_weight: 0.0 }.pair(
        -1e6,
        1e6,
        &PairLabels::default(),
    );
    assert_eq!((pair.loss, pair.d_chosen, pair.d_rejected), (2e6, -1.0, 1.0));
}

/// The loss that keeps rewards around 0: by hand, and its derivatives by finite differences.
#[test]
fn rewards_are_kept_around_zero() {
    let labels = PairLabels::default();
    let [plain, centred] =
        [0.0, 0.25].map(|center_weight| RewardLoss { safety_weight: 0.0, center_weight });
    let (chosen, rejected, h) = (1.5, 0.5, 1e-6);
    let found = centred.pair(chosen, rejected, &labels);
    assert_close(found.loss - plain.pair(chosen, rejected, &labels).loss, 1.0, &"0.25 times 2²");
    let of = |c: f64, r: f64| centred.pair(c, r, &labels).loss;
    let by_chosen = (of(chosen + h, rejected) - of(chosen - h, rejected)) / (2.0 * h);
    let by_rejected = (of(chosen, rejected + h) - of(chosen, rejected - h)) / (2.0 * h);
    assert!((found.d_chosen - by_chosen).abs() < 1e-8, "{found:?} {by_chosen}");
    assert!((found.d_rejected - by_rejected).abs() < 1e-8, "{found:?} {by_rejected}");
    let free = centred.pair(1.0, -1.0, &labels);
    assert_eq!(free, plain.pair(1.0, -1.0, &labels), "rewards around 0 cost nothing");
}
