//! Tensors as the network receives them: a type, a shape, and bytes that may lie in a memory map.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use thiserror::Error;

use crate::{DType, ModelConfig, WeightId};

/// A range of bytes that keeps its owner (a memory map, a vector) alive. Cloning copies no bytes.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl SharedBytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let len = owner.as_ref().len();
        Self { owner: Arc::new(owner), range: 0..len }
    }

    /// The part of these bytes at `range`; `None` if it reaches beyond their end.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end)
            .then(|| Self { owner: Arc::clone(&self.owner), range: start..end })
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len())
    }
}

/// What is known of a tensor without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Storage type.
    pub dtype: DType,
    /// Dimensions, outermost first: `[rows, cols]`, each row contiguous.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements; `None` if it overflows.
    pub fn n_elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// Size in bytes; `None` if blocks do not divide a row or the size overflows.
    pub fn n_bytes(&self) -> Option<usize> {
        let (&cols, outer) = self.shape.split_last()?;
        outer.iter().try_fold(self.dtype.row_bytes(cols)?, |n, &d| n.checked_mul(d))
    }

    /// Elements of one row, the innermost dimension; 0 without dimensions.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Number of rows; a vector is one. `None` if it overflows.
    pub fn n_rows(&self) -> Option<usize> {
        let (_, outer) = self.shape.split_last()?;
        outer.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// Where the bytes of some rows lie among the tensor's; `None` if it has no such rows.
    pub fn byte_range(&self, rows: &Range<usize>) -> Option<Range<usize>> {
        let row_bytes = self.dtype.row_bytes(self.cols())?;
        let inside = rows.start <= rows.end && rows.end <= self.n_rows()?;
        let at = |row: usize| row.checked_mul(row_bytes);
        inside.then(|| Some(at(rows.start)?..at(rows.end)?)).flatten()
    }
}

/// A tensor and its bytes, little-endian, rows without padding.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Type and shape; `data.len()` is `info.n_bytes()`.
    pub info: TensorInfo,
    /// The stored bytes. No alignment is promised.
    pub data: SharedBytes,
}

/// A tensor that a checkpoint cannot give.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{file}: {tensor}: {message}")]
pub struct SourceError {
    /// The file or folder.
    pub file: String,
    /// The tensor, in the file's own words where it has them.
    pub tensor: String,
    /// What was expected and what was found.
    pub message: String,
}

/// A checkpoint, whatever its form: where `formats` (which never computes) and `model` (which never opens
/// a file) meet.
pub trait TensorSource: Send + Sync {
    /// The configuration, already validated.
    fn config(&self) -> &ModelConfig;

    /// Type and shape of a tensor; `None` if the checkpoint has none of that name.
    fn info(&self, id: WeightId) -> Option<TensorInfo>;

    /// The tensor itself: a view of the memory map where the form allows it, else a fresh copy.
    ///
    /// # Errors
    /// The tensor is missing, its bytes cannot be read, or it is of a type that is not supported.
    fn load(&self, id: WeightId) -> Result<Tensor, SourceError>;

    /// Whether [`TensorSource::load`] copies: such bytes count as memory, mapped ones as file cache.
    fn copies(&self, id: WeightId) -> bool;

    /// Whether what [`TensorSource::load`] gave is still what was opened: views of a map show what others write into
    /// its file. Cheap enough to ask after every pass of a network.
    ///
    /// # Errors
    /// A file has another length, or was written to since it was opened.
    fn check_unchanged(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Appends the stored bytes of some rows of a tensor to `out`; a vector is one row. For those who read a model
    /// once from front to back: a source that maps files lets go of the bytes it has copied.
    ///
    /// # Errors
    /// As [`TensorSource::load`]; rows that the tensor does not have.
    fn read_rows(
        &self,
        id: WeightId,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let tensor = self.load(id)?;
        let range = tensor.info.byte_range(&rows);
        let bytes = range.as_ref().and_then(|range| tensor.data.get(range.clone()));
        let bytes = bytes.ok_or_else(|| SourceError {
            file: String::new(),
            tensor: id.to_string(),
            message: format!("expected rows within {:?}, found {rows:?}", tensor.info.shape),
        })?;
        out.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_inside_their_parent() {
        let bytes = SharedBytes::new(vec![0u8, 1, 2, 3, 4]);
        let middle = bytes.slice(1..4).unwrap();
        assert_eq!(&*middle, &[1, 2, 3]);
        assert_eq!(&*middle.slice(1..3).unwrap(), &[2, 3]);
        assert!(middle.slice(0..4).is_none());
        assert!(middle.slice(1..usize::MAX).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
        let reversed = middle.slice(2..1);
        assert!(reversed.is_none());
    }

    #[test]
    fn sizes_do_not_overflow() {
        let info = |dtype, shape: &[usize]| TensorInfo { dtype, shape: shape.to_vec() };
        assert_eq!(info(DType::Q8_0, &[3, 64]).n_bytes(), Some(204));
        assert_eq!(info(DType::Q8_0, &[3, 60]).n_bytes(), None);
        assert_eq!(info(DType::F32, &[usize::MAX, 2]).n_bytes(), None);
        assert_eq!(info(DType::F32, &[]).n_bytes(), None);
    }

    #[test]
    fn rows_lie_inside_their_tensor() {
        let matrix = TensorInfo { dtype: DType::Q8_0, shape: vec![3, 64] };
        assert_eq!(matrix.byte_range(&(1..3)), Some(68..204));
        assert_eq!(matrix.byte_range(&(1..4)), None);
        let vector = TensorInfo { dtype: DType::F32, shape: vec![5] };
        assert_eq!((vector.n_rows(), vector.cols()), (Some(1), 5));
        assert_eq!(vector.byte_range(&(0..1)), Some(0..20));
    }
}
