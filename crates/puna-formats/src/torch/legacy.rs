//! The form before PyTorch 1.6: pickles of a magic number, a protocol version, facts about the writer, the
//! dictionary itself and the list of storage keys; then each storage, an i64 length and its elements.

use std::collections::HashMap;

use puna_core::SharedBytes;

use super::machine::Machine;
use super::object::{Id, Object, StorageRef};
use super::storage::{check_len, view};
use crate::FormatError;
use crate::error::brief;
use crate::listed::Listed;

/// A pickle of 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const PROTOCOL_VERSION: i64 = 1001;

pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

pub(super) fn parse(file: &str, bytes: &SharedBytes) -> Result<Vec<Listed>, FormatError> {
    let mut machine = Machine::new(file, bytes);
    machine.cursor.take(MAGIC.len(), "magic")?;
    let version = machine.run()?;
    match machine.object(version) {
        Object::Int(PROTOCOL_VERSION) => {}
        other => return Err(machine.malformed("protocol version 1001", other.kind())),
    }
    let facts = machine.run()?;
    check_byte_order(file, &machine, facts)?;
    let top = machine.run()?;
    let keys = machine.run()?;
    let storages = storages(file, bytes, &mut machine, top, keys)?;
    let mut listed = Vec::new();
    for (name, tensor) in machine.tensors(top)? {
        let Some(storage) = storages.get(tensor.storage.key) else {
            let expected = format!("storage {}", brief(tensor.storage.key));
            return Err(FormatError::tensor(file, name, expected, "none"));
        };
        check_len(file, &tensor.storage, storage.len())?;
        listed.push(view(file, name, tensor, storage)?);
    }
    Ok(listed)
}

fn check_byte_order(file: &str, machine: &Machine<'_>, facts: Id) -> Result<(), FormatError> {
    let Object::Dict(facts) = machine.object(facts) else {
        return Err(machine.malformed("a dictionary", machine.object(facts).kind()));
    };
    let big_endian = facts.iter().any(|&(key, value)| {
        matches!(machine.object(key), Object::Str("little_endian"))
            && matches!(machine.object(value), Object::Bool(false))
    });
    if big_endian {
        return Err(FormatError::unsupported(file, "byte order", "little-endian", "big-endian"));
    }
    Ok(())
}

/// The bytes of each storage, in the order of `keys`. How long an element is, the tensors know.
fn storages<'a>(
    file: &str,
    bytes: &SharedBytes,
    machine: &mut Machine<'a>,
    top: Id,
    keys: Id,
) -> Result<HashMap<&'a str, SharedBytes>, FormatError> {
    let used = machine.tensors(top)?.into_iter().map(|(_, tensor)| tensor.storage);
    let used: HashMap<&str, StorageRef<'a>> = used.map(|s| (s.key, s)).collect();
    let keys = match machine.object(keys) {
        Object::List(keys) => keys.clone(),
        other => return Err(machine.malformed("a list of storage keys", other.kind())),
    };
    let mut storages = HashMap::new();
    for key in keys {
        let storage = match machine.object(key) {
            Object::Str(key) => used.get(key).copied(),
            other => return Err(machine.malformed("a storage key", other.kind())),
        };
        let Some(StorageRef { key, kind, .. }) = storage else {
            return Err(machine.malformed("storages of tensors only", "another"));
        };
        let cursor = &mut machine.cursor;
        let what = format!("storage {}", brief(key));
        let n_elements = cursor.count(&what, kind.element_bytes, usize::MAX)?;
        let start = cursor.pos();
        let n_bytes = n_elements.saturating_mul(kind.element_bytes);
        cursor.take(n_bytes, &what)?;
        let storage = bytes.slice(start..start + n_bytes);
        let storage = storage.expect("the cursor reads the same bytes");
        if storages.insert(key, storage).is_some() {
            return Err(FormatError::malformed(file, what, "one storage of this key", "another"));
        }
    }
    Ok(storages)
}
