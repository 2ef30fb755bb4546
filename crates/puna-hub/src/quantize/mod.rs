//! Quantises a model, with proof: what the new file is compared with its parent on a text before it appears, and the
//! figures stand in its metadata.

mod evidence;
mod mix;
#[cfg(test)]
mod mix_tests;

use std::collections::BTreeMap;
use std::path::Path;

use puna_core::{DType, TensorInfo, WeightId};
use puna_eval::{Comparison, Options, Text, compare};
use puna_formats::Imatrix;
use puna_formats::gguf::{Draft, Value, WriteOptions};
use puna_kernels::Cpu;

pub use evidence::Evidence;
pub(crate) use evidence::PREFIX as PROOF_PREFIX;
pub use mix::Mix;
pub(crate) use mix::fitting_type;

use crate::convert::{Conversion, Importance, Written};
use crate::{HubError, Opened};

/// On what a quantised model is compared with its parent.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    /// The text, in the parent's tokens.
    pub text: &'a Text,
    /// How to measure.
    pub options: Options,
    /// The mean divergence, in nats, above which the model is thrown away.
    pub max_kl: Option<f64>,
}

/// An importance matrix and the name of its file.
pub struct NamedImatrix {
    /// The file.
    pub name: String,
    /// What it says.
    pub imatrix: Imatrix,
}

/// A matrix that is stored in another type than the mix wants, because that type's blocks do not divide its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The matrix.
    pub id: WeightId,
    /// Elements of a row.
    pub cols: usize,
    /// What the mix wants.
    pub wanted: DType,
    /// What it gets.
    pub stored: DType,
}

/// A model about to be quantised.
pub struct Quantization<'a> {
    source: &'a Opened,
    conversion: Conversion<'a>,
    fallbacks: Vec<Fallback>,
    proof: Option<Proof<'a>>,
    cpu: &'a Cpu,
}

impl<'a> Quantization<'a> {
    /// Plans to store the matrices of `source` as `mix` says, with errors weighed by `imatrix`; to be proven on `proof`.
    ///
    /// # Errors
    /// The importance matrix belongs to another model, or the text is too short for a proof.
    pub fn new(
        source: &'a Opened,
        mix: Mix,
        imatrix: Option<&NamedImatrix>,
        proof: Option<Proof<'a>>,
        cpu: &'a Cpu,
    ) -> Result<Self, HubError> {
        let config = source.checkpoint.source.config();
        if let Some(NamedImatrix { name, imatrix }) = imatrix {
            imatrix.check(name, config)?;
        }
        if let Some(proof) = &proof {
            proof.options.check(proof.text)?;
        }
        let wanted = |id| mix.wanted(id, config, imatrix.is_some());
        let stored = |id, info: &TensorInfo| fitting_type(wanted(id), info.cols());
        let mut entries = vec![
            ("general.file_type".to_owned(), Value::U32(mix.file_type())),
            ("general.quantization_version".to_owned(), Value::U32(2)),
        ];
        entries.extend(imatrix.into_iter().flat_map(imatrix_entries));
        entries.extend(evidence::placeholders(source, proof.as_ref()));
        let importance = imatrix.map(|named| importance(&named.imatrix)).unwrap_or_default();
        let conversion = Conversion::to_gguf(source, &stored, cpu)
            .with_importance(importance)
            .with_metadata(entries)
            .made_anew();
        let matrices = conversion.tensors().iter().filter(|(_, info)| info.shape.len() > 1);
        let fallbacks = matrices
            .map(|(id, info)| {
                let (id, cols) = (*id, info.cols());
                Fallback { id, cols, wanted: wanted(id), stored: info.dtype }
            })
            .filter(|fallback| fallback.wanted != fallback.stored)
            .collect();
        Ok(Self { source, conversion, fallbacks, proof, cpu })
    }

    /// Matrices that get another type than the mix wants.
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// Bytes of all tensors.
    pub fn n_bytes(&self) -> u64 {
        self.conversion.n_bytes()
    }

    /// Tensors and bytes of each type.
    pub fn types(&self) -> BTreeMap<DType, (usize, u64)> {
        let mut types = BTreeMap::new();
        for (_, info) in self.conversion.tensors() {
            let (n, bytes): &mut (usize, u64) = types.entry(info.dtype).or_default();
            *n += 1;
            *bytes += info.n_bytes().unwrap_or(0) as u64;
        }
        types
    }

    /// Writes the model, complete but not yet in its place. `progress` gets the bytes of tensors written so far and says
    /// whether to go on.
    ///
    /// # Errors
    /// As [`Conversion::write`].
    pub fn write(
        &self,
        path: &Path,
        options: &WriteOptions,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Quantized<'_>, HubError> {
        let (draft, notes) = self.conversion.gguf_draft(path, options, progress)?;
        Ok(Quantized { job: self, draft, notes, proven: self.proof.is_none() })
    }
}

/// A quantised model that is not yet in its place. Dropped, it leaves nothing behind.
pub struct Quantized<'a> {
    job: &'a Quantization<'a>,
    draft: Draft,
    notes: Vec<String>,
    proven: bool,
}

impl Quantized<'_> {
    /// Compares the model with its parent, a layer of each at a time, and stores the figures in its metadata. `progress`
    /// gets work done and work to do, and says whether to go on.
    ///
    /// # Errors
    /// A model cannot run, or the divergence is larger than the proof allows.
    ///
    /// # Panics
    /// If there was to be no proof.
    pub fn prove(
        &mut self,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Comparison, HubError> {
        let proof = self.job.proof.as_ref().expect("a proof was asked for");
        let parent = &*self.job.source.checkpoint.source;
        let child = self.draft.open()?;
        let (text, options, cpu) = (proof.text, proof.options, self.job.cpu);
        let found = compare(parent, &*child.source, text, options, cpu, progress)?;
        // The file is about to be changed under its map.
        drop(child);
        if let Some(limit) = proof.max_kl.filter(|limit| found.kl.mean > *limit) {
            return Err(HubError::TooFar { found: found.kl.mean, limit });
        }
        self.draft.set_metadata(&evidence::entries(&found))?;
        self.proven = true;
        Ok(found)
    }

    /// Puts the model in its place.
    ///
    /// # Errors
    /// The file cannot be completed, or another has appeared in its place.
    ///
    /// # Panics
    /// If the proof that was asked for is missing.
    pub fn commit(self) -> Result<Written, HubError> {
        assert!(self.proven, "a model is committed with its proof");
        let files = self.draft.files();
        self.draft.commit()?;
        Ok(Written::of(files, self.notes))
    }
}

/// What llama.cpp says of the importance matrix that a file was made with.
fn imatrix_entries(named: &NamedImatrix) -> Vec<(String, Value)> {
    let NamedImatrix { name, imatrix } = named;
    let datasets: Vec<String> = imatrix.datasets.iter().map(|name| public_name(name)).collect();
    let count = |n: usize| Value::I32(i32::try_from(n).unwrap_or(i32::MAX));
    vec![
        ("quantize.imatrix.file".to_owned(), Value::String(public_name(name))),
        ("quantize.imatrix.dataset".to_owned(), Value::String(datasets.join(", "))),
        ("quantize.imatrix.entries_count".to_owned(), count(imatrix.entries.len())),
        ("quantize.imatrix.chunks_count".to_owned(), count(imatrix.n_chunks as usize)),
    ]
}

/// What a file that others will read calls another file: its name, without the folders it lies in here.
fn public_name(name: &str) -> String {
    let path = Path::new(name);
    let path = if path.exists() { path.canonicalize().ok() } else { None };
    let file_name = path.as_deref().and_then(Path::file_name);
    file_name.map_or_else(|| name.to_owned(), |file| file.to_string_lossy().into_owned())
}

/// Importance of the columns of each matrix. One whose inputs were all zero tells nothing, and is left out.
fn importance(imatrix: &Imatrix) -> Importance {
    let told = imatrix.entries.iter().filter(|(_, means)| means.iter().any(|mean| *mean > 0.0));
    told.map(|(id, means)| (*id, means.clone())).collect()
}
