//! What the stages after pre-training share: the model they begin with, their settings, sequences packed into rows.

mod base;
mod items;
mod left_out;
mod memory;
mod pairs;
mod prompts;
mod samples;
mod settings;
mod supervised;
mod writer;

pub(crate) use base::{Base, dense_weights};
pub(crate) use items::{Item, Packed, RowBatch, pack, shuffled};
pub(crate) use left_out::{LeftOut, left_out};
pub(crate) use memory::{adapters_line, needs};
pub(crate) use pairs::{Pair, PairBatch, Pairs, PairsTable, batches, read_pairs};
pub(crate) use prompts::{Prompt, Prompts, PromptsTable, read_prompt_files};
pub(crate) use samples::{Growing, JsonDialogue, JsonMessage, read_lines, to_json, write_lines};
pub(crate) use settings::{CheckpointTable, LoraTable, OptimizerTable, Place, in_words};
pub(crate) use supervised::{Learned, Supervised};
pub(crate) use writer::{Drawn, Writer, answer_seed};

use puna_tokenizer::Tokenizer;
use puna_tokenizer::chat::{ChatError, ChatTemplate, Message, Role};

/// The ids after which a model answers a request.
pub(crate) fn prompt_ids(tokenizer: &Tokenizer, request: &str) -> Result<Vec<u32>, ChatError> {
    ChatTemplate::Llama2.render(tokenizer, &[Message::new(Role::User, request)])
}
