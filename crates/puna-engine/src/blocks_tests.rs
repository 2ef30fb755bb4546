use super::*;

fn tokens(n: usize, first: u32) -> Vec<u32> {
    (0..n as u32).map(|i| first + i).collect()
}

/// A table whose blocks are computed and published for `tokens`.
fn filled(pool: &BlockPool, tokens: &[u32]) -> BlockTable {
    let mut table = pool.table();
    table.adopt(tokens);
    assert!(table.grow(tokens.len()));
    table.publish(tokens);
    table
}

#[test]
fn growing_takes_all_or_nothing() {
    let pool = BlockPool::new(3, true);
    let (mut a, mut b) = (pool.table(), pool.table());
    assert!(a.grow(1) && a.grow(BLOCK_LEN) && a.ids().len() == 1);
    assert!(!b.grow(2 * BLOCK_LEN + 1) && b.ids().is_empty());
    assert!(b.grow(2 * BLOCK_LEN));
    assert!(!a.grow(BLOCK_LEN + 1));
    pool.check([&a, &b].into_iter());
    drop(b);
    assert!(a.grow(3 * BLOCK_LEN));
    pool.check([&a].into_iter());
}

#[test]
fn stretching_takes_free_blocks_alone() {
    let pool = BlockPool::new(5, true);
    drop(filled(&pool, &tokens(2 * BLOCK_LEN, 0)));
    // Two blocks are idle, three free.
    let mut table = filled(&pool, &tokens(BLOCK_LEN + 3, 500));
    assert_eq!(table.stretch(BLOCK_LEN + 9), 2 * BLOCK_LEN, "what it has");
    assert_eq!(table.stretch(4 * BLOCK_LEN), 3 * BLOCK_LEN);
    pool.check([&table].into_iter());
    table.trim(2 * BLOCK_LEN + 1);
    assert_eq!(table.ids().len(), 3);
    table.trim(BLOCK_LEN + 3);
    assert_eq!(table.ids().len(), 2);
    pool.check([&table].into_iter());
    let mut other = pool.table();
    assert_eq!(other.adopt(&tokens(2 * BLOCK_LEN + 1, 0)), 2 * BLOCK_LEN, "still cached");
    pool.check([&table, &other].into_iter());
}

#[test]
fn equal_prefixes_share_full_blocks_only() {
    let pool = BlockPool::new(16, true);
    let prompt = tokens(3 * BLOCK_LEN + 5, 0);
    let a = filled(&pool, &prompt);
    let cases = [
        (prompt.clone(), 3),
        // The last token is always computed, so a prompt that ends with a block computes the block.
        (prompt[..3 * BLOCK_LEN].to_vec(), 2),
        (prompt[..3 * BLOCK_LEN + 1].to_vec(), 3),
        (prompt[..BLOCK_LEN].to_vec(), 0),
        (tokens(3 * BLOCK_LEN, 1), 0),
        // The second block's tokens at another place are another block.
        (prompt[BLOCK_LEN..].to_vec(), 0),
        ([&prompt[..2 * BLOCK_LEN], &tokens(40, 500)].concat(), 2),
    ];
    for (other, n_shared) in cases {
        let mut b = pool.table();
        assert_eq!(b.adopt(&other), n_shared * BLOCK_LEN, "{} tokens", other.len());
        assert_eq!(b.ids(), &a.ids()[..n_shared]);
        assert!(b.grow(other.len()));
        assert!(b.ids()[n_shared..].iter().all(|block| !a.ids().contains(block)));
        pool.check([&a, &b].into_iter());
    }
    pool.check([&a].into_iter());
}

#[test]
fn the_same_contents_computed_twice_are_kept_once() {
    let pool = BlockPool::new(4, true);
    let prompt = tokens(2 * BLOCK_LEN, 0);
    let (mut a, mut b) = (pool.table(), pool.table());
    assert!(a.grow(prompt.len()) && b.grow(prompt.len()));
    a.publish(&prompt[..BLOCK_LEN + 3]);
    b.publish(&prompt);
    assert_eq!(b.ids()[0], a.ids()[0]);
    a.publish(&prompt);
    assert_eq!(a.ids(), b.ids());
    pool.check([&a, &b].into_iter());
    let mut c = pool.table();
    assert!(c.grow(2 * BLOCK_LEN), "two blocks were given back");
}

#[test]
fn reserved_blocks_give_way_to_cached_ones() {
    let pool = BlockPool::new(4, true);
    let prompt = tokens(2 * BLOCK_LEN + 1, 0);
    let mut late = pool.table();
    assert!(late.grow(prompt.len()));
    let early = filled(&pool, &prompt[..BLOCK_LEN]);
    assert_eq!(late.adopt(&prompt), BLOCK_LEN);
    assert_eq!(late.ids()[0], early.ids()[0]);
    assert_eq!(late.ids().len(), 3);
    pool.check([&early, &late].into_iter());
}

#[test]
fn the_longest_idle_goes_first_and_children_before_parents() {
    let pool = BlockPool::new(4, true);
    let (old, new) = (tokens(2 * BLOCK_LEN, 0), tokens(2 * BLOCK_LEN, 100));
    drop(filled(&pool, &old));
    drop(filled(&pool, &new));
    let n_cached = |prompt: &[u32]| {
        let prompt = [prompt, &[0]].concat();
        pool.table().adopt(&prompt) / BLOCK_LEN
    };
    let mut taker = pool.table();
    for (n_taken, n_old, n_new) in [(1, 1, 2), (2, 0, 2), (3, 0, 1), (4, 0, 0)] {
        assert!(taker.grow(n_taken * BLOCK_LEN));
        pool.check([&taker].into_iter());
        // Looking makes them recent again, in the same order.
        assert_eq!([n_cached(&old), n_cached(&new)], [n_old, n_new], "{n_taken} taken");
    }
    assert!(!taker.grow(4 * BLOCK_LEN + 1));
    drop(taker);
    pool.check([].into_iter());
}

#[test]
fn without_caching_nothing_is_shared() {
    let pool = BlockPool::new(4, false);
    let prompt = tokens(2 * BLOCK_LEN, 0);
    let a = filled(&pool, &prompt);
    let b = filled(&pool, &prompt);
    assert!(a.ids().iter().all(|block| !b.ids().contains(block)));
    pool.check([&a, &b].into_iter());
}
