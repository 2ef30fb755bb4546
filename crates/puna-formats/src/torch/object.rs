//! The values a pickle may build, and the names it may use.

use puna_core::DType;

/// Index of an object in the machine's arena. Objects refer to each other by index, so a pickle that makes
/// cycles or very deep nests costs nothing to hold or to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

#[derive(Debug)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    /// An integer of more than 64 bits.
    LongInt,
    Str(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(StorageRef<'a>),
    Tensor(TensorRef<'a>),
}

impl Object<'_> {
    /// What the object is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Object::None => "None",
            Object::Bool(_) => "a truth value",
            Object::Int(_) | Object::LongInt => "an integer",
            Object::Float => "a float",
            Object::Str(_) => "a string",
            Object::Tuple(_) => "a tuple",
            Object::List(_) => "a list",
            Object::Dict(_) => "a dictionary",
            Object::Global(_) => "a function or class",
            Object::Storage(_) => "a storage",
            Object::Tensor(_) => "a tensor",
        }
    }
}

/// Everything that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch.FloatStorage` and its like.
    Storage(StorageType),
}

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch", _) => {
                let found = STORAGE_TYPES.iter().find(|kind| kind.name == name);
                found.copied().map(Self::Storage)
            }
            _ => None,
        }
    }
}

/// The element type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageType {
    pub(super) name: &'static str,
    pub(super) element_bytes: usize,
    /// `None` for types that no weight has.
    pub(super) dtype: Option<DType>,
}

const fn storage_type(
    name: &'static str,
    element_bytes: usize,
    dtype: Option<DType>,
) -> StorageType {
    StorageType { name, element_bytes, dtype }
}

const STORAGE_TYPES: [StorageType; 10] = [
    storage_type("FloatStorage", 4, Some(DType::F32)),
    storage_type("HalfStorage", 2, Some(DType::F16)),
    storage_type("BFloat16Storage", 2, Some(DType::BF16)),
    storage_type("DoubleStorage", 8, None),
    storage_type("LongStorage", 8, None),
    storage_type("IntStorage", 4, None),
    storage_type("ShortStorage", 2, None),
    storage_type("CharStorage", 1, None),
    storage_type("ByteStorage", 1, None),
    storage_type("BoolStorage", 1, None),
];

/// A storage that a pickle refers to: `n_elements` of a type, under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageRef<'a> {
    pub(super) kind: StorageType,
    pub(super) key: &'a str,
    pub(super) n_elements: usize,
}

/// A tensor: a strided window into a storage, all in elements.
#[derive(Clone, Debug)]
pub(super) struct TensorRef<'a> {
    pub(super) storage: StorageRef<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}
