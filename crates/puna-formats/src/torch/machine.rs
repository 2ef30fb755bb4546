//! The restricted pickle machine.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use super::object::{Global, Id, Object, StorageRef, TensorRef};
use super::opcode as op;
use crate::FormatError;
use crate::cursor::Cursor;
use crate::error::brief;

/// Bytes of one pickle; that of the largest Llama 2 has some 100,000.
pub const MAX_PICKLE_BYTES: usize = 1 << 24;
/// Objects that all pickles of a file may build, and entries on the stack and in the memo.
pub const MAX_OBJECTS: usize = 1 << 20;
/// Bytes of a tensor's name.
const MAX_NAME_BYTES: usize = 1024;
/// Dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// Arguments of the calls that are known, and some more that newer versions may add.
const MAX_ARGUMENTS: usize = 16;
/// Newest pickle protocol known.
const NEWEST_PROTOCOL: u8 = 5;

/// Runs pickles that lie one after the other in some bytes.
pub(super) struct Machine<'a> {
    file: &'a str,
    pub(super) cursor: Cursor<'a>,
    arena: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        Self {
            file,
            cursor: Cursor::new(file, bytes),
            arena: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    pub(super) fn object(&self, id: Id) -> &Object<'a> {
        &self.arena[id.0 as usize]
    }

    /// Runs one pickle to its end and returns what it built.
    pub(super) fn run(&mut self) -> Result<Id, FormatError> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        let start = self.cursor.pos();
        loop {
            let opcode = self.cursor.u8("pickle")?;
            if opcode == op::STOP {
                return self.pop();
            }
            self.step(opcode)?;
            let size = self.arena.len().max(self.stack.len()).max(self.marks.len());
            if size.max(self.memo.len()) > MAX_OBJECTS {
                return Err(self.malformed(format!("at most {MAX_OBJECTS} objects"), "more"));
            }
            if self.cursor.pos() - start > MAX_PICKLE_BYTES {
                return Err(self.malformed(format!("at most {MAX_PICKLE_BYTES} bytes"), "more"));
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), FormatError> {
        match opcode {
            op::PROTO => self.protocol(),
            op::FRAME => self.cursor.u64("frame length").map(drop),
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => self.pop().map(drop),
            op::POP_MARK => self.pop_mark().map(drop),
            op::NONE => self.push(Object::None),
            op::NEW_TRUE => self.push(Object::Bool(true)),
            op::NEW_FALSE => self.push(Object::Bool(false)),
            op::BIN_INT | op::BIN_INT1 | op::BIN_INT2 | op::LONG1 => self.integer(opcode),
            op::BIN_FLOAT => {
                self.cursor.take(8, "float")?;
                self.push(Object::Float)
            }
            op::BIN_UNICODE | op::SHORT_BIN_UNICODE => self.string(opcode),
            op::EMPTY_TUPLE => self.push(Object::Tuple(Vec::new())),
            op::TUPLE1 => self.tuple_of(1),
            op::TUPLE2 => self.tuple_of(2),
            op::TUPLE3 => self.tuple_of(3),
            op::TUPLE => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items))
            }
            op::EMPTY_LIST => self.push(Object::List(Vec::new())),
            op::APPEND => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            op::APPENDS => {
                let items = self.pop_mark()?;
                self.append(items)
            }
            op::EMPTY_DICT => self.push(Object::Dict(Vec::new())),
            op::SET_ITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])
            }
            op::SET_ITEMS => {
                let items = self.pop_mark()?;
                self.set_items(&items)
            }
            op::BIN_PUT | op::LONG_BIN_PUT | op::MEMOIZE => self.put(opcode),
            op::BIN_GET | op::LONG_BIN_GET => self.get(opcode),
            op::GLOBAL => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)
            }
            op::STACK_GLOBAL => {
                let name = self.pop_string()?;
                let module = self.pop_string()?;
                self.global(module, name)
            }
            op::BIN_PERS_ID => self.persistent(),
            op::REDUCE => self.reduce(),
            op::BUILD => self.build(),
            other => Err(FormatError::unsupported(
                self.file,
                self.place(),
                "dictionaries of tensors",
                format!("instruction 0x{other:02x}"),
            )),
        }
    }

    fn place(&self) -> String {
        format!("pickle, before byte {}", self.cursor.pos())
    }

    pub(super) fn malformed(&self, expected: impl Display, found: impl Display) -> FormatError {
        FormatError::malformed(self.file, self.place(), expected, found)
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), FormatError> {
        // The limit on objects is far below u32, and checked after every instruction.
        self.stack.push(Id(self.arena.len() as u32));
        self.arena.push(object);
        Ok(())
    }

    /// Pops a value, which must lie above the last mark.
    fn pop(&mut self) -> Result<Id, FormatError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.malformed("a value on the stack", "none"));
        }
        Ok(self.stack.pop().expect("the stack is higher than its floor"))
    }

    /// Pops everything above the last mark, and the mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, FormatError> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.malformed("a mark on the stack", "none")),
        }
    }

    fn top(&self) -> Result<Id, FormatError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > floor);
        top.copied().ok_or_else(|| self.malformed("a value on the stack", "none"))
    }

    fn pop_string(&mut self) -> Result<&'a str, FormatError> {
        let id = self.pop()?;
        match *self.object(id) {
            Object::Str(string) => Ok(string),
            ref other => Err(self.malformed("a string", other.kind())),
        }
    }

    fn protocol(&mut self) -> Result<(), FormatError> {
        let protocol = self.cursor.u8("pickle protocol")?;
        if protocol <= NEWEST_PROTOCOL {
            return Ok(());
        }
        let expected = format!("protocols up to {NEWEST_PROTOCOL}");
        Err(FormatError::unsupported(self.file, "pickle protocol", expected, protocol))
    }

    fn integer(&mut self, opcode: u8) -> Result<(), FormatError> {
        let what = "integer";
        let value = match opcode {
            op::BIN_INT => i64::from(self.cursor.i32(what)?),
            op::BIN_INT1 => i64::from(self.cursor.u8(what)?),
            op::BIN_INT2 => i64::from(u16::from_le_bytes(self.cursor.array(what)?)),
            _ => {
                let len = usize::from(self.cursor.u8(what)?);
                let bytes = self.cursor.take(len, what)?;
                if len > 8 {
                    return self.push(Object::LongInt);
                }
                // Two's complement of any length: the last byte has the sign.
                let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
                let mut extended = [if negative { 0xff } else { 0 }; 8];
                extended[..len].copy_from_slice(bytes);
                i64::from_le_bytes(extended)
            }
        };
        self.push(Object::Int(value))
    }

    fn string(&mut self, opcode: u8) -> Result<(), FormatError> {
        let len = match opcode {
            op::SHORT_BIN_UNICODE => usize::from(self.cursor.u8("string")?),
            _ => self.cursor.u32("string")? as usize,
        };
        let bytes = self.cursor.take(len, "string")?;
        let string = self.utf8(bytes)?;
        self.push(Object::Str(string))
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, FormatError> {
        std::str::from_utf8(bytes).map_err(|e| self.malformed("UTF-8", e))
    }

    /// The rest of a line, without its end.
    fn line(&mut self) -> Result<&'a str, FormatError> {
        let rest = self.cursor.rest();
        let Some(len) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.malformed("a line", "no end of line"));
        };
        let line = self.cursor.take(len + 1, "line")?;
        self.utf8(&line[..len])
    }

    fn tuple_of(&mut self, n: usize) -> Result<(), FormatError> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Object::Tuple(items))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), FormatError> {
        let list = self.top()?;
        match &mut self.arena[list.0 as usize] {
            Object::List(list) => {
                list.extend(items);
                Ok(())
            }
            other => {
                let kind = other.kind();
                Err(self.malformed("a list to append to", kind))
            }
        }
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), FormatError> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.arena[dict.0 as usize] {
            Object::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            other => {
                let kind = other.kind();
                Err(self.malformed("a dictionary to add pairs to", kind))
            }
        }
    }

    fn put(&mut self, opcode: u8) -> Result<(), FormatError> {
        let slot = match opcode {
            op::BIN_PUT => u32::from(self.cursor.u8("memo slot")?),
            op::LONG_BIN_PUT => self.cursor.u32("memo slot")?,
            _ => self.memo.len() as u32,
        };
        let id = self.top()?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), FormatError> {
        let slot = match opcode {
            op::BIN_GET => u32::from(self.cursor.u8("memo slot")?),
            _ => self.cursor.u32("memo slot")?,
        };
        match self.memo.get(&slot) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => Err(self.malformed(format!("memo slot {slot}"), "nothing in it")),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), FormatError> {
        match Global::named(module, name) {
            Some(global) => self.push(Object::Global(global)),
            None => Err(FormatError::unsupported(
                self.file,
                self.place(),
                "dictionaries of tensors; no code is run from model files",
                format!("{}.{}", brief(module), brief(name)),
            )),
        }
    }

    fn pop_tuple(&mut self, what: &str) -> Result<Vec<Id>, FormatError> {
        let id = self.pop()?;
        match self.object(id) {
            Object::Tuple(items) if items.len() <= MAX_ARGUMENTS => Ok(items.clone()),
            other => {
                let expected = format!("a tuple of at most {MAX_ARGUMENTS}, {what}");
                Err(self.malformed(expected, other.kind()))
            }
        }
    }

    /// `('storage', type, key, location, n_elements)`, in old files with a sixth element for views.
    fn persistent(&mut self) -> Result<(), FormatError> {
        let items = self.pop_tuple("naming a storage")?;
        let objects: Vec<&Object<'a>> = items.iter().map(|&id| self.object(id)).collect();
        let storage = match objects[..] {
            [
                Object::Str("storage"),
                Object::Global(Global::Storage(kind)),
                Object::Str(key),
                Object::Str(_),
                Object::Int(n),
            ]
            | [
                Object::Str("storage"),
                Object::Global(Global::Storage(kind)),
                Object::Str(key),
                Object::Str(_),
                Object::Int(n),
                Object::None,
            ] => usize::try_from(*n).ok().map(|n_elements| StorageRef {
                kind: *kind,
                key,
                n_elements,
            }),
            _ => None,
        };
        match storage {
            Some(storage) => self.push(Object::Storage(storage)),
            None => {
                let expected = "('storage', type, key, location, number of elements)";
                let kinds: Vec<_> = objects.iter().map(|object| object.kind()).collect();
                Err(self.malformed(expected, format!("({})", kinds.join(", "))))
            }
        }
    }

    fn reduce(&mut self) -> Result<(), FormatError> {
        let arguments = self.pop_tuple("arguments")?;
        let callee = self.pop()?;
        match (self.object(callee), &arguments[..]) {
            (Object::Global(Global::OrderedDict), []) => self.push(Object::Dict(Vec::new())),
            (Object::Global(Global::RebuildParameter), [tensor, ..])
                if matches!(self.object(*tensor), Object::Tensor(_)) =>
            {
                self.stack.push(*tensor);
                Ok(())
            }
            (Object::Global(Global::RebuildTensor), [storage, offset, shape, strides, ..]) => {
                let tensor = self.rebuild([*storage, *offset, *shape, *strides]);
                match tensor {
                    Some(tensor) => self.push(Object::Tensor(tensor)),
                    None => {
                        let expected = "a storage, an offset, a shape and strides of one length";
                        Err(self.malformed(expected, "other arguments"))
                    }
                }
            }
            (callee, _) => {
                let found = format!("{} called with {} arguments", callee.kind(), arguments.len());
                Err(self.malformed("a tensor or a dictionary to be built", found))
            }
        }
    }

    fn rebuild(&self, [storage, offset, shape, strides]: [Id; 4]) -> Option<TensorRef<'a>> {
        let Object::Storage(storage) = *self.object(storage) else { return None };
        let offset = self.size(offset)?;
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        (shape.len() == strides.len()).then_some(TensorRef { storage, offset, shape, strides })
    }

    fn size(&self, id: Id) -> Option<usize> {
        match *self.object(id) {
            Object::Int(n) => usize::try_from(n).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match self.object(id) {
            Object::Tuple(items) if items.len() <= MAX_DIMS => {
                items.iter().map(|&id| self.size(id)).collect()
            }
            _ => None,
        }
    }

    /// Attributes of a dictionary (`_metadata` of a state dictionary) are dropped.
    fn build(&mut self) -> Result<(), FormatError> {
        self.pop()?;
        let object = self.top()?;
        match self.object(object) {
            Object::Dict(_) => Ok(()),
            other => Err(self.malformed("a dictionary to give attributes to", other.kind())),
        }
    }

    /// The entries of a dictionary of tensors.
    pub(super) fn tensors(&self, top: Id) -> Result<Vec<(&'a str, &TensorRef<'a>)>, FormatError> {
        let Object::Dict(entries) = self.object(top) else {
            let found = self.object(top).kind();
            return Err(FormatError::malformed(
                self.file,
                "content",
                "a dictionary of tensors",
                found,
            ));
        };
        let mut tensors = Vec::with_capacity(entries.len());
        let mut seen = HashSet::with_capacity(entries.len());
        let at_fault = |what: &str, expected: &str, found: &str| {
            FormatError::malformed(self.file, what, expected, found)
        };
        for &(key, value) in entries {
            let name = match *self.object(key) {
                Object::Str(name) if name.len() <= MAX_NAME_BYTES => name,
                Object::Str(_) => {
                    let expected = format!("at most {MAX_NAME_BYTES} bytes");
                    return Err(at_fault("name of a tensor", &expected, "more"));
                }
                ref other => return Err(at_fault("name of a tensor", "a string", other.kind())),
            };
            let what = format!("entry {}", brief(name));
            match self.object(value) {
                Object::Tensor(_) if !seen.insert(name) => {
                    return Err(at_fault(&what, "one tensor of this name", "a second one"));
                }
                Object::Tensor(tensor) => tensors.push((name, tensor)),
                other => return Err(at_fault(&what, "a tensor", other.kind())),
            }
        }
        Ok(tensors)
    }
}
