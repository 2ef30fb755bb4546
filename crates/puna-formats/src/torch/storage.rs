//! From a tensor's description and its storage's bytes to the tensor.

use puna_core::SharedBytes;

use super::object::{StorageRef, TensorRef};
use crate::FormatError;
use crate::error::brief;
use crate::listed::Listed;

/// The tensor's bytes inside its storage, without a copy.
///
/// # Errors
/// It reaches beyond its storage, or its elements do not lie in order.
pub(super) fn view(
    file: &str,
    name: &str,
    tensor: &TensorRef<'_>,
    storage: &SharedBytes,
) -> Result<Listed, FormatError> {
    let TensorRef { storage: StorageRef { kind, .. }, offset, shape, strides } = tensor;
    if !is_contiguous(shape, strides) {
        let expected = "elements in row-major order";
        let found = format!("shape {shape:?} with strides {strides:?}");
        return Err(FormatError::tensor(file, name, expected, found));
    }
    let bytes_of = |n: usize| n.checked_mul(kind.element_bytes);
    let n_elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let start = bytes_of(*offset);
    let end = n_elements.and_then(|n| n.checked_add(*offset)).and_then(bytes_of);
    let data = start.zip(end).and_then(|(start, end)| storage.slice(start..end));
    let data = data.ok_or_else(|| {
        let expected = format!("a part of its storage of {} bytes", storage.len());
        let found = format!("shape {shape:?} at element {offset} of type {}", kind.name);
        FormatError::tensor(file, name, expected, found)
    })?;
    let dtype = kind.dtype.ok_or_else(|| kind.name.to_owned());
    Ok(Listed { name: name.to_owned(), dtype, shape: shape.clone(), data })
}

/// Whether each row follows the one before, which nothing does in a tensor without elements. The stride of a dimension of size 1 is never used.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1usize;
    for (&size, &stride) in shape.iter().zip(strides).rev() {
        if size != 1 && stride != expected {
            return false;
        }
        expected = expected.saturating_mul(size);
    }
    true
}

/// Checks that a storage has as many bytes as the pickle says.
pub(super) fn check_len(
    file: &str,
    storage: &StorageRef<'_>,
    n_bytes: usize,
) -> Result<(), FormatError> {
    let expected = storage.n_elements.checked_mul(storage.kind.element_bytes);
    if expected == Some(n_bytes) {
        return Ok(());
    }
    let what = format!("storage {}", brief(storage.key));
    let expected = format!("{} elements of {}", storage.n_elements, storage.kind.name);
    Err(FormatError::malformed(file, what, expected, format!("{n_bytes} bytes")))
}

#[cfg(test)]
mod tests {
    use super::super::object::Global;
    use super::*;

    /// A window of `shape` at element `offset` of a storage of four f16 with the bytes 0 to 7.
    fn window(offset: usize, shape: &[usize]) -> Result<Vec<u8>, String> {
        let Some(Global::Storage(kind)) = Global::named("torch", "HalfStorage") else {
            unreachable!("the type is known")
        };
        let storage = StorageRef { kind, key: "0", n_elements: 4 };
        let tensor = TensorRef { storage, offset, shape: shape.to_vec(), strides: vec![1] };
        let bytes = SharedBytes::new((0..8).collect::<Vec<u8>>());
        view("f", "t", &tensor, &bytes).map(|t| t.data.to_vec()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_tensor_is_a_window_into_its_storage() {
        assert_eq!(window(1, &[2]).unwrap(), [2, 3, 4, 5]);
        assert!(window(4, &[0]).unwrap().is_empty());
        let expected = "f: tensor t: expected a part of its storage of 8 bytes, \
                        found shape [2] at element 3 of type HalfStorage";
        assert_eq!(window(3, &[2]).unwrap_err(), expected);
        assert!(window(usize::MAX, &[2]).is_err());
        assert!(window(0, &[usize::MAX]).is_err());
    }

    #[test]
    fn rows_in_order_are_contiguous() {
        assert!(is_contiguous(&[2, 3], &[3, 1]));
        assert!(is_contiguous(&[1, 3], &[99, 1]));
        assert!(is_contiguous(&[0, 3], &[1, 0]));
        assert!(is_contiguous(&[], &[]));
        assert!(!is_contiguous(&[2, 3], &[1, 2]));
        assert!(!is_contiguous(&[2, 3], &[4, 1]));
    }
}
