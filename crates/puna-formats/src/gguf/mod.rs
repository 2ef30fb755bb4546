//! GGUF, the file form of llama.cpp: versions 2 and 3, little-endian, `llama` architecture.
//!
//! Layout (specification: `docs/gguf.md` of ggml): the magic `GGUF`, a u32 version, the number of tensors and
//! of metadata entries as u64; the entries, each a key, a u32 value type and a value; the tensors, each a
//! name, a u32 number of dimensions, the dimensions as u64 (innermost first), a u32 type and a u64 offset;
//! padding to `general.alignment`; the data, to whose beginning the offsets refer, each a multiple of the
//! alignment. A string is a u64 length and UTF-8; an array is a u32 element type, a u64 length and elements.
//!
//! Rows of `wq` and `wk` are paired as in Meta's files: [`RopeLayout::Interleaved`](puna_core::RopeLayout).

mod config;
mod header;
mod names;
mod open;
mod read;
mod split;
mod types;
mod value;
mod vocab;
mod write;

pub use names::{id, name};
pub use open::SAMPLING;
pub(crate) use open::{is_later_part, open, open_file, open_parts};
pub use read::{
    DEFAULT_ALIGNMENT, Gguf, GgufTensor, MAGIC, MAX_ALIGNMENT, MAX_ARRAY_LEN, MAX_DIMS,
    MAX_KEY_BYTES, MAX_KEYS, MAX_NAME_BYTES, MAX_STRING_BYTES, MAX_TENSORS,
};
pub(crate) use split::part_lens;
pub use value::{Array, Kind, MAX_NESTING, Value};
pub use vocab::GgufVocab;
pub use write::{Draft, WriteOptions, Writer};
