//! Which tokens of a text are scored, and what stands before them.

use std::ops::Range;

use crate::EvalError;

/// `ctx` tokens of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first token's place in the text.
    pub(crate) start: usize,
    /// The tokens to score, by their places in the window; each is predicted by the row before it.
    pub(crate) scored: Range<usize>,
}

/// The windows of a text of `n_tokens` tokens, as the crate's front page describes them.
pub(crate) fn windows(
    text: &str,
    n_tokens: usize,
    ctx: usize,
    stride: Option<usize>,
) -> Result<Vec<Window>, EvalError> {
    if ctx < 4 {
        return Err(EvalError::Context { ctx });
    }
    if let Some(stride) = stride.filter(|stride| !(1..ctx).contains(stride)) {
        return Err(EvalError::Stride { stride, ctx });
    }
    if n_tokens < ctx {
        return Err(EvalError::TooShort { text: text.to_owned(), n_tokens, ctx });
    }
    let (step, first) = match stride {
        None => (ctx, ctx / 2 + 1),
        Some(stride) => (stride, ctx - stride),
    };
    let starts = (0..=n_tokens - ctx).step_by(step);
    Ok(starts.map(|start| Window { start, scored: first..ctx }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_strides() {
        let window = |start, scored| Window { start, scored };
        let check = |n, ctx, stride, expected: &[Window]| {
            assert_eq!(windows("t", n, ctx, stride).unwrap(), expected);
        };
        check(17, 8, None, &[window(0, 5..8), window(8, 5..8)]);
        check(8, 8, None, &[window(0, 5..8)]);
        check(15, 8, Some(3), &[window(0, 5..8), window(3, 5..8), window(6, 5..8)]);
        // Strides score every token once, from the first window's last ones on.
        let scored: Vec<usize> = windows("t", 100, 10, Some(4))
            .unwrap()
            .into_iter()
            .flat_map(|w| w.scored.map(move |i| w.start + i))
            .collect();
        assert_eq!(scored, (6..98).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be() {
        let message = |n, ctx, stride| windows("t", n, ctx, stride).unwrap_err().to_string();
        assert!(
            message(7, 8, None).starts_with("t: expected at least 8 tokens, one context, found 7")
        );
        assert!(message(90, 3, None).contains("at least 4 tokens"));
        assert!(message(90, 8, Some(8)).contains("expected 1 to 7"));
        assert!(message(90, 8, Some(0)).contains("found 0"));
    }
}
