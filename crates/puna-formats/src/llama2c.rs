//! llama2.c's `.bin`: the float legacy form, and versions 1 (f32) and 2 (groups of 8 bits).
//!
//! Legacy (`legacy_export` of llama2.c's `export.py`): seven i32 (`dim, hidden_dim, n_layers, n_heads,
//! n_kv_heads, vocab_size, max_seq_len`); a negative `vocab_size` says that the output matrix is not the
//! embedding. Then f32 tensors: embeddings, each kind of layer tensor for all layers in turn, the last norm,
//! two tables of rotations (skipped: they follow from the configuration), and the output if it is untied.
//! No magic: such a file is recognised by sizes that add up to its length exactly.
//!
//! Versions 1 and 2: the magic `ak42` as a little-endian u32, an i32 version, the seven i32, a byte that is 1
//! if the output is tied, in version 2 an i32 group length, zeros up to 256 bytes. Then all norms in f32,
//! then the matrices: in version 1 f32, in version 2 each as its quantised bytes followed by one f32 scale
//! for each group. The latter are multiplied out when loaded, `value = quant × scale` in f32.
//!
//! None of these states `norm_eps` or `rope_theta`: they are 1e-5 and 10,000. Rows are paired as in Meta's.

use std::path::Path;
use std::sync::Arc;

use puna_core::{
    DType, LayerWeight, ModelConfig, Rope, RopeLayout, RopeScaling, SamplingHints, SharedBytes,
    TensorInfo, WeightId,
};

use crate::cursor::Cursor;
use crate::map::DataFile;
use crate::weights::{Bytes, Collection, Stored, Weights};
use crate::{Checkpoint, Form, FormatError};

/// `ak42` as a number; in the file its bytes are in reverse.
const MAGIC: u32 = u32::from_be_bytes(*b"ak42");
/// Bytes before the tensors in versions 1 and 2.
const HEADER_BYTES: usize = 256;
/// Layers in one file: more than any network has, few enough that listing their tensors costs nothing.
pub const MAX_LAYERS: usize = 1 << 10;

/// The header of any version.
#[derive(Debug)]
struct Header {
    version: Version,
    config: ModelConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Legacy,
    Floats,
    Groups { len: usize },
}

/// Whether the bytes begin as version 1 or 2, or as a legacy header that could be one.
pub(crate) fn is_llama2c(bytes: &[u8]) -> bool {
    match bytes.first_chunk::<4>() {
        Some(magic) if u32::from_le_bytes(*magic) == MAGIC => true,
        _ => Header::read("", bytes).is_ok_and(|header| header.config.validate().is_ok()),
    }
}

pub(crate) fn open(path: Option<&Path>, file: Arc<DataFile>) -> Result<Checkpoint, FormatError> {
    let Header { version, config } = Header::read(&file.name, &file.bytes)?;
    config.validate().map_err(|source| FormatError::Config { file: file.name.clone(), source })?;
    let mut layout = Layout { file: &file, pos: 0, tensors: Collection::default() };
    layout.read(version, &config)?;
    let tensors = layout.tensors;
    let name = match version {
        Version::Legacy => "legacy".to_owned(),
        Version::Floats => "1".to_owned(),
        Version::Groups { len } => format!("2, groups of {len}"),
    };
    let weights = Weights::new(&file.name, config, tensors, |id| id.to_string())?;
    Ok(Checkpoint {
        source: Arc::new(weights),
        form: Form::Llama2c,
        files: path.map(Path::to_owned).into_iter().collect(),
        vocab: None,
        chat_template: None,
        metadata: vec![("version".to_owned(), name)],
        gguf_metadata: Vec::new(),
        bos_id: Some(1),
        eos_ids: vec![2],
        add_bos: None,
        add_eos: None,
        sampling: SamplingHints::default(),
        ignored: Vec::new(),
    })
}

impl Header {
    fn read(file: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(file, bytes);
        if cursor.u32("first field")? != MAGIC {
            return Self::read_legacy(file, bytes);
        }
        let version = cursor.i32("version")?;
        let fields = read_fields(&mut cursor)?;
        let tied = match cursor.u8("shared classifier")? {
            byte @ 0..=1 => byte == 1,
            byte => {
                return Err(FormatError::malformed(file, "shared classifier", "0 or 1", byte));
            }
        };
        let version = match version {
            1 => Version::Floats,
            2 => {
                let len = cursor.i32("group size")?;
                let groups = usize::try_from(len).ok().filter(|&len| len > 0);
                let len = groups.ok_or_else(|| {
                    FormatError::malformed(file, "group size", "a positive number", len)
                })?;
                Version::Groups { len }
            }
            other => return Err(FormatError::unsupported(file, "version", "1 and 2", other)),
        };
        Ok(Self { version, config: config(file, fields, tied)? })
    }

    fn read_legacy(file: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = read_fields(&mut Cursor::new(file, bytes))?;
        let tied = fields[5] > 0;
        fields[5] = fields[5].saturating_abs();
        Ok(Self { version: Version::Legacy, config: config(file, fields, tied)? })
    }
}

const FIELDS: [&str; 7] =
    ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len"];

fn read_fields(cursor: &mut Cursor<'_>) -> Result<[i32; 7], FormatError> {
    let mut fields = [0; 7];
    for (field, name) in fields.iter_mut().zip(FIELDS) {
        *field = cursor.i32(name)?;
    }
    Ok(fields)
}

fn config(file: &str, fields: [i32; 7], tied_output: bool) -> Result<ModelConfig, FormatError> {
    let mut sizes = [0; 7];
    for ((size, field), name) in sizes.iter_mut().zip(fields).zip(FIELDS) {
        *size = usize::try_from(field)
            .map_err(|_| FormatError::malformed(file, name, "a positive number", field))?;
    }
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, max_seq_len] = sizes;
    if n_layers > MAX_LAYERS {
        let expected = format!("at most {MAX_LAYERS}");
        return Err(FormatError::malformed(file, "n_layers", expected, n_layers));
    }
    if n_heads == 0 || !dim.is_multiple_of(n_heads) {
        let expected = format!("a divisor of dim = {dim}");
        return Err(FormatError::malformed(file, "n_heads", expected, n_heads));
    }
    Ok(ModelConfig {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim: dim / n_heads,
        vocab_size,
        max_seq_len,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
        tied_output,
    })
}

const MATRICES: [LayerWeight; 7] = [
    LayerWeight::Wq,
    LayerWeight::Wk,
    LayerWeight::Wv,
    LayerWeight::Wo,
    LayerWeight::WGate,
    LayerWeight::WDown,
    LayerWeight::WUp,
];

/// Walks through the file, cutting off one tensor after the other.
struct Layout<'a> {
    file: &'a Arc<DataFile>,
    pos: usize,
    tensors: Collection,
}

impl Layout<'_> {
    fn read(&mut self, version: Version, config: &ModelConfig) -> Result<(), FormatError> {
        match version {
            Version::Legacy => self.read_legacy(config)?,
            Version::Floats | Version::Groups { .. } => self.read_versioned(version, config)?,
        }
        let len = self.file.bytes.len();
        if self.pos == len {
            return Ok(());
        }
        let expected = format!("{} bytes by its header", self.pos);
        Err(FormatError::malformed(&self.file.name, "file length", expected, len))
    }

    fn read_legacy(&mut self, config: &ModelConfig) -> Result<(), FormatError> {
        self.pos = 4 * FIELDS.len();
        self.floats(WeightId::TokEmbeddings, config)?;
        let [attention, feed_forward] = [&MATRICES[..4], &MATRICES[4..]];
        self.layers_floats(LayerWeight::AttnNorm, config)?;
        for &weight in attention {
            self.layers_floats(weight, config)?;
        }
        self.layers_floats(LayerWeight::FfnNorm, config)?;
        for &weight in feed_forward {
            self.layers_floats(weight, config)?;
        }
        self.floats(WeightId::Norm, config)?;
        // Cosines and sines, `max_seq_len × head_dim / 2` each.
        let tables = config.max_seq_len.checked_mul(config.head_dim).and_then(|n| n.checked_mul(4));
        self.cut("rotation tables", tables)?;
        if !config.tied_output {
            self.floats(WeightId::Output, config)?;
        }
        Ok(())
    }

    fn read_versioned(
        &mut self,
        version: Version,
        config: &ModelConfig,
    ) -> Result<(), FormatError> {
        self.cut("header", Some(HEADER_BYTES))?;
        self.layers_floats(LayerWeight::AttnNorm, config)?;
        self.layers_floats(LayerWeight::FfnNorm, config)?;
        self.floats(WeightId::Norm, config)?;
        let layers = MATRICES
            .into_iter()
            .flat_map(|weight| (0..config.n_layers).map(move |idx| WeightId::Layer(idx, weight)));
        let matrices = std::iter::once(WeightId::TokEmbeddings)
            .chain(layers)
            .chain((!config.tied_output).then_some(WeightId::Output));
        for id in matrices {
            match version {
                Version::Groups { len } => self.groups(id, config, len)?,
                _ => self.floats(id, config)?,
            }
        }
        Ok(())
    }

    fn layers_floats(
        &mut self,
        weight: LayerWeight,
        config: &ModelConfig,
    ) -> Result<(), FormatError> {
        (0..config.n_layers).try_for_each(|idx| self.floats(WeightId::Layer(idx, weight), config))
    }

    fn floats(&mut self, id: WeightId, config: &ModelConfig) -> Result<(), FormatError> {
        let info = TensorInfo { dtype: DType::F32, shape: id.shape(config) };
        let bytes = self.cut(&id.to_string(), info.n_bytes())?;
        self.add(id, info, Bytes::View(bytes))
    }

    fn groups(
        &mut self,
        id: WeightId,
        config: &ModelConfig,
        group_len: usize,
    ) -> Result<(), FormatError> {
        let info = TensorInfo { dtype: DType::F32, shape: id.shape(config) };
        let name = id.to_string();
        let n = info.n_elements();
        if n.is_some_and(|n| !n.is_multiple_of(group_len)) {
            let expected = format!("whole groups of {group_len} elements");
            let found = format!("shape {:?}", info.shape);
            return Err(FormatError::tensor(&self.file.name, name, expected, found));
        }
        let quants = self.cut(&name, n)?;
        let scales = self.cut(&name, n.and_then(|n| (n / group_len).checked_mul(4)))?;
        self.add(id, info, Bytes::Groups { quants, scales, group_len })
    }

    fn add(&mut self, id: WeightId, info: TensorInfo, bytes: Bytes) -> Result<(), FormatError> {
        let file = Arc::clone(self.file);
        self.tensors.add(id, Stored { file, name: id.to_string(), info, bytes })
    }

    /// The next `n` bytes; `None` is a size that overflowed.
    fn cut(&mut self, what: &str, n: Option<usize>) -> Result<SharedBytes, FormatError> {
        let end = n.and_then(|n| self.pos.checked_add(n));
        let bytes = end.and_then(|end| self.file.bytes.slice(self.pos..end));
        let (Some(end), Some(bytes)) = (end, bytes) else {
            let n = n.map_or("too many".to_owned(), |n| n.to_string());
            let expected = format!("{n} bytes at offset {}", self.pos);
            let found = format!("a file of {} bytes", self.file.bytes.len());
            return Err(FormatError::malformed(&self.file.name, what, expected, found));
        };
        self.pos = end;
        Ok(bytes)
    }
}
