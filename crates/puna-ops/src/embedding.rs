//! Rows of the embedding matrix, and their gradient.

use puna_kernels::Cpu;

/// Rows per task.
const TASK_ROWS: usize = 64;

/// `out[t] = table[tokens[t]]`; `table` is `[V, D]`, `out` `[T, D]`.
///
/// # Panics
/// When lengths do not fit, or a token is not below `V`.
pub fn embedding(cpu: &Cpu, table: &[f32], tokens: &[u32], out: &mut [f32]) {
    let dim = out.len() / tokens.len().max(1);
    assert_eq!(out.len(), tokens.len() * dim, "embedding: whole rows for the tokens");
    if out.is_empty() {
        return;
    }
    cpu.pool().run_chunks(out, TASK_ROWS * dim, &|task, out| {
        let tokens = &tokens[task * TASK_ROWS..];
        for (out, &token) in out.chunks_exact_mut(dim).zip(tokens) {
            out.copy_from_slice(&table[token as usize * dim..][..dim]);
        }
    });
}

/// `d_table_acc[tokens[t]] += dy[t]`, rows of `dy` in ascending order.
///
/// # Panics
/// When lengths do not fit, or a token is not below `V`.
pub fn embedding_backward(cpu: &Cpu, tokens: &[u32], dy: &[f32], d_table_acc: &mut [f32]) {
    let dim = dy.len() / tokens.len().max(1);
    assert_eq!(dy.len(), tokens.len() * dim, "embedding_backward: whole rows for the tokens");
    if dy.is_empty() {
        return;
    }
    let vocab_size = d_table_acc.len() / dim;
    let out_of_vocab = tokens.iter().find(|&&token| token as usize >= vocab_size);
    assert_eq!(out_of_vocab, None, "embedding_backward: a token in a vocabulary of {vocab_size}");
    // Each task owns rows of the table and looks for their tokens.
    cpu.pool().run_chunks(d_table_acc, TASK_ROWS * dim, &|task, d_table| {
        let owned = task * TASK_ROWS..task * TASK_ROWS + d_table.len() / dim;
        for (t, &token) in tokens.iter().enumerate() {
            if owned.contains(&(token as usize)) {
                let row = &mut d_table[(token as usize - owned.start) * dim..][..dim];
                for (sum, d) in row.iter_mut().zip(&dy[t * dim..]) {
                    *sum += d;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_for_any_threads, cpus, random};

    #[test]
    fn rows_are_found_and_gradients_added() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        for cpu in cpus() {
            let mut out = [0.0; 8];
            embedding(&cpu, &table, &[2, 0, 2, 1], &mut out);
            assert_eq!(out, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0, 3.0, 4.0]);
            let mut d = [10.0; 6];
            embedding_backward(&cpu, &[2, 0, 2, 1], &out, &mut d);
            assert_eq!(d, [11.0, 12.0, 13.0, 14.0, 20.0, 22.0]);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let tokens: Vec<u32> = (0..700).map(|t| t * t % 300).collect();
        let dy = random(1, 700 * 5);
        assert_same_for_any_threads(|cpu| {
            let mut d = random(2, 300 * 5);
            embedding_backward(cpu, &tokens, &dy, &mut d);
            d
        });
    }

    #[test]
    #[should_panic(expected = "a token in a vocabulary of 3")]
    fn tokens_beyond_the_vocabulary_are_refused() {
        embedding_backward(&cpus()[0], &[3], &[0.0; 2], &mut [0.0; 6]);
    }
}
