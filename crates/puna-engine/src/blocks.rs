//! The KV cache's blocks: who holds them, and which contents can be shared.
//!
//! A [`BlockTable`] owns references to the blocks of one sequence and gives them back when dropped. A block
//! is in one of three states: *free* (no owner, contents meaningless), *held* (by one or more tables), or
//! *idle* (no owner, contents published and kept for whoever comes with the same tokens).
//!
//! **Prefix cache.** Only full blocks are shared, and a held published block is never written again. Published
//! blocks form a tree: a block is the child of the one before it in the sequence, and is found by (parent,
//! its own tokens). The parent is named by a serial number that is never used twice and the tokens are
//! compared in full, so a hash collision cannot return other text's keys and values.
//!
//! When no block is free the longest idle one is evicted. A table releases its blocks last to first, and whoever
//! holds a block holds its parent; so a child is always idle for longer than its parent and goes first, and
//! no published block is ever cut off from the root.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::BLOCK_LEN;

/// Serial number of a published block; [`ROOT`] is the empty prefix.
type Serial = u64;
const ROOT: Serial = 0;

/// What a published block holds, and after what.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Content {
    parent: Serial,
    tokens: [u32; BLOCK_LEN],
}

#[derive(Default)]
struct Block {
    n_owners: usize,
    /// Present once published.
    published: Option<(Serial, Content)>,
    /// When the last owner let go; a key of `Books::idle` while the block is idle.
    idle_since: u64,
}

struct Books {
    caching: bool,
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Idle blocks, longest idle first.
    idle: BTreeMap<u64, u32>,
    /// Published blocks, held or idle.
    published: HashMap<Content, u32>,
    /// Counts releases.
    now: u64,
    last_serial: Serial,
}

impl Books {
    fn allocate(&mut self) -> Option<u32> {
        let block = self.free.pop().or_else(|| self.evict())?;
        self.blocks[block as usize].n_owners = 1;
        Some(block)
    }

    /// Forgets the longest idle block.
    fn evict(&mut self) -> Option<u32> {
        let (_, block) = self.idle.pop_first()?;
        if let Some((_, content)) = self.blocks[block as usize].published.take() {
            self.published.remove(&content);
        }
        Some(block)
    }

    fn retain(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        if entry.n_owners == 0 {
            self.idle.remove(&entry.idle_since);
        }
        entry.n_owners += 1;
    }

    fn release(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.n_owners -= 1;
        if entry.n_owners > 0 {
            return;
        }
        if entry.published.is_some() {
            self.now += 1;
            entry.idle_since = self.now;
            self.idle.insert(self.now, block);
        } else {
            self.free.push(block);
        }
    }

    fn serial(&self, block: u32) -> Serial {
        let published = &self.blocks[block as usize].published;
        published.as_ref().expect("only published blocks have a serial number").0
    }

    /// Publishes `content` as the contents of `block`, which the caller holds, and returns the block to use from
    /// now on: `block`, or the one that holds the same already (the caller's reference moves to it).
    fn publish(&mut self, block: u32, content: Content) -> u32 {
        if let Some(&known) = self.published.get(&content) {
            self.retain(known);
            self.release(block);
            return known;
        }
        self.last_serial += 1;
        self.published.insert(content.clone(), block);
        self.blocks[block as usize].published = Some((self.last_serial, content));
        block
    }
}

/// All blocks of a KV cache. Clones are handles to the same books.
#[derive(Clone)]
pub(crate) struct BlockPool(Arc<Mutex<Books>>);

impl BlockPool {
    /// `n_blocks` free blocks. Without `caching`, nothing is published and nothing found.
    pub(crate) fn new(n_blocks: usize, caching: bool) -> Self {
        let count = u32::try_from(n_blocks).expect("block numbers are 32 bits wide");
        Self(Arc::new(Mutex::new(Books {
            caching,
            blocks: (0..count).map(|_| Block::default()).collect(),
            free: (0..count).rev().collect(),
            idle: BTreeMap::new(),
            published: HashMap::new(),
            now: 0,
            last_serial: ROOT,
        })))
    }

    /// Blocks that tables hold, and blocks that are idle.
    pub(crate) fn n_held_and_idle(&self) -> (usize, usize) {
        let books = self.books();
        let n_idle = books.idle.len();
        (books.blocks.len() - books.free.len() - n_idle, n_idle)
    }

    /// A table without blocks.
    pub(crate) fn table(&self) -> BlockTable {
        BlockTable { pool: self.clone(), ids: Vec::new(), n_published: 0 }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change below is complete before the lock is released, whatever its holder did next.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that every block is free, idle or held exactly by `tables`, which are all there are, and that every
    /// published block can be found.
    ///
    /// # Panics
    /// If not.
    pub(crate) fn check<'a>(&self, tables: impl Iterator<Item = &'a BlockTable>) {
        let books = self.books();
        let mut n_owners = vec![0; books.blocks.len()];
        for table in tables {
            for (idx, &block) in table.ids.iter().enumerate() {
                n_owners[block as usize] += 1;
                let published = books.blocks[block as usize].published.is_some();
                assert_eq!(published, idx < table.n_published, "block {block} at {idx}");
            }
        }
        let mut n_idle = 0;
        for (id, block) in (0..).zip(&books.blocks) {
            assert_eq!(block.n_owners, n_owners[id as usize], "owners of block {id}");
            match &block.published {
                None => assert!(block.n_owners <= 1, "block {id} is shared and still written"),
                Some((_, content)) => {
                    assert_eq!(books.published.get(content), Some(&id), "block {id} is lost");
                    let idle = books.idle.get(&block.idle_since) == Some(&id);
                    assert_eq!(idle, block.n_owners == 0, "block {id}: idle or held");
                    n_idle += usize::from(idle);
                }
            }
        }
        assert_eq!(books.idle.len(), n_idle, "idle blocks");
        let serials: HashSet<Serial> = books.published.values().map(|&b| books.serial(b)).collect();
        for content in books.published.keys() {
            assert!(content.parent == ROOT || serials.contains(&content.parent), "orphan");
        }
        let mut free = books.free.clone();
        free.sort_unstable();
        let unused = (0..).zip(&books.blocks);
        let unused = unused.filter(|(_, b)| b.n_owners == 0 && b.published.is_none());
        assert!(unused.map(|(id, _)| id).eq(free), "free list");
    }
}

/// The blocks of one sequence, in order: block `i` holds positions `i * BLOCK_LEN ..`.
pub(crate) struct BlockTable {
    pool: BlockPool,
    ids: Vec<u32>,
    /// The first so many blocks are full and published: shared, not to be written.
    n_published: usize,
}

impl BlockTable {
    /// Block numbers, in order.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Makes room for `n_positions`; takes nothing and returns false if there are too few blocks.
    pub(crate) fn grow(&mut self, n_positions: usize) -> bool {
        let mut books = self.pool.books();
        let missing = n_positions.div_ceil(BLOCK_LEN).saturating_sub(self.ids.len());
        if missing > books.free.len() + books.idle.len() {
            return false;
        }
        self.ids.extend((0..missing).map_while(|_| books.allocate()));
        true
    }

    /// Makes room for up to `n_positions` with free blocks alone, so that nothing cached is evicted; returns for how
    /// many there is room.
    pub(crate) fn stretch(&mut self, n_positions: usize) -> usize {
        let mut books = self.pool.books();
        let missing = n_positions.div_ceil(BLOCK_LEN).saturating_sub(self.ids.len());
        let n_taken = missing.min(books.free.len());
        self.ids.extend((0..n_taken).map_while(|_| books.allocate()));
        self.ids.len() * BLOCK_LEN
    }

    /// Gives back the blocks beyond the first `n_positions`, of which none is published.
    pub(crate) fn trim(&mut self, n_positions: usize) {
        let mut books = self.pool.books();
        let n_blocks = n_positions.div_ceil(BLOCK_LEN).max(self.n_published);
        for block in self.ids.drain(n_blocks.min(self.ids.len())..).rev() {
            books.release(block);
        }
    }

    /// Continues the published prefix with cached blocks of `tokens` (the whole sequence), taking the place of
    /// blocks that are not full yet. Returns how many positions are published now. At least one token is
    /// left to compute, since its logits are not in any cache.
    pub(crate) fn adopt(&mut self, tokens: &[u32]) -> usize {
        let mut books = self.pool.books();
        let contents = tokens[..tokens.len() - 1].as_chunks::<BLOCK_LEN>().0;
        for tokens in contents.iter().skip(self.n_published) {
            let content = Content { parent: self.parent(&books), tokens: *tokens };
            let Some(&block) = books.published.get(&content) else { break };
            books.retain(block);
            match self.ids.get_mut(self.n_published) {
                Some(reserved) => books.release(std::mem::replace(reserved, block)),
                None => self.ids.push(block),
            }
            self.n_published += 1;
        }
        self.n_published * BLOCK_LEN
    }

    /// Publishes the full blocks of `computed`, the tokens whose keys and values are in the cache. Where the
    /// same contents are published already the table moves to them, and gives its own block back.
    pub(crate) fn publish(&mut self, computed: &[u32]) {
        let mut books = self.pool.books();
        if !books.caching {
            return;
        }
        for tokens in computed.as_chunks::<BLOCK_LEN>().0.iter().skip(self.n_published) {
            let content = Content { parent: self.parent(&books), tokens: *tokens };
            let block = &mut self.ids[self.n_published];
            *block = books.publish(*block, content);
            self.n_published += 1;
        }
    }

    /// Serial number of the last published block.
    fn parent(&self, books: &Books) -> Serial {
        self.ids[..self.n_published].last().map_or(ROOT, |&block| books.serial(block))
    }
}

impl Drop for BlockTable {
    /// Gives the blocks back, last to first: children become idle before their parents.
    fn drop(&mut self) {
        let mut books = self.pool.books();
        for &block in self.ids.iter().rev() {
            books.release(block);
        }
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
