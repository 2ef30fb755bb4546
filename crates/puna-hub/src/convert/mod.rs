//! Models from one form to another: GGUF, whole or split, and Hugging Face folders, from every form that is read.
//!
//! Tensors are streamed in stretches of rows, so that memory does not grow with the model; what is written appears
//! when it is complete. Where a type is kept, bytes are: rows of `wq` and `wk` change places as a whole between the
//! two orders in which forms pair them for RoPE, and no value is touched.

mod error;
mod folder;
mod metadata;
mod notices;
mod plan;
mod recode;
pub(crate) mod vocabulary;

use std::path::{Path, PathBuf};

use puna_core::{DType, RopeLayout, TensorInfo, WeightId};
use puna_formats::gguf::{self, Draft, Value, WriteOptions, Writer};
use puna_kernels::Cpu;

pub use error::ConvertError;
use metadata::Metadata;
pub use recode::Importance;
use recode::Recoder;

use crate::{HubError, Opened, disk};

/// A form that models are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// GGUF, one file or split.
    Gguf,
    /// A Hugging Face folder with safetensors.
    HuggingFace,
}

/// A conversion that is ready to run: what is read, and what each tensor will be stored as.
pub struct Conversion<'a> {
    source: &'a Opened,
    target: Target,
    tensors: Vec<(WeightId, TensorInfo)>,
    importance: Importance,
    metadata: Vec<(String, Value)>,
    made_anew: bool,
    notes: Vec<String>,
    cpu: &'a Cpu,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The files with tensors, by the names they have now.
    pub files: Vec<PathBuf>,
    /// Bytes of all files together.
    pub n_bytes: u64,
    /// What the target cannot say, in sentences for the user.
    pub notes: Vec<String>,
}

impl Written {
    /// What there is to say of files that are in their places now.
    pub(crate) fn of(files: Vec<PathBuf>, notes: Vec<String>) -> Self {
        let n_bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len());
        Self { n_bytes: n_bytes.sum(), files, notes }
    }
}

impl<'a> Conversion<'a> {
    /// Plans to write `source` as `target`, matrices as `dtype`; without it each keeps its type where the target
    /// has that type, and becomes F32 where not.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn new(
        source: &'a Opened,
        target: Target,
        dtype: Option<DType>,
        cpu: &'a Cpu,
    ) -> Result<Self, HubError> {
        match target {
            Target::Gguf => Ok(Self::to_gguf(source, &|_, info| dtype.unwrap_or(info.dtype), cpu)),
            Target::HuggingFace => {
                let plan::Types { tensors, notes } =
                    plan::for_folder(&source.checkpoint, dtype, cpu)?;
                Ok(Self::planned(source, target, tensors, notes, cpu))
            }
        }
    }

    /// Plans to write `source` as GGUF with the type that `dtype_of` gives each matrix; norms are F32.
    pub fn to_gguf(
        source: &'a Opened,
        dtype_of: &dyn Fn(WeightId, &TensorInfo) -> DType,
        cpu: &'a Cpu,
    ) -> Self {
        let tensors = plan::for_gguf(&*source.checkpoint.source, dtype_of);
        Self::planned(source, Target::Gguf, tensors, Vec::new(), cpu)
    }

    fn planned(
        source: &'a Opened,
        target: Target,
        tensors: Vec<(WeightId, TensorInfo)>,
        notes: Vec<String>,
        cpu: &'a Cpu,
    ) -> Self {
        let (importance, metadata) = (Importance::new(), Vec::new());
        let made_anew = false;
        Self { source, target, tensors, importance, metadata, made_anew, notes, cpu }
    }

    /// Weighs errors by the importance of columns; see [`puna_kernels::quantize`].
    #[must_use]
    pub fn with_importance(mut self, importance: Importance) -> Self {
        self.importance = importance;
        self
    }

    /// Adds entries to a GGUF file's metadata; they replace those of the same names.
    #[must_use]
    pub fn with_metadata(mut self, entries: Vec<(String, Value)>) -> Self {
        self.metadata = entries;
        self
    }

    /// Drops what the source's metadata say of how its blocks were made, even where types stay.
    #[must_use]
    pub fn made_anew(mut self) -> Self {
        self.made_anew = true;
        self
    }

    /// Every tensor with its type, in the order in which they will be written.
    #[must_use]
    pub fn tensors(&self) -> &[(WeightId, TensorInfo)] {
        &self.tensors
    }

    /// Bytes of all tensors in the target.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, info)| info.n_bytes().unwrap_or(0) as u64).sum()
    }

    /// Writes the model to `path`, a file or a folder. `progress` gets the bytes of tensors written so far and says
    /// whether to go on. What is not completed leaves nothing behind.
    ///
    /// # Errors
    /// The source cannot be read or changed meanwhile, its values or its vocabulary do not fit into the target, the
    /// target cannot be written, or [`HubError::Stopped`].
    pub fn write(
        &self,
        path: &Path,
        options: &WriteOptions,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Written, HubError> {
        if self.target == Target::HuggingFace {
            return folder::write(self, path, options, progress);
        }
        let (draft, notes) = self.gguf_draft(path, options, progress)?;
        let files = draft.files();
        draft.commit()?;
        Ok(Written::of(files, notes))
    }

    /// As [`Conversion::write`] to GGUF, up to the point where the model is complete but not yet in its place. The
    /// second part are the notes.
    ///
    /// # Errors
    /// As [`Conversion::write`].
    pub fn gguf_draft(
        &self,
        path: &Path,
        options: &WriteOptions,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(Draft, Vec<String>), HubError> {
        let mut metadata: Metadata = metadata::metadata(self.source, &self.tensors)?;
        if self.made_anew {
            metadata.drop_stale();
        }
        for (key, value) in &self.metadata {
            metadata.set(key, value.clone());
        }
        let tensors = self.named(gguf::name);
        disk::check_free(path, self.n_bytes())?;
        let mut writer = Writer::with_options(path, &metadata.entries, &tensors, options)?;
        self.recoder(RopeLayout::Interleaved).run(
            &self.tensors,
            &mut |id, bytes| writer.write_part(&gguf::name(id), bytes),
            progress,
        )?;
        Ok((writer.draft()?, [&self.notes[..], &metadata.notes].concat()))
    }

    fn named(&self, name: fn(WeightId) -> String) -> Vec<(String, TensorInfo)> {
        self.tensors.iter().map(|(id, info)| (name(*id), info.clone())).collect()
    }

    fn recoder(&self, layout: RopeLayout) -> Recoder<'_> {
        let source = &*self.source.checkpoint.source;
        Recoder { source, layout, importance: &self.importance, cpu: self.cpu }
    }
}
