//! What a run will be, derived before it begins: sizes, memory, steps, and with a measured speed also time and energy.

use puna_ops::Precision;
use puna_train::{MemoryNeeds, flops_per_token};

use super::config::{EstimateTable, PretrainConfig, Settled};
use crate::numbers::{Count, TimeSpan};

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    settled: Settled,
    /// Operations for one token, forward and back.
    pub flops_per_token: f64,
    /// Bytes of memory by kind.
    pub memory: MemoryNeeds,
    estimate: EstimateTable,
    precision: Precision,
    /// Tokens that the corpus has for training.
    corpus_tokens: u64,
}

/// How fast this machine trains the network.
#[derive(Clone, Copy, Debug)]
pub struct MachineSpeed {
    /// Threads used.
    pub n_threads: usize,
    /// Tokens a second.
    pub tokens_per_sec: f64,
    /// The machine's peak in the precision of products, in GFLOP/s.
    pub peak_gflops: f64,
}

impl Plan {
    pub(super) fn new(
        settled: &Settled,
        config: &PretrainConfig,
        precision: Precision,
        corpus_tokens: u64,
    ) -> Self {
        let Settled { model, micro_batch, seq_len, .. } = settled;
        Self {
            flops_per_token: flops_per_token(model, *seq_len),
            memory: MemoryNeeds::new(model, *micro_batch, *seq_len, config.recompute),
            settled: settled.clone(),
            estimate: config.estimate,
            precision,
            corpus_tokens,
        }
    }

    /// Updates of the whole run.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        self.settled.n_steps
    }

    /// Tokens of the whole run.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.settled.n_steps * (self.settled.n_seqs * self.settled.seq_len) as u64
    }

    /// Everything that is known before anything is measured, a line a fact.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let s = &self.settled;
        let c = &s.model;
        let mb = |n: u64| format!("{:.1} MB", n as f64 / 1e6);
        let m = &self.memory;
        let mut lines = vec![
            format!(
                "network     {} parameters: dim {}, {} layers, {} heads ({} for keys), FFN {}, vocabulary {}{}",
                Count(c.n_params() as f64),
                c.dim,
                c.n_layers,
                c.n_heads,
                c.n_kv_heads,
                c.hidden_dim,
                c.vocab_size,
                if c.tied_output { ", output tied" } else { "" },
            ),
            format!(
                "work        {} FLOP a token, {} FLOP in all; products in {}",
                Count(self.flops_per_token),
                Count(self.flops_per_token * self.n_tokens() as f64),
                self.precision.name()
            ),
            format!(
                "memory      {}: weights {}, gradients {}, optimizer {}, activations {}, logits {}, a copy for continuations {}",
                mb(m.total()),
                mb(m.weights),
                mb(m.grads),
                mb(m.optimizer),
                mb(m.activations),
                mb(m.logits),
                mb(m.copy)
            ),
            format!(
                "batch       {} tokens: {} sequences of {}, {} at a time",
                s.n_seqs * s.seq_len,
                s.n_seqs,
                s.seq_len,
                s.micro_batch
            ),
            format!(
                "run         {} steps, {} tokens, {:.2} times the corpus' {}",
                s.n_steps,
                Count(self.n_tokens() as f64),
                self.n_tokens() as f64 / self.corpus_tokens.max(1) as f64,
                Count(self.corpus_tokens as f64)
            ),
            format!("rate        up to {:e} in {} steps, then a cosine", s.lr, s.n_warmup),
        ];
        if self.n_tokens() < 20 * c.n_params() {
            lines.push(format!(
                "note        {:.1} tokens a parameter; about 20 use a given amount of work best (arXiv 2203.15556)",
                self.n_tokens() as f64 / c.n_params() as f64
            ));
        }
        lines
    }

    /// Time, energy and carbon dioxide at a measured speed.
    #[must_use]
    pub fn costs(&self, speed: &MachineSpeed) -> Vec<String> {
        let gflops = self.flops_per_token * speed.tokens_per_sec / 1e9;
        let secs = self.n_tokens() as f64 / speed.tokens_per_sec;
        let kwh = self.estimate.watts * secs / 3.6e6;
        vec![
            format!(
                "speed       {:.0} tokens/s on {} threads: {gflops:.1} GFLOP/s, {:.0} % of {:.0} measured",
                speed.tokens_per_sec,
                speed.n_threads,
                100.0 * gflops / speed.peak_gflops,
                speed.peak_gflops
            ),
            format!("time        {}", TimeSpan(secs)),
            format!(
                "energy      about {kwh:.3} kWh and {:.0} g of CO2, at {} W and {} g/kWh (settings of `estimate`)",
                kwh * self.estimate.grams_per_kwh,
                self.estimate.watts,
                self.estimate.grams_per_kwh
            ),
        ]
    }
}

/// What to say where `n_free` bytes are too few: what is needed, and a setting that fits, if there is one.
#[must_use]
pub(super) fn shortage(settled: &Settled, recompute: bool, n_free: u64) -> Option<String> {
    let needs = |micro_batch, recompute| {
        MemoryNeeds::new(&settled.model, micro_batch, settled.seq_len, recompute).total()
    };
    let needed = needs(settled.micro_batch, recompute);
    if needed <= n_free {
        return None;
    }
    let mb = |n: u64| n.div_ceil(1_000_000);
    let smaller = (1..=settled.micro_batch).rev().filter(|n| settled.n_seqs.is_multiple_of(*n));
    let fits = smaller
        .flat_map(|n| [(n, recompute), (n, true)])
        .find(|&(n, recompute)| needs(n, recompute) <= n_free);
    let advice = match fits {
        Some((n, true)) if !recompute => {
            format!("`micro_batch = {n}` with `recompute = true` fits")
        }
        Some((n, _)) => format!("`micro_batch = {n}` fits"),
        None => "no setting of micro_batch and recompute fits; a smaller network might".to_owned(),
    };
    Some(format!(
        "training takes {} MB of memory, {} MB are free; {advice}",
        mb(needed),
        mb(n_free)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretrain::config::PretrainConfig;

    fn settled(extra: &str) -> Settled {
        let text = format!("preset = \"7m\"\ndata = \"d\"\ntokens = 10_000_000\n{extra}");
        PretrainConfig::parse("run.toml", &text).unwrap().settle("run.toml", &text, 4096).unwrap()
    }

    #[test]
    fn a_setting_that_fits_is_named() {
        let settled = settled("micro_batch = 8\n");
        let needs = |n, recompute| MemoryNeeds::new(&settled.model, n, 1024, recompute).total();
        assert_eq!(shortage(&settled, false, needs(8, false)), None);
        let found = shortage(&settled, false, needs(8, false) - 1).unwrap();
        assert!(found.ends_with("`micro_batch = 8` with `recompute = true` fits"), "{found}");
        let found = shortage(&settled, true, needs(2, true)).unwrap();
        assert!(found.ends_with("`micro_batch = 2` fits"), "{found}");
        let found = shortage(&settled, false, 1000).unwrap();
        assert!(found.ends_with("a smaller network might"), "{found}");
    }
}
