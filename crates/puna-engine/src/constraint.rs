//! What an answer may be, as a mask over token ids.

/// Decides before each draw which tokens may come: a grammar, without the engine's knowing of text.
pub trait Constraint: Send {
    /// The ids that may come next: `id` may if bit `id % 32` of word `id / 32` is set; those beyond the last word may
    /// not. A stop id ends the answer only where it is allowed. With no bit set the request ends with
    /// [`Failure::AllForbidden`](crate::Failure::AllForbidden).
    fn allowed(&mut self) -> &[u32];

    /// Takes note of the token that was drawn from those allowed, and is now part of the answer.
    fn accept(&mut self, token: u32);
}

/// Gives all logits but those of `allowed` ids minus infinity.
pub(crate) fn mask(logits: &mut [f32], allowed: &[u32]) {
    let words = allowed.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(32).zip(words) {
        if word == u32::MAX {
            continue;
        }
        for (bit, logit) in logits.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_name_ids() {
        for n in [1, 31, 32, 33, 64, 70, 100] {
            for allowed in [&[][..], &[u32::MAX], &[0b101], &[0, 1 << 31, 2]] {
                let mut logits = vec![0.5; n];
                mask(&mut logits, allowed);
                for (id, &logit) in logits.iter().enumerate() {
                    let word = allowed.get(id / 32).copied().unwrap_or(0);
                    let expected =
                        if word & (1 << (id % 32)) != 0 { 0.5 } else { f32::NEG_INFINITY };
                    assert_eq!(logit, expected, "{n} logits, {allowed:?}, id {id}");
                }
            }
        }
    }
}
