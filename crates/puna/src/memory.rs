//! Whether a model fits, before it is loaded.

use anyhow::bail;
use puna_core::{KvType, TensorSource};
use puna_model::MemoryPlan;

use crate::failure::Usage;
use crate::{system, units};

/// Shortest context that is worth suggesting.
const MIN_CTX: usize = 128;

/// Refuses what does not fit into the memory that is free now. Where the system does not say how much that is,
/// everything passes.
pub(crate) fn check(
    source: &dyn TensorSource,
    kv_type: KvType,
    ctx: usize,
    batch: usize,
) -> anyhow::Result<()> {
    let needs = |ctx| MemoryPlan::new(source, kv_type, ctx, batch).total();
    match system::available_memory().and_then(|free| refusal(needs, ctx, free)) {
        Some(message) => bail!(Usage(message)),
        None => Ok(()),
    }
}

/// The message when `needs(ctx)` is more than `free`: with the longest shorter context that fits, if one does.
fn refusal(needs: impl Fn(usize) -> u64, ctx: usize, free: u64) -> Option<String> {
    let needed = needs(ctx);
    if needed <= free {
        return None;
    }
    let (needed, free_text) = (units::bytes(needed), units::bytes(free));
    let halves = std::iter::successors(Some(ctx.next_power_of_two()), |&n| Some(n / 2));
    let fitting =
        halves.take_while(|&n| n >= MIN_CTX).filter(|&n| n < ctx).find(|&n| needs(n) <= free);
    Some(match fitting {
        Some(shorter) => format!("needs {needed}, {free_text} free; try --ctx {shorter}"),
        None => {
            format!("needs {needed}, {free_text} free; a smaller or more quantised model may fit")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_longest_context_that_fits() {
        // 2.5 GB of weights, 0.5 MB a position.
        let needs = |ctx: usize| 2_500_000_000 + ctx as u64 * 512_000;
        assert_eq!(refusal(needs, 4096, 4_600_000_000), None);
        let message = refusal(needs, 4096, 3_900_000_000).unwrap();
        assert_eq!(message, "needs 4.6 GB, 3.9 GB free; try --ctx 2048");
        let message = refusal(needs, 4100, 4_598_000_000).unwrap();
        assert_eq!(message, "needs 4.6 GB, 4.6 GB free; try --ctx 4096");
        assert!(refusal(needs, 4096, 1_000_000_000).unwrap().contains("smaller"));
    }
}
