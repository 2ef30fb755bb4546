//! Dialogues for training: ids, and which of them are an assistant's.

use std::ops::Range;

use super::{
    ChatError, Message, Role, SPECIAL_TAGS, check_roles, llama2_prompt, refuse_tags, special_ids,
    strip, without_system,
};
use crate::{PieceKind, Tokenizer};

/// A dialogue of which a model is to learn the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingDialogue {
    /// All of it, BOS and EOS around each pair of turns.
    pub ids: Vec<u32>,
    /// For each id whether it is part of an answer.
    pub is_answer: Vec<bool>,
    /// Where each answer lies in `ids`, with its EOS; never empty.
    pub turns: Vec<Range<usize>>,
}

/// A dialogue that ends with the assistant in Llama 2's chat form, as Meta's `generation.py` writes turns that are
/// over: each pair is the text `[INST] user [/INST] answer ` with BOS and EOS, and the system message goes into the
/// first user turn.
///
/// An answer's ids begin where the pair's ids no longer are those of `[INST] user [/INST]`, the ids after which a model
/// is asked ([`ChatTemplate::render`](super::ChatTemplate::render)), and end with EOS. With pieces that begin with a
/// space or have none, as in Llama 2's vocabulary, that is the space before the answer. A piece that reaches from the
/// prompt into the answer, which some other vocabulary may have, is not the answer's.
///
/// # Errors
/// [`ChatError`]: special tags inside messages, roles out of turn, no BOS or EOS piece.
pub fn render_training(
    tokenizer: &Tokenizer,
    messages: &[Message],
) -> Result<TrainingDialogue, ChatError> {
    refuse_tags(tokenizer, messages, &SPECIAL_TAGS)?;
    let (bos, eos) = special_ids(tokenizer)?;
    let (system, turns) = without_system(messages);
    check_roles(messages, Role::Assistant)?;
    let mut dialogue =
        TrainingDialogue { ids: Vec::new(), is_answer: Vec::new(), turns: Vec::new() };
    for (i, pair) in turns.chunks_exact(2).enumerate() {
        let prompt = llama2_prompt(system.filter(|_| i == 0), &pair[0].content);
        let text = format!("{prompt} {} ", strip(&pair[1].content));
        dialogue.ids.push(bos);
        let start = dialogue.ids.len();
        tokenizer.encode_into(&text, &mut dialogue.ids);
        let n = n_prompt_ids(tokenizer, &tokenizer.encode(&prompt), &dialogue.ids[start..]);
        dialogue.ids.push(eos);
        dialogue.is_answer.resize(start + n, false);
        dialogue.is_answer.resize(dialogue.ids.len(), true);
        dialogue.turns.push(start + n..dialogue.ids.len());
    }
    Ok(dialogue)
}

/// How many of a pair's ids hold something of its prompt, which alone has the ids `prompt`.
fn n_prompt_ids(tokenizer: &Tokenizer, prompt: &[u32], pair: &[u32]) -> usize {
    let n_shared = prompt.iter().zip(pair).take_while(|(a, b)| a == b).count();
    // The rest of the prompt, none but in odd vocabularies, is spread over other pieces of the pair.
    let mut missing: usize = prompt[n_shared..].iter().map(|&id| n_bytes(tokenizer, id)).sum();
    let mut n = n_shared;
    while missing > 0 && n < pair.len() {
        missing = missing.saturating_sub(n_bytes(tokenizer, pair[n]));
        n += 1;
    }
    n
}

/// The bytes that a piece stands for, a space as the three of its mark.
fn n_bytes(tokenizer: &Tokenizer, id: u32) -> usize {
    tokenizer.piece(id).map_or(0, |piece| match piece.kind {
        PieceKind::Byte => 1,
        _ => piece.text.len(),
    })
}
