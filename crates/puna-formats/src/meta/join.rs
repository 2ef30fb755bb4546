//! Joining a tensor's parts from all files.

use std::sync::Arc;

use puna_core::TensorInfo;

use super::names::Cut;
use crate::FormatError;
use crate::listed::Piece;
use crate::weights::{Bytes, Stored};

/// Joins the parts of one tensor, in the order of the files. `width` is the number of columns of an
/// embedding, by which its cut is recognised.
///
/// # Panics
/// When there is no part.
pub(super) fn join(mut parts: Vec<Piece>, cut: Cut, width: usize) -> Result<Stored, FormatError> {
    let first = &parts[0];
    for part in &parts[1..] {
        check_alike(first, part)?;
    }
    let cut = match cut {
        _ if parts.len() == 1 => Cut::Whole,
        Cut::Either if first.info.shape.last() == Some(&width) => Cut::Rows,
        Cut::Either => Cut::Columns,
        other => other,
    };
    match cut {
        Cut::Whole => {
            check_equal(&parts)?;
            Ok(parts.swap_remove(0).into_stored())
        }
        Cut::Rows => concatenate(parts, 0),
        Cut::Columns | Cut::Either => concatenate(parts, 1),
    }
}

/// Puts matrices of one shape below (axis 0) or beside (axis 1) each other.
fn concatenate(parts: Vec<Piece>, axis: usize) -> Result<Stored, FormatError> {
    let Piece { file, name, info, .. } = &parts[0];
    let (file, name, dtype) = (Arc::clone(file), name.clone(), info.dtype);
    let at_fault =
        |expected| FormatError::tensor(&file.name, &name, expected, format!("{:?}", info.shape));
    let &[_, cols] = &info.shape[..] else { return Err(at_fault("a matrix")) };
    let row_bytes = dtype.row_bytes(cols).ok_or_else(|| at_fault("rows of whole blocks"))?;
    let mut shape = info.shape.clone();
    shape[axis] = shape[axis].checked_mul(parts.len()).ok_or_else(|| at_fault("a sane shape"))?;
    let files = parts.iter().map(|part| Arc::clone(&part.file)).collect();
    let parts = parts.into_iter().map(|part| part.data).collect();
    let bytes = match axis {
        0 => Bytes::Rows { parts, files },
        _ => Bytes::Columns { parts, files, row_bytes },
    };
    Ok(Stored { file, name, info: TensorInfo { dtype, shape }, bytes })
}

fn check_alike(first: &Piece, part: &Piece) -> Result<(), FormatError> {
    if first.info == part.info {
        return Ok(());
    }
    let describe = |info: &TensorInfo| format!("type {}, shape {:?}", info.dtype, info.shape);
    let expected = format!("{} as in {}", describe(&first.info), first.file.name);
    Err(FormatError::tensor(&part.file.name, &part.name, expected, describe(&part.info)))
}

fn check_equal(parts: &[Piece]) -> Result<(), FormatError> {
    match parts.iter().find(|part| *part.data != *parts[0].data) {
        None => Ok(()),
        Some(other) => {
            let expected = format!("the same values as in {}", parts[0].file.name);
            Err(FormatError::tensor(&other.file.name, &other.name, expected, "others"))
        }
    }
}
