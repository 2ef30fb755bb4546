use std::collections::BTreeSet;

use proptest::prelude::*;
use puna_core::Rng;

use super::*;

const N_BLOCKS: usize = 6;
const CONTEXT: usize = N_BLOCKS * BLOCK_LEN;

fn config(max_batch_tokens: usize, max_seqs: usize) -> EngineConfig {
    EngineConfig { max_batch_tokens, max_seqs, prefix_cache: true, max_draft: 0 }
}

/// A scheduler with a pretended network that answers 7 to everything; requests end at given lengths.
struct World {
    scheduler: Scheduler,
    open: BTreeSet<RequestId>,
    n_submitted: u64,
    /// Decides how much of a draft is accepted.
    rng: Rng,
    n_drafted: usize,
}

impl World {
    fn new(config: EngineConfig) -> Self {
        let scheduler = Scheduler::new(config, N_BLOCKS);
        let (open, rng) = (BTreeSet::new(), Rng::new(0, 0));
        Self { scheduler, open, n_submitted: 0, rng, n_drafted: 0 }
    }

    fn submit(&mut self, prompt: Vec<u32>, n_new: usize) -> RequestId {
        let id = RequestId(self.n_submitted);
        self.n_submitted += 1;
        self.open.insert(id);
        let max_len = (prompt.len() + n_new).min(CONTEXT);
        self.scheduler.add(id, prompt, max_len);
        id
    }

    fn cancel(&mut self, id: RequestId) {
        assert!(self.scheduler.remove(id).is_some());
        self.open.remove(&id);
    }

    fn check(&self) {
        self.scheduler.check(self.open.iter().copied());
    }

    /// One step; returns what was computed: (request, first position, number of tokens).
    fn step(&mut self) -> Vec<(RequestId, usize, usize)> {
        let plan = self.scheduler.schedule();
        let chunks = self.scheduler.chunks(&plan);
        let computed: Vec<_> = plan
            .iter()
            .zip(&chunks)
            .map(|(p, c)| (self.scheduler.running[p.idx].id, c.pos, c.tokens.len()))
            .collect();
        let wanting: Vec<(RequestId, usize)> =
            self.scheduler.wanting(&plan).map(|s| (s.id, s.draft().len())).collect();
        let n_wanted: usize = chunks.iter().map(Chunk::n_wanted).sum();
        assert_eq!(n_wanted, wanting.iter().map(|(_, n_drafted)| 1 + n_drafted).sum());
        self.scheduler.commit(&plan);
        for (id, n_drafted) in wanting {
            self.n_drafted += n_drafted;
            let n_accepted = (self.rng.next_f64() * (n_drafted + 1) as f64) as usize;
            self.scheduler.settle(id, n_accepted);
            if self.scheduler.push(id, 7) {
                self.cancel(id);
            }
        }
        self.check();
        computed
    }
}

fn prompt(n: usize, first: u32) -> Vec<u32> {
    (0..n as u32).map(|i| first + i).collect()
}

#[test]
fn a_long_prompt_does_not_stall_an_answer() {
    let mut world = World::new(config(16, 2));
    let talker = world.submit(prompt(4, 0), 40);
    assert_eq!(world.step(), [(talker, 0, 4)]);
    let reader = world.submit(prompt(100, 1000), 1);
    assert_eq!(world.step(), [(talker, 4, 1), (reader, 0, 15)]);
    assert_eq!(world.step(), [(talker, 5, 1), (reader, 15, 15)]);
}

#[test]
fn prompts_are_served_in_order_and_fill_the_budget() {
    let mut world = World::new(config(60, 3));
    let ids: Vec<_> = (0..4).map(|i| world.submit(prompt(40, i * 100), 5)).collect();
    assert_eq!(world.step(), [(ids[0], 0, 40), (ids[1], 0, 20)]);
    // The answer first, then what is left of the second prompt, then the third; the fourth has to wait.
    assert_eq!(world.step(), [(ids[0], 40, 1), (ids[1], 20, 20), (ids[2], 0, 39)]);
}

#[test]
fn the_last_to_come_is_preempted_and_recomputed() {
    let mut world = World::new(EngineConfig { prefix_cache: false, ..config(200, 4) });
    let first = world.submit(prompt(3 * BLOCK_LEN - 1, 0), 40);
    let second = world.submit(prompt(3 * BLOCK_LEN - 1, 1000), 40);
    world.step();
    world.step();
    // Both need a fourth block now, and there are six.
    assert_eq!(world.step(), [(first, 3 * BLOCK_LEN, 1)]);
    assert_eq!(world.scheduler.waiting[0].id, second);
    while world.open.contains(&first) {
        assert_eq!(world.step().len(), 1, "nobody else fits");
    }
    assert_eq!(world.step(), [(second, 0, 3 * BLOCK_LEN + 1)], "prompt and answer so far");
}

#[test]
fn a_small_request_does_not_overtake() {
    let mut world = World::new(config(200, 4));
    let first = world.submit(prompt(4 * BLOCK_LEN, 0), 1);
    let large = world.submit(prompt(4 * BLOCK_LEN, 1000), 2);
    let small = world.submit(prompt(4, 2000), 2);
    assert_eq!(world.step(), [(first, 0, 4 * BLOCK_LEN)]);
    let order: Vec<_> = world.step().iter().map(|c| c.0).collect();
    assert_eq!(order, [large, small]);
}

#[test]
fn what_one_computes_the_other_waits_for_and_shares() {
    let mut world = World::new(config(BLOCK_LEN + 10, 2));
    let text = prompt(2 * BLOCK_LEN + 3, 0);
    let a = world.submit(text.clone(), 3);
    let b = world.submit(text, 3);
    assert_eq!(world.step(), [(a, 0, BLOCK_LEN + 10)]);
    assert_eq!(world.step(), [(a, BLOCK_LEN + 10, BLOCK_LEN - 7)]);
    assert_eq!(world.step(), [(a, 2 * BLOCK_LEN + 3, 1), (b, 2 * BLOCK_LEN, 3)]);
    assert_eq!(world.scheduler.running[1].n_cached, 2 * BLOCK_LEN);
}

/// A round of five tokens whose next one is 7, so that something is drafted as soon as it is drawn.
fn repeating(n: usize) -> Vec<u32> {
    (0..n).rev().map(|i| 11 - i as u32 % 5).collect()
}

#[test]
fn drafts_take_what_is_left_of_the_budget() {
    let mut world = World::new(EngineConfig { max_draft: 6, ..config(50, 3) });
    let first = world.submit(repeating(30), 60);
    assert_eq!(world.step(), [(first, 0, 30)], "prompts draft nothing");
    let second = world.submit(repeating(40), 60);
    assert_eq!(world.step(), [(first, 30, 1 + 6), (second, 0, 40)]);
    let third = world.submit(repeating(100), 60);
    let computed = world.step();
    assert_eq!(computed.last().map(|c| c.0), Some(third));
    assert_eq!(computed.iter().map(|c| c.2).collect::<Vec<_>>(), [1, 1, 48], "none is left");
}

#[test]
fn drafts_take_free_blocks_alone_and_give_them_back() {
    // One position is left in the blocks that the answer holds. The other three blocks: free, or taken.
    for (n_other, n_drafted) in [(0, 8), (3 * BLOCK_LEN, 1)] {
        let mut world = World::new(EngineConfig { max_draft: 8, ..config(400, 3) });
        if n_other > 0 {
            // Finished at once: its blocks are idle, and whoever comes with the same prompt wants them.
            world.submit(prompt(n_other, 1000), 1);
        }
        let id = world.submit(repeating(3 * BLOCK_LEN - 2), 60);
        world.step();
        assert_eq!(world.open.len(), 1);
        let plan = world.scheduler.schedule();
        let (pos, n_tokens) = (3 * BLOCK_LEN - 2, plan[0].n_tokens);
        assert_eq!((world.scheduler.chunks(&plan)[0].pos, n_tokens), (pos, 1 + n_drafted));
        world.scheduler.commit(&plan);
        world.scheduler.settle(id, 0);
        world.scheduler.push(id, 7);
        world.check();
        assert_eq!(world.scheduler.running[0].table.ids().len(), 3, "the draft's block is back");
        let again = world.submit(prompt(n_other.max(1), 1000), 2);
        world.step();
        let found = world.scheduler.running.iter().find(|seq| seq.id == again).unwrap();
        assert_eq!(found.n_cached, n_other.saturating_sub(1) / BLOCK_LEN * BLOCK_LEN);
    }
}

/// What happens between two steps.
#[derive(Clone, Debug)]
enum Act {
    Submit {
        stem: u32,
        n_shared: usize,
        n_own: usize,
        n_new: usize,
    },
    /// The n-th open request, modulo their number.
    Cancel(usize),
    Step,
}

fn act() -> impl Strategy<Value = Act> {
    let submit = (0..3u32, 0..CONTEXT / 2, 1..CONTEXT / 2, 1..CONTEXT);
    prop_oneof![
        2 => submit.prop_map(|(stem, n_shared, n_own, n_new)| {
            Act::Submit { stem: stem * 1000, n_shared, n_own, n_new }
        }),
        1 => any::<usize>().prop_map(Act::Cancel),
        12 => Just(Act::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Whatever happens, no block is leaked or freed twice (`check`), the budget is kept, running answers
    /// never pause, the earliest request advances in every step, and in the end everything is given back.
    #[test]
    fn books_balance_and_nobody_starves(
        acts in prop::collection::vec(act(), 1..120),
        max_seqs in 1..5usize,
        extra_budget in 0..80usize,
        prefix_cache: bool,
        max_draft in 0..40usize,
    ) {
        let max_batch_tokens = max_seqs + extra_budget;
        let mut world = World::new(EngineConfig { max_batch_tokens, max_seqs, prefix_cache, max_draft });
        let drain = std::iter::repeat_n(Act::Step, 100_000);
        let n_acts = acts.len();
        for (i, act) in acts.into_iter().chain(drain).enumerate() {
            match act {
                Act::Submit { stem, n_shared, n_own, n_new } => {
                    let own = prompt(n_own, 5000 + 1000 * i as u32);
                    world.submit([prompt(n_shared, stem), own].concat(), n_new);
                }
                Act::Cancel(n) if !world.open.is_empty() => {
                    let id = *world.open.iter().nth(n % world.open.len()).unwrap();
                    world.cancel(id);
                    world.check();
                }
                Act::Cancel(_) => {}
                Act::Step => {
                    let earliest = world.open.first().copied();
                    world.scheduler.grow();
                    let running = world.scheduler.running.iter();
                    let answers: Vec<_> =
                        running.filter(|s| s.n_pending() == 1).map(|s| s.id).collect();
                    let computed = world.step();
                    let n_tokens: usize = computed.iter().map(|c| c.2).sum();
                    prop_assert!(n_tokens <= max_batch_tokens);
                    prop_assert!(computed.iter().all(|c| c.2 > 0));
                    for id in answers {
                        prop_assert!(computed.iter().any(|c| c.0 == id), "{:?} paused", id);
                    }
                    prop_assert!(earliest.is_none_or(|id| computed.iter().any(|c| c.0 == id)));
                    if i >= n_acts && world.open.is_empty() {
                        break;
                    }
                }
            }
        }
        prop_assert!(world.open.is_empty(), "not drained");
        prop_assert!(world.scheduler.is_idle());
        let mut all = world.scheduler.pool.table();
        prop_assert!(all.grow(CONTEXT), "every block is to be had again");
    }
}
