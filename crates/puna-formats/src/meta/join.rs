//! Joining a tensor's parts from all files.

use std::sync::Arc;

use puna_core::{SharedBytes, TensorInfo};

use super::names::Cut;
use crate::FormatError;
use crate::weights::{Bytes, Stored};

/// Joins the parts of one tensor, in the order of the files. `width` is the number of columns of an
/// embedding, by which its cut is recognised.
pub(super) fn join(parts: Vec<Stored>, cut: Cut, width: usize) -> Result<Stored, FormatError> {
    let [first, rest @ ..] = &parts[..] else { unreachable!("a tensor has at least one part") };
    if rest.is_empty() {
        return Ok(parts.into_iter().next().expect("there is one"));
    }
    for part in rest {
        check_alike(first, part)?;
    }
    let cut = match cut {
        Cut::Either if first.info.shape.last() == Some(&width) => Cut::Rows,
        Cut::Either => Cut::Columns,
        other => other,
    };
    if cut == Cut::Whole {
        check_equal(&parts)?;
        return Ok(parts.into_iter().next().expect("there is one"));
    }
    let n_parts = parts.len();
    let &[rows, cols] = &first.info.shape[..] else {
        let found = format!("{:?}", first.info.shape);
        return Err(FormatError::tensor(&first.file.name, &first.name, "a matrix", found));
    };
    let dtype = first.info.dtype;
    let joined = if cut == Cut::Rows {
        rows.checked_mul(n_parts).map(|r| vec![r, cols])
    } else {
        cols.checked_mul(n_parts).map(|c| vec![rows, c])
    };
    let (Some(shape), Some(row_bytes)) = (joined, dtype.row_bytes(cols)) else {
        let found = format!("{:?}", first.info.shape);
        return Err(FormatError::tensor(&first.file.name, &first.name, "a sane shape", found));
    };
    let files = parts.iter().map(|part| Arc::clone(&part.file)).collect();
    let (file, name) = (Arc::clone(&first.file), first.name.clone());
    let views = parts.into_iter().map(view).collect();
    let bytes = match cut {
        Cut::Rows => Bytes::Rows { parts: views, files },
        _ => Bytes::Columns { parts: views, files, row_bytes },
    };
    Ok(Stored { file, name, info: TensorInfo { dtype, shape }, bytes })
}

fn view(part: Stored) -> SharedBytes {
    match part.bytes {
        Bytes::View(bytes) => bytes,
        _ => unreachable!("parts are listed as views"),
    }
}

fn check_alike(first: &Stored, part: &Stored) -> Result<(), FormatError> {
    if first.info == part.info {
        return Ok(());
    }
    let describe = |info: &TensorInfo| format!("type {}, shape {:?}", info.dtype, info.shape);
    let expected = format!("{} as in {}", describe(&first.info), first.file.name);
    Err(FormatError::tensor(&part.file.name, &part.name, expected, describe(&part.info)))
}

fn check_equal(parts: &[Stored]) -> Result<(), FormatError> {
    let bytes = |part: &Stored| match &part.bytes {
        Bytes::View(bytes) => bytes.clone(),
        _ => unreachable!("parts are listed as views"),
    };
    let first = bytes(&parts[0]);
    match parts.iter().find(|part| *bytes(part) != *first) {
        None => Ok(()),
        Some(other) => {
            let expected = format!("the same values as in {}", parts[0].file.name);
            Err(FormatError::tensor(&other.file.name, &other.name, expected, "others"))
        }
    }
}
