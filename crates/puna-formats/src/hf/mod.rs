//! A Hugging Face folder: `config.json`, with `model.safetensors` or `pytorch_model.bin`, whole or in parts
//! listed by an index. Rows of `q_proj` and `k_proj` are permuted against Meta's:
//! [`RopeLayout::Halves`](puna_core::RopeLayout). Everything means what it means to `transformers`.

mod config;
mod names;
mod open;
mod write;

pub use config::{MAX_CONFIG_BYTES, parse_classifier_config, parse_config};
pub use names::{id, name};
pub(crate) use open::{CONFIG, has_weights, open};
pub use write::{ConfigExtras, classifier_config_json, config_json, generation_config_json};
