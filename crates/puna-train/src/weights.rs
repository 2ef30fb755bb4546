//! All weights of a network in one piece, and where each tensor lies in it.

use std::ops::Range;

use puna_core::{LayerWeight, ModelConfig, Rng, WeightId};

/// Standard deviation of new matrices. The paper does not state one; 0.02 is GPT-2's.
pub const INIT_STD: f64 = 0.02;

/// Where tensors lie in a piece of memory that holds all of them, in the order of [`WeightId::all`]: so `wq`, `wk` and
/// `wv` of a block are one matrix, and so are `w_gate` and `w_up`.
#[derive(Clone, Debug)]
pub struct Layout {
    config: ModelConfig,
    spans: Vec<(WeightId, Range<usize>)>,
    has_score: bool,
}

impl Layout {
    /// The layout of a network of this configuration.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        let mut end = 0;
        let spans = WeightId::all(config)
            .map(|id| {
                let start = end;
                end += id.shape(config).iter().product::<usize>();
                (id, start..end)
            })
            .collect();
        Self { config: config.clone(), spans, has_score: false }
    }

    /// The same with a row of `D` weights behind all tensors, whose product with what the output matrix sees is one
    /// number a token: the head of a reward model, or of a value function.
    #[must_use]
    pub fn with_score(config: &ModelConfig) -> Self {
        Self { has_score: true, ..Self::new(config) }
    }

    /// The network's shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The place of the row that scores tokens, if the layout has one.
    #[must_use]
    pub fn score(&self) -> Option<Range<usize>> {
        let end = self.n_network();
        self.has_score.then(|| end..end + self.config.dim)
    }

    /// Number of weights before the scoring row: all tensors of the network.
    #[must_use]
    pub fn n_network(&self) -> usize {
        self.spans.last().map_or(0, |(_, span)| span.end)
    }

    /// What is updated as a whole, and whether it is a matrix, which decays.
    pub fn parts(&self) -> impl Iterator<Item = (Range<usize>, bool)> + '_ {
        let tensors =
            self.spans.iter().map(|(id, span)| (span.clone(), id.shape(&self.config).len() == 2));
        tensors.chain(self.score().map(|span| (span, true)))
    }

    /// Every tensor of the network and its place, in order.
    #[must_use]
    pub fn spans(&self) -> &[(WeightId, Range<usize>)] {
        &self.spans
    }

    /// Number of weights.
    #[must_use]
    pub fn len(&self) -> usize {
        self.score().map_or_else(|| self.n_network(), |span| span.end)
    }

    /// Whether there are none, which no valid configuration gives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of a tensor.
    ///
    /// # Panics
    /// When the network has no such tensor.
    #[must_use]
    pub fn span(&self, id: WeightId) -> Range<usize> {
        let found = self.spans.iter().find(|(other, _)| *other == id);
        found.unwrap_or_else(|| panic!("{id} in a network that lacks it")).1.clone()
    }

    /// The places of a block's tensors.
    pub(crate) fn layer(&self, idx: usize) -> LayerSpans {
        let span = |weight| self.span(WeightId::Layer(idx, weight));
        LayerSpans {
            attn_norm: span(LayerWeight::AttnNorm),
            wqkv: span(LayerWeight::Wq).start..span(LayerWeight::Wv).end,
            wo: span(LayerWeight::Wo),
            ffn_norm: span(LayerWeight::FfnNorm),
            w_gate_up: span(LayerWeight::WGate).start..span(LayerWeight::WUp).end,
            w_down: span(LayerWeight::WDown),
        }
    }

    /// New weights: norms are ones; matrices are normal with deviation [`INIT_STD`], divided by `√(2L)` where a product
    /// is added to the residual stream (`wo`, `w_down`), so that it keeps its size whatever the depth (GPT-2). Each
    /// tensor has a stream of random numbers of its own. A scoring row is zeros: see [`Layout::init_score`].
    #[must_use]
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let mut weights = vec![1.0; self.len()];
        if let Some(score) = self.score() {
            weights[score].fill(0.0);
        }
        for (stream, (id, span)) in self.spans.iter().enumerate() {
            if id.shape(&self.config).len() == 1 {
                continue;
            }
            let std = match id {
                WeightId::Layer(_, LayerWeight::Wo | LayerWeight::WDown) => {
                    INIT_STD / (2.0 * self.config.n_layers as f64).sqrt()
                }
                _ => INIT_STD,
            };
            let mut rng = Rng::new(seed, stream as u64);
            for weight in &mut weights[span.clone()] {
                *weight = (std * rng.next_normal()) as f32;
            }
        }
        weights
    }

    /// A new scoring row for a reward model: normal with variance `1/(D + 1)`, so that scores of normed tokens have about
    /// variance 1 (arXiv 2009.01325, appendix B.1; the paper does not say).
    #[must_use]
    pub fn init_score(&self, seed: u64) -> Vec<f32> {
        let std = 1.0 / (self.config.dim as f64 + 1.0).sqrt();
        let mut rng = Rng::new(seed, self.spans.len() as u64);
        (0..self.config.dim).map(|_| (std * rng.next_normal()) as f32).collect()
    }
}

/// Places of a block's tensors, those that are multiplied together as one.
pub(crate) struct LayerSpans {
    pub attn_norm: Range<usize>,
    pub wqkv: Range<usize>,
    pub wo: Range<usize>,
    pub ffn_norm: Range<usize>,
    pub w_gate_up: Range<usize>,
    pub w_down: Range<usize>,
}
