//! Who computes what in the next forward pass: a pure function of the queues and the blocks.
//!
//! Requests are served first come, first served:
//!
//! 1. **Grow.** Every running sequence gets a block for its next token if it needs one. When there is none,
//!    the running sequence that came last is pre-empted: it gives up its blocks, goes back to the head of the
//!    queue, and is recomputed later. (What it had published may still be cached by then.)
//! 2. **Admit.** Waiting sequences start in order of arrival, as long as there are blocks for all tokens they
//!    have. None overtakes another, so running sequences came before all waiting ones.
//! 3. **Plan.** Each running answer reads its one new token. What is left of the token budget goes to prompts
//!    in order of arrival, in chunks, so that a long prompt does not stall the answers. A prompt whose next
//!    block another is computing in this very pass waits for it and then shares it.
//! 4. **Draft.** Answers that repeat what came before read, in the same pass, what may follow their new token
//!    (`lookup`); the engine keeps as much of it as is then drawn. Drafts take what is left of the token budget, up to
//!    `max_draft`, and only blocks that are free, and give back what they did not need: nobody else ever waits,
//!    is pre-empted or loses a cached prefix for a draft.
//!
//! The earliest request is always in the plan: nobody starves, provided it fits into the cache alone, which the
//! engine checks on submission.

use std::collections::VecDeque;

use crate::blocks::{BlockPool, BlockTable};
use crate::lookup::Lookup;
use crate::{BLOCK_LEN, Chunk, EngineConfig, Load, RequestId, Wants};

/// A prompt and its answer so far.
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    /// Prompt, then answer; from `schedule` to `settle` a draft follows.
    pub(crate) tokens: Vec<u32>,
    pub(crate) n_prompt: usize,
    /// Tokens of the prompt found in the cache.
    pub(crate) n_cached: usize,
    /// Tokens of all drafts so far.
    pub(crate) n_drafted: usize,
    /// Those of them that were then drawn.
    pub(crate) n_accepted: usize,
    /// It is read for its hidden states, of which the first so many were reported.
    pub(crate) n_reported: Option<usize>,
    /// The answer ends when `tokens` are so many.
    max_len: usize,
    /// The last so many of `tokens` are a draft.
    draft_len: usize,
    lookup: Lookup,
    /// The first so many tokens have their keys and values in the cache.
    n_computed: usize,
    was_preempted: bool,
    table: BlockTable,
}

impl Sequence {
    fn n_pending(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// Prompt and answer, without the draft.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len() - self.draft_len
    }

    /// What may follow the last token, if something was drafted.
    pub(crate) fn draft(&self) -> &[u32] {
        &self.tokens[self.len()..]
    }

    /// Whether it is read for its hidden states.
    fn wants_hidden(&self) -> bool {
        self.n_reported.is_some()
    }

    /// Appends a draft of at most `max` tokens and returns its length.
    fn extend_by_draft(&mut self, max: usize) -> usize {
        let len = self.tokens.len();
        // The last token needs no draft: one more is drawn than was drafted.
        let n = self.lookup.draft(&mut self.tokens, max.min(self.max_len - len - 1));
        self.draft_len = n.min(self.table.stretch(len + n) - len);
        self.tokens.truncate(len + self.draft_len);
        self.n_drafted += self.draft_len;
        self.draft_len
    }

    /// Skips what is cached, which has no hidden states.
    fn adopt(&mut self) {
        if self.wants_hidden() {
            return;
        }
        let n_filled = self.table.adopt(&self.tokens);
        if n_filled > self.n_computed {
            if !self.was_preempted {
                // A pre-empted request finds its own work again, which is not to be counted.
                self.n_cached += n_filled - self.n_computed;
            }
            self.n_computed = n_filled;
        }
    }

    /// Starts over, without blocks.
    fn give_up_blocks(&mut self, pool: &BlockPool) {
        self.table = pool.table();
        self.n_computed = 0;
        if !self.was_preempted {
            self.n_cached = 0;
        }
    }

    /// End of the block that the next token to compute lies in.
    fn next_block_end(&self) -> usize {
        (self.n_computed / BLOCK_LEN + 1) * BLOCK_LEN
    }

    /// Whether `self` will, after `n_tokens` more, have computed what `other` would compute next.
    fn computes_for(&self, other: &Self, n_tokens: usize) -> bool {
        let end = other.next_block_end();
        end < other.tokens.len()
            && end <= self.n_computed + n_tokens
            && self.tokens[..end] == other.tokens[..end]
    }
}

/// What one forward pass computes: for each entry the next tokens of one running sequence.
pub(crate) type Plan = Vec<Planned>;

/// The next `n_tokens` of the running sequence `idx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    idx: usize,
    n_tokens: usize,
}

/// Hidden states that a forward pass reports.
pub(crate) struct Shown {
    pub(crate) id: RequestId,
    pub(crate) n_rows: usize,
    /// The first so many were reported before.
    pub(crate) n_known: usize,
    /// The text has been read.
    pub(crate) is_last: bool,
}

pub(crate) struct Scheduler {
    config: EngineConfig,
    n_blocks: usize,
    pool: BlockPool,
    /// In order of arrival, all later than the running ones.
    waiting: VecDeque<Sequence>,
    /// In order of arrival.
    running: Vec<Sequence>,
}

impl Scheduler {
    pub(crate) fn new(config: EngineConfig, n_blocks: usize) -> Self {
        let pool = BlockPool::new(n_blocks, config.prefix_cache);
        Self { config, n_blocks, pool, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Queues a prompt that will be continued to `max_len` tokens at most, which are more than it has. Ids must come in
    /// ascending order.
    pub(crate) fn add(&mut self, id: RequestId, prompt: Vec<u32>, max_len: usize) {
        self.queue(id, prompt, max_len, None);
    }

    /// Queues a text to be read for its hidden states.
    pub(crate) fn add_hidden(&mut self, id: RequestId, text: Vec<u32>) {
        let max_len = text.len() + 1;
        self.queue(id, text, max_len, Some(0));
    }

    fn queue(
        &mut self,
        id: RequestId,
        prompt: Vec<u32>,
        max_len: usize,
        n_reported: Option<usize>,
    ) {
        let n_prompt = prompt.len();
        let table = self.pool.table();
        self.waiting.push_back(Sequence {
            id,
            tokens: prompt,
            n_prompt,
            n_cached: 0,
            n_drafted: 0,
            n_accepted: 0,
            n_reported,
            max_len,
            draft_len: 0,
            lookup: Lookup::new(),
            n_computed: 0,
            was_preempted: false,
            table,
        });
    }

    /// Takes a request out, wherever it is; its blocks go when it is dropped.
    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Sequence> {
        if let Some(idx) = self.running.iter().position(|s| s.id == id) {
            return Some(self.running.remove(idx));
        }
        let idx = self.waiting.iter().position(|s| s.id == id)?;
        self.waiting.remove(idx)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// How busy it is.
    pub(crate) fn load(&self) -> Load {
        let (n_blocks_held, n_blocks_idle) = self.pool.n_held_and_idle();
        Load {
            n_waiting: self.waiting.len(),
            n_running: self.running.len(),
            n_blocks_held,
            n_blocks_idle,
            n_blocks: self.n_blocks,
        }
    }

    /// Plans the next forward pass; empty only if idle.
    pub(crate) fn schedule(&mut self) -> Plan {
        self.grow();
        self.admit();
        let mut plan = self.plan();
        self.draft(&mut plan);
        plan
    }

    /// The plan as the network wants it, in the plan's order. Logits are wanted of every sequence that has no token left
    /// to read: those of its last token and of each one drafted.
    pub(crate) fn chunks(&self, plan: &Plan) -> Vec<Chunk<'_>> {
        let chunk = |planned: &Planned| {
            let seq = &self.running[planned.idx];
            let end = seq.n_computed + planned.n_tokens;
            let wants = match end == seq.tokens.len() {
                _ if seq.wants_hidden() => Wants::Hidden,
                true if seq.draft_len > 0 => Wants::All,
                true => Wants::Last,
                false => Wants::Nothing,
            };
            let (tokens, pos) = (&seq.tokens[seq.n_computed..end], seq.n_computed);
            Chunk { tokens, pos, blocks: seq.table.ids(), wants }
        };
        plan.iter().map(chunk).collect()
    }

    /// The sequences whose logits `chunks` asks for, in its order.
    pub(crate) fn wanting<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a Sequence> {
        let scored = |p: &&Planned| {
            let seq = &self.running[p.idx];
            seq.n_pending() == p.n_tokens && !seq.wants_hidden()
        };
        plan.iter().filter(scored).map(|p| &self.running[p.idx])
    }

    /// The texts whose hidden states `chunks` asks for, in its order, each with the number of rows that come out and how
    /// many of them have been reported already: what was read before a pre-emption is read again.
    pub(crate) fn showing(&mut self, plan: &Plan) -> Vec<Shown> {
        let mut all = Vec::new();
        for planned in plan {
            let seq = &mut self.running[planned.idx];
            let end = seq.n_computed + planned.n_tokens;
            let Some(n_reported) = &mut seq.n_reported else { continue };
            let n_known = n_reported.saturating_sub(seq.n_computed).min(planned.n_tokens);
            *n_reported = end.max(*n_reported);
            let is_last = end == seq.tokens.len();
            all.push(Shown { id: seq.id, n_rows: planned.n_tokens, n_known, is_last });
        }
        all
    }

    /// Records that `plan` was computed. Drafts are not part of anything yet.
    pub(crate) fn commit(&mut self, plan: &Plan) {
        for planned in plan {
            let seq = &mut self.running[planned.idx];
            seq.n_computed += planned.n_tokens - seq.draft_len;
            seq.table.publish(&seq.tokens[..seq.n_computed]);
        }
    }

    /// Makes the first `n_accepted` tokens of a sequence's draft part of its answer and drops the others, whose keys
    /// and values will be overwritten. Follows `commit` for every sequence in `wanting`.
    pub(crate) fn settle(&mut self, id: RequestId, n_accepted: usize) {
        let seq = self.running_mut(id);
        let n_drafted = std::mem::take(&mut seq.draft_len);
        if n_drafted == 0 {
            return;
        }
        seq.tokens.truncate(seq.tokens.len() - n_drafted + n_accepted);
        seq.lookup.learn(n_drafted, n_accepted);
        seq.n_accepted += n_accepted;
        seq.n_computed += n_accepted;
        seq.table.publish(&seq.tokens[..seq.n_computed]);
        seq.table.trim(seq.n_computed);
    }

    /// Appends a token to a running sequence and returns whether it is at its end.
    pub(crate) fn push(&mut self, id: RequestId, token: u32) -> bool {
        let seq = self.running_mut(id);
        seq.tokens.push(token);
        seq.tokens.len() == seq.max_len
    }

    fn running_mut(&mut self, id: RequestId) -> &mut Sequence {
        let idx = self.running.binary_search_by_key(&id, |s| s.id).expect("only running ones grow");
        &mut self.running[idx]
    }

    fn grow(&mut self) {
        let mut idx = 0;
        while idx < self.running.len() {
            let seq = &mut self.running[idx];
            if seq.table.grow(seq.tokens.len()) {
                idx += 1;
            } else {
                self.preempt_last();
            }
        }
    }

    fn preempt_last(&mut self) {
        let Some(mut seq) = self.running.pop() else { return };
        seq.was_preempted = true;
        seq.give_up_blocks(&self.pool);
        self.waiting.push_front(seq);
    }

    fn admit(&mut self) {
        while self.running.len() < self.config.max_seqs {
            let Some(seq) = self.waiting.front_mut() else { return };
            seq.adopt();
            if !seq.table.grow(seq.tokens.len()) {
                // What waits holds nothing, or those that run could not go on.
                seq.give_up_blocks(&self.pool);
                return;
            }
            self.running.extend(self.waiting.pop_front());
        }
    }

    fn plan(&mut self) -> Plan {
        let answers = (0..self.running.len()).filter(|&idx| self.running[idx].n_pending() == 1);
        let mut plan: Plan = answers.map(|idx| Planned { idx, n_tokens: 1 }).collect();
        let mut budget = self.config.max_batch_tokens - plan.len();
        for idx in 0..self.running.len() {
            if budget == 0 {
                break;
            }
            if self.running[idx].n_pending() == 1 {
                continue;
            }
            self.running[idx].adopt();
            if !self.running[idx].wants_hidden() && self.waits_for_block(&plan, idx) {
                continue;
            }
            let n_tokens = self.running[idx].n_pending().min(budget);
            plan.push(Planned { idx, n_tokens });
            budget -= n_tokens;
        }
        plan
    }

    /// Gives what is left of the budget to drafts.
    fn draft(&mut self, plan: &mut Plan) {
        let n_planned: usize = plan.iter().map(|planned| planned.n_tokens).sum();
        let mut left = self.config.max_draft.min(self.config.max_batch_tokens - n_planned);
        for planned in plan {
            let seq = &mut self.running[planned.idx];
            if left > 0 && seq.n_pending() == 1 {
                let n = seq.extend_by_draft(left);
                planned.n_tokens += n;
                left -= n;
            }
        }
    }

    /// Whether the plan computes the block that the running sequence `idx` needs next.
    fn waits_for_block(&self, plan: &Plan, idx: usize) -> bool {
        let seq = &self.running[idx];
        self.config.prefix_cache
            && plan.iter().any(|p| self.running[p.idx].computes_for(seq, p.n_tokens))
    }

    /// Checks the queues and the blocks, and that the requests are `ids`.
    ///
    /// # Panics
    /// If they do not balance.
    pub(crate) fn check(&self, ids: impl Iterator<Item = RequestId>) {
        let all = || self.running.iter().chain(&self.waiting);
        assert!(ids.eq(all().map(|seq| seq.id)), "requests and sequences differ");
        assert!(all().is_sorted_by(|a, b| a.id < b.id), "not in order of arrival");
        assert!(self.running.len() <= self.config.max_seqs, "too many running");
        for seq in all() {
            assert!(seq.n_computed < seq.tokens.len(), "{:?} has nothing to read", seq.id);
            assert!(seq.tokens.len() < seq.max_len, "{:?} goes beyond its end", seq.id);
            assert_eq!(seq.draft_len, 0, "{:?} has an open draft", seq.id);
            assert!(seq.n_computed <= seq.table.ids().len() * BLOCK_LEN, "{:?} overflows", seq.id);
        }
        self.pool.check(all().map(|seq| &seq.table));
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
