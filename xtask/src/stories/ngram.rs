//! How English a sentence is: bits per byte under an order-5 model of characters, with Witten and Bell's
//! interpolation ("The zero-frequency problem", 1991, method C). No network of ours: that would love its own text.

use std::collections::HashMap;

/// Bytes of context.
const ORDER: usize = 5;

/// Sentences above the value that this share of human sentences keeps to are called odd.
const QUANTILE: f64 = 0.99;

/// Counts of what follows each context of 0 to [`ORDER`] bytes.
#[derive(Default)]
pub(super) struct Ngram {
    counts: HashMap<Vec<u8>, HashMap<u8, u32>>,
    /// Bits per byte that a sentence may have.
    limit: f64,
}

impl Ngram {
    /// Learns from `train` and takes the limit from `held_out`, which it did not learn from.
    pub(super) fn new<'a>(
        train: impl Iterator<Item = &'a str>,
        held_out: impl Iterator<Item = &'a str>,
    ) -> Self {
        let mut model = Self::default();
        for text in train {
            for sentence in sentences(text) {
                let padded = padded(&sentence);
                for i in ORDER..padded.len() {
                    for n in 0..=ORDER {
                        let next = model.counts.entry(padded[i - n..i].to_vec()).or_default();
                        *next.entry(padded[i]).or_default() += 1;
                    }
                }
            }
        }
        let mut bits: Vec<f64> =
            held_out.flat_map(sentences).map(|sentence| model.bits_per_byte(&sentence)).collect();
        bits.sort_by(f64::total_cmp);
        let at = (bits.len() as f64 * QUANTILE) as usize;
        model.limit = bits.get(at).copied().unwrap_or(f64::INFINITY);
        model
    }

    /// Of a text's sentences, the share within the limit; `None` where there is no sentence.
    pub(super) fn grammatical(&self, text: &str) -> Option<f64> {
        let sentences = sentences(text);
        let n = sentences.len();
        let good = sentences.iter().filter(|sentence| self.bits_per_byte(sentence) <= self.limit);
        (n > 0).then(|| good.count() as f64 / n as f64)
    }

    fn bits_per_byte(&self, sentence: &str) -> f64 {
        let padded = padded(sentence);
        let bits: f64 = (ORDER..padded.len()).map(|i| -self.probability(&padded, i).log2()).sum();
        bits / (padded.len() - ORDER) as f64
    }

    fn probability(&self, text: &[u8], i: usize) -> f64 {
        let mut p = 1.0 / 256.0;
        for n in 0..=ORDER {
            let Some(next) = self.counts.get(&text[i - n..i]) else { break };
            let total: u32 = next.values().sum();
            let (total, kinds) = (f64::from(total), next.len() as f64);
            let count = f64::from(next.get(&text[i]).copied().unwrap_or(0));
            p = (count + kinds * p) / (total + kinds);
        }
        p
    }
}

/// With a context before the first byte and an end.
fn padded(sentence: &str) -> Vec<u8> {
    let mut padded = vec![b'\n'; ORDER];
    padded.extend(sentence.bytes());
    padded.push(b'\n');
    padded
}

/// Sentences of at least eight bytes, quotes aside.
fn sentences(text: &str) -> Vec<String> {
    let text = text.replace(['"', '\u{201c}', '\u{201d}'], "");
    let ends = text.split_inclusive(['.', '!', '?', '\n']);
    ends.map(|s| s.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|s| s.len() >= 8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Ngram;

    #[test]
    fn known_words_are_more_probable_than_a_mess() {
        let text =
            "The cat sat on the mat. The dog sat on the log. The cat saw the dog. ".repeat(5);
        let model = Ngram::new([text.as_str()].into_iter(), ["The dog saw the cat."].into_iter());
        assert_eq!(model.grammatical("The cat sat on the log."), Some(1.0));
        assert_eq!(model.grammatical("Teh tac zat no eht glo. The dog saw the cat."), Some(0.5));
        assert_eq!(model.grammatical(""), None);
    }

    #[test]
    fn probabilities_of_all_bytes_sum_to_one() {
        let model = Ngram::new(["It was a happy day."].into_iter(), [].into_iter());
        let mut text = b"was a".to_vec();
        text.push(0);
        let sum: f64 = (0..=255)
            .map(|byte| {
                *text.last_mut().unwrap() = byte;
                model.probability(&text, 5)
            })
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
