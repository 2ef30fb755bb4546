//! What one forward pass is asked to compute.

/// Which rows of a chunk are to come out of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// None: the chunk only fills the cache.
    Nothing,
    /// The row of the last token.
    Last,
    /// The rows of all tokens.
    All,
    /// The hidden states of all tokens, without logits.
    Hidden,
}

/// Consecutive tokens of one sequence in a forward pass. A decode step is a chunk of one token; a prompt
/// may be given in chunks of any lengths.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Token ids, at least one, each below the vocabulary size.
    pub tokens: &'a [u32],
    /// Position of the first token; everything before it must be in the cache already.
    pub pos: usize,
    /// The sequence's block table: block `i` holds positions `i * KV_BLOCK_LEN ..`. It must reach to the
    /// last token.
    pub blocks: &'a [u32],
    /// Which rows come out.
    pub wants: Wants,
}

impl Chunk<'_> {
    /// Number of hidden states that come out for this chunk.
    pub fn n_wanted(&self) -> usize {
        match self.wants {
            Wants::Nothing => 0,
            Wants::Last => 1,
            Wants::All | Wants::Hidden => self.tokens.len(),
        }
    }

    /// Number of rows of logits that come out for this chunk.
    pub fn n_scored(&self) -> usize {
        if self.wants == Wants::Hidden { 0 } else { self.n_wanted() }
    }
}
