//! A network that is only a hash of what it reads, and that checks how it is called.

use puna_core::Rng;
use puna_engine::{
    BLOCK_LEN, Chunk, Constraint, Engine, Event, FinishReason, Forward, Logprobs, Output,
    RequestId, Usage, Wants,
};

/// Token ids go below this.
pub(crate) const VOCAB_SIZE: usize = 48;
/// Width of a hidden state.
pub(crate) const DIM: usize = 2;
/// Reading this token gives a logit that is not a number. It is never drawn.
pub(crate) const POISON: u32 = 47;

/// What the cache holds at one position of a block.
#[derive(Clone, Copy)]
struct Slot {
    pos: usize,
    token: u32,
    /// Of the tokens up to this one.
    hash: u64,
}

/// Logits are a hash of the sequence as it is found in the cache: a wrong block, position or order changes them.
pub(crate) struct FakeModel {
    n_blocks: usize,
    max_seq_len: usize,
    /// How much more likely than others the token is that follows the last one in a fixed round.
    habit: f32,
    cache: Vec<Option<Slot>>,
    logits: Vec<f32>,
    /// Of the rows that have logits, then of the others, which gather in `only_hidden`.
    hidden: Vec<f32>,
    only_hidden: Vec<f32>,
    /// Tokens read so far.
    pub(crate) n_computed: usize,
    /// Forward passes so far.
    pub(crate) n_passes: usize,
    /// Tokens of the largest batch so far.
    pub(crate) largest_batch: usize,
}

impl FakeModel {
    pub(crate) fn new(n_blocks: usize, max_seq_len: usize) -> Self {
        let cache = vec![None; n_blocks * BLOCK_LEN];
        let (logits, hidden, only_hidden, habit) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
        Self {
            n_blocks,
            max_seq_len,
            habit,
            cache,
            logits,
            hidden,
            only_hidden,
            n_computed: 0,
            n_passes: 0,
            largest_batch: 0,
        }
    }

    /// A network whose text repeats itself, the more so the larger `habit` is.
    pub(crate) fn with_habit(self, habit: f32) -> Self {
        Self { habit, ..self }
    }

    fn slot(&mut self, chunk: &Chunk<'_>, pos: usize) -> &mut Option<Slot> {
        let block = chunk.blocks[pos / BLOCK_LEN] as usize;
        &mut self.cache[block * BLOCK_LEN + pos % BLOCK_LEN]
    }

    /// The hash of the sequence before `chunk`, which must lie in the cache without a gap.
    fn past(&mut self, chunk: &Chunk<'_>) -> u64 {
        let mut hash = 0;
        for pos in 0..chunk.pos {
            let slot = self.slot(chunk, pos).expect("nothing was written there");
            assert_eq!(slot.pos, pos, "another position's contents");
            hash = mix(hash, slot.token);
            assert_eq!(slot.hash, hash, "contents of another sequence");
        }
        hash
    }

    fn read(&mut self, chunk: &Chunk<'_>) {
        let mut hash = self.past(chunk);
        for (pos, &token) in (chunk.pos..).zip(chunk.tokens) {
            hash = mix(hash, token);
            *self.slot(chunk, pos) = Some(Slot { pos, token, hash });
            let is_last = pos + 1 == chunk.pos + chunk.tokens.len();
            if chunk.wants == Wants::All || chunk.wants == Wants::Last && is_last {
                self.answer(token, hash);
                self.hidden.extend(state(hash));
            }
            if chunk.wants == Wants::Hidden {
                self.only_hidden.extend(state(hash));
            }
        }
    }

    /// Adds the logits after `token`, which ends the sequence of this hash.
    fn answer(&mut self, token: u32, hash: u64) {
        let mut rng = Rng::new(hash, 0);
        let start = self.logits.len();
        self.logits.extend((0..VOCAB_SIZE).map(|_| (rng.next_normal() * 2.0) as f32));
        let logits = &mut self.logits[start..];
        logits[(token as usize * 5 + 1) % 12] += self.habit;
        logits[POISON as usize] = f32::NEG_INFINITY;
        if token == POISON {
            logits[5] = f32::NAN;
        }
    }
}

impl Forward for FakeModel {
    fn vocab_size(&self) -> usize {
        VOCAB_SIZE
    }

    fn dim(&self) -> usize {
        DIM
    }

    fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    fn forward(&mut self, batch: &[Chunk<'_>]) -> Output<'_> {
        assert!(!batch.is_empty());
        check_writers(batch);
        let n_tokens = batch.iter().map(|chunk| chunk.tokens.len()).sum();
        self.n_computed += n_tokens;
        self.n_passes += 1;
        self.largest_batch = self.largest_batch.max(n_tokens);
        self.logits.clear();
        self.hidden.clear();
        self.only_hidden.clear();
        for chunk in batch {
            assert!(!chunk.tokens.is_empty());
            assert!(chunk.pos + chunk.tokens.len() <= self.max_seq_len);
            self.read(chunk);
        }
        self.hidden.append(&mut self.only_hidden);
        Output { logits: &self.logits, hidden: &self.hidden }
    }
}

/// A block that one chunk writes occurs nowhere else in the batch.
fn check_writers(batch: &[Chunk<'_>]) {
    for (writer, chunk) in batch.iter().enumerate() {
        let last = (chunk.pos + chunk.tokens.len() - 1) / BLOCK_LEN;
        for written in &chunk.blocks[chunk.pos / BLOCK_LEN..=last] {
            for (reader, other) in batch.iter().enumerate() {
                let n = other.blocks.iter().filter(|&block| block == written).count();
                assert_eq!(n, usize::from(reader == writer), "block {written} is shared");
            }
        }
    }
}

/// The hidden state after a sequence of this hash.
fn state(hash: u64) -> [f32; DIM] {
    [hash >> 48, hash >> 32 & 0xffff].map(|bits| bits as f32)
}

/// Allows about half of the tokens, which ones being a hash of the tokens before.
pub(crate) struct FakeConstraint {
    hash: u64,
    bits: [u32; 2],
}

impl FakeConstraint {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self { hash: 1, bits: [0; 2] })
    }

    /// Whether `tokens` are all allowed one after the other.
    pub(crate) fn allows(tokens: &[u32]) -> bool {
        let mut constraint = Self::new();
        tokens.iter().all(|&token| {
            let word = constraint.allowed()[token as usize / 32];
            constraint.accept(token);
            word >> (token % 32) & 1 == 1
        })
    }
}

impl Constraint for FakeConstraint {
    fn allowed(&mut self) -> &[u32] {
        self.bits = [self.hash as u32 | 1, (self.hash >> 32) as u32];
        &self.bits
    }

    fn accept(&mut self, token: u32) {
        self.hash = mix(self.hash, token);
    }
}

fn mix(hash: u64, token: u32) -> u64 {
    let mut rng = Rng::new(hash, u64::from(token) + 1);
    u64::from(rng.next_u32()) << 32 | u64::from(rng.next_u32())
}

/// What came out for one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<Option<Logprobs>>,
    pub(crate) hidden: Vec<f32>,
    pub(crate) end: Option<(FinishReason, Usage)>,
}

impl Answer {
    /// Adds an event of this request.
    pub(crate) fn take(&mut self, event: Event) {
        assert!(self.end.is_none(), "an event after the end");
        match event {
            Event::Token { token, logprobs, .. } => {
                self.tokens.push(token);
                self.logprobs.push(logprobs);
            }
            Event::Hidden { rows, .. } => self.hidden.extend(rows),
            Event::Finished { reason, usage, .. } => {
                assert_eq!(usage.n_generated, self.tokens.len());
                self.end = Some((reason, usage));
            }
        }
    }
}

/// Whose event it is.
pub(crate) fn id_of(event: &Event) -> RequestId {
    match event {
        Event::Token { id, .. } | Event::Hidden { id, .. } | Event::Finished { id, .. } => *id,
    }
}

/// Steps until idle and returns what came out for `id`.
pub(crate) fn answer<F: Forward>(engine: &mut Engine<F>, id: RequestId) -> Answer {
    let mut answer = Answer::default();
    while !engine.is_idle() {
        engine.step().into_iter().filter(|e| id_of(e) == id).for_each(|e| answer.take(e));
        engine.check();
    }
    answer
}
