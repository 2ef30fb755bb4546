//! The formulas of alignment at work on tasks whose best solution is known: a table as the policy, a line as the reward
//! model, plain gradient descent.

use puna_core::Rng;
use puna_train::rl::{
    Margins, PairLabels, RewardLoss, gae, policy_loss, sigmoid, token_rewards, value_loss, whiten,
};

const N_TOKENS: usize = 3;
const LENGTH: usize = 3;
/// Prefixes of 0 to 2 tokens.
const N_PREFIXES: usize = 1 + 3 + 9;
const KL_COEF: f64 = 0.4;

type Table = [[f64; N_TOKENS]; N_PREFIXES];

/// The prefix after `token`.
fn after(prefix: usize, token: usize) -> usize {
    prefix * N_TOKENS + 1 + token
}

fn logprobs(logits: &[f64; N_TOKENS]) -> [f64; N_TOKENS] {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ln_sum = logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max;
    logits.map(|x| x - ln_sum)
}

/// All answers with their logprobs.
fn answers(policy: &Table) -> Vec<([usize; LENGTH], f64)> {
    let mut all = Vec::new();
    for i in 0..N_TOKENS.pow(LENGTH as u32) {
        let tokens = [i / 9, i / 3 % 3, i % 3];
        let (mut prefix, mut sum) = (0, 0.0);
        for token in tokens {
            sum += logprobs(&policy[prefix])[token];
            prefix = after(prefix, token);
        }
        all.push((tokens, sum));
    }
    all
}

fn score(tokens: [usize; LENGTH]) -> f64 {
    f64::from(u8::from(tokens[0] == tokens[2])) - 0.5 * tokens[1] as f64
}

/// `KL(policy ‖ best)`. With a penalty for divergence the best policy is known: `reference · e^(score / kl_coef)`,
/// normalised.
fn distance_to_best(policy: &Table, reference: &Table) -> f64 {
    let weights: Vec<f64> = answers(reference)
        .into_iter()
        .map(|(tokens, logprob)| logprob + score(tokens) / KL_COEF)
        .collect();
    let ln_sum = weights.iter().map(|weight| weight.exp()).sum::<f64>().ln();
    let each = answers(policy).into_iter().zip(weights);
    each.map(|((_, logprob), weight)| logprob.exp() * (logprob - (weight - ln_sum))).sum()
}

struct Sample {
    prefixes: [usize; LENGTH],
    tokens: [usize; LENGTH],
    logprobs_old: [f64; LENGTH],
    values_old: [f64; LENGTH],
    returns: [f64; LENGTH],
}

fn sample(policy: &Table, rng: &mut Rng) -> Sample {
    let nothing = [0.0; LENGTH];
    let (mut prefixes, mut tokens, mut logprobs_old) = ([0; LENGTH], [0; LENGTH], nothing);
    let mut prefix = 0;
    for t in 0..LENGTH {
        let logprobs = logprobs(&policy[prefix]);
        let mut at = rng.next_f64();
        let token = (0..N_TOKENS - 1).find(|&token| {
            at -= logprobs[token].exp();
            at < 0.0
        });
        let token = token.unwrap_or(N_TOKENS - 1);
        (prefixes[t], tokens[t], logprobs_old[t]) = (prefix, token, logprobs[token]);
        prefix = after(prefix, token);
    }
    Sample { prefixes, tokens, logprobs_old, values_old: nothing, returns: nothing }
}

#[test]
fn ppo_finds_the_best_policy_under_the_penalty() {
    let mut rng = Rng::new(11, 0);
    let mut reference = [[0.0; N_TOKENS]; N_PREFIXES];
    reference.iter_mut().flatten().for_each(|logit| *logit = 0.7 * rng.next_normal());
    let (mut policy, mut values) = (reference, [0.0; N_PREFIXES]);
    let start = distance_to_best(&policy, &reference);
    const N_ITERATIONS: usize = 400;
    for iteration in 0..N_ITERATIONS {
        let mut samples: Vec<Sample> = (0..256).map(|_| sample(&policy, &mut rng)).collect();
        let mut advantages = vec![0.0; samples.len() * LENGTH];
        for (sample, advantages) in samples.iter_mut().zip(advantages.chunks_mut(LENGTH)) {
            let mut rewards = [0.0; LENGTH];
            let logprobs_ref: Vec<f64> = (0..LENGTH)
                .map(|t| logprobs(&reference[sample.prefixes[t]])[sample.tokens[t]])
                .collect();
            let score = score(sample.tokens);
            token_rewards(&mut rewards, &sample.logprobs_old, &logprobs_ref, KL_COEF, score);
            sample.values_old = sample.prefixes.map(|prefix| values[prefix]);
            gae(advantages, &mut sample.returns, &rewards, &sample.values_old, 1.0, 0.95);
        }
        whiten(&mut advantages);
        let lr = 0.5 * (1.0 - iteration as f64 / N_ITERATIONS as f64);
        for (batch, advantages) in samples.chunks(64).zip(advantages.chunks(64 * LENGTH)) {
            let (mut d_policy, mut d_values) = ([[0.0; N_TOKENS]; N_PREFIXES], [0.0; N_PREFIXES]);
            for (sample, advantages) in batch.iter().zip(advantages.chunks(LENGTH)) {
                for (t, &advantage) in advantages.iter().enumerate() {
                    let (prefix, token) = (sample.prefixes[t], sample.tokens[t]);
                    let logprobs = logprobs(&policy[prefix]);
                    let loss = policy_loss(logprobs[token], sample.logprobs_old[t], advantage, 0.2);
                    for (other, d_logit) in d_policy[prefix].iter_mut().enumerate() {
                        let is_taken = f64::from(u8::from(other == token));
                        *d_logit += loss.derivative * (is_taken - logprobs[other].exp());
                    }
                    let (value, old) = (values[prefix], sample.values_old[t]);
                    d_values[prefix] += value_loss(value, old, sample.returns[t], 0.2).derivative;
                }
            }
            let step = lr / batch.len() as f64;
            for (logit, d_logit) in policy.iter_mut().flatten().zip(d_policy.iter().flatten()) {
                *logit -= step * d_logit;
            }
            values.iter_mut().zip(d_values).for_each(|(value, d_value)| *value -= step * d_value);
        }
    }
    let end = distance_to_best(&policy, &reference);
    assert!(start > 0.5 && end < 1e-3, "{start} nats from the best policy, then {end}");
}

/// Answers whose true reward is `weights · features + BIAS` and who are safe with probability `σ(2 · reward)`; of two, the
/// better one is preferred with probability `σ(reward − other)`.
struct World {
    weights: [f64; 3],
    rng: Rng,
}

const BIAS: f64 = -1.0;

#[derive(Clone, Copy)]
struct Answer {
    features: [f64; 3],
    reward: f64,
}

impl World {
    fn answer(&mut self) -> Answer {
        let features = [0; 3].map(|_| self.rng.next_normal());
        Answer { features, reward: BIAS + dot(&self.weights, &features) }
    }

    fn is_safe(&mut self, answer: &Answer) -> bool {
        self.rng.next_f64() < sigmoid(2.0 * answer.reward)
    }
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// How often a line, trained on noisy labels, and the true rewards agree with new labels: order and safety.
fn accuracies(margins: Margins, safety_weight: Option<f64>) -> ([f64; 2], [f64; 2]) {
    let mut world = World { weights: [1.0, -0.5, 0.75], rng: Rng::new(23, 0) };
    let (mut weights, mut bias) = ([0.0; 3], 0.0);
    let loss = RewardLoss { safety_weight: safety_weight.unwrap_or(0.0), center_weight: 0.0 };
    const N_STEPS: usize = 300;
    for step in 0..N_STEPS {
        let (mut d_weights, mut d_bias) = ([0.0; 3], 0.0);
        for _ in 0..64 {
            let (mut chosen, mut rejected) = (world.answer(), world.answer());
            if world.rng.next_f64() >= sigmoid(chosen.reward - rejected.reward) {
                (chosen, rejected) = (rejected, chosen);
            }
            let strength = (chosen.reward - rejected.reward).abs().min(3.0) as u8;
            let mut label = |answer| safety_weight.map(|_| world.is_safe(answer));
            let (chosen_safe, rejected_safe) = (label(&chosen), label(&rejected));
            let labels = PairLabels { margin: margins.of(strength), chosen_safe, rejected_safe };
            let reward = |answer: &Answer| bias + dot(&weights, &answer.features);
            let pair = loss.pair(reward(&chosen), reward(&rejected), &labels);
            for (answer, d_reward) in [(chosen, pair.d_chosen), (rejected, pair.d_rejected)] {
                d_bias += d_reward;
                d_weights.iter_mut().zip(answer.features).for_each(|(d, x)| *d += d_reward * x);
            }
        }
        let lr = 0.5 * (1.0 - step as f64 / N_STEPS as f64) / 64.0;
        bias -= lr * d_bias;
        weights.iter_mut().zip(d_weights).for_each(|(weight, d)| *weight -= lr * d);
    }
    let n = 20_000;
    let (mut found, mut best) = ([0.0; 2], [0.0; 2]);
    for _ in 0..n {
        let (a, b) = (world.answer(), world.answer());
        let reward = |answer: &Answer| bias + dot(&weights, &answer.features);
        // The chance that a label agrees, not a draw of it.
        for (probability, is_above, i) in [
            (sigmoid(a.reward - b.reward), reward(&a) > reward(&b), 0),
            (sigmoid(2.0 * a.reward), reward(&a) > 0.0, 1),
        ] {
            let agrees = if is_above { probability } else { 1.0 - probability };
            found[i] += agrees / f64::from(n);
            best[i] += probability.max(1.0 - probability) / f64::from(n);
        }
    }
    (found, best)
}

#[test]
fn a_reward_model_is_as_accurate_as_labels_allow() {
    for margins in [Margins::None, Margins::Small, Margins::Large] {
        let (without, best) = accuracies(margins, None);
        let (with, _) = accuracies(margins, Some(1.0));
        for order in [without[0], with[0]] {
            assert!(order > best[0] - 0.003, "{margins:?}: {order} of {}", best[0]);
        }
        // A ranking says nothing of where safe begins; the safety loss does.
        assert!(with[1] > best[1] - 0.005, "{margins:?}: {} of {}", with[1], best[1]);
        assert!(without[1] < best[1] - 0.05, "{margins:?}: {} of {}", without[1], best[1]);
    }
}
