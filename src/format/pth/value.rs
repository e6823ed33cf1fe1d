//! What a pickle may name and what it builds.

use safetensors::Dtype;

use crate::error::{Error, Result};

/// A value: what is small by itself, else a place in the arena.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Absent, a truth value or a fraction: nothing that a tensor is built from.
    Plain,
    Int(i64),
    Text(&'a str),
    Known(Known),
    /// A tuple or list in the arena.
    Sequence(usize),
    /// A dictionary in the arena.
    Map(usize),
    Storage(usize),
    View(usize),
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    /// `torch._utils._rebuild_tensor_v2` and, with a type of its own, `_v3`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch.Size`, a tuple.
    Size,
    /// A storage class or type: what its elements are.
    Elements(Dtype),
    /// `torch.storage.UntypedStorage`: bytes.
    Untyped,
}

/// Raw elements in an entry of the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    /// The name of the entry below `data/`.
    pub(super) key: &'a str,
    /// What the elements are; `None` where they are bytes that a view gives a type.
    pub(super) dtype: Option<Dtype>,
    /// How many.
    pub(super) count: u64,
}

/// A tensor: some elements of a storage.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) dtype: Dtype,
    /// The element of the storage that is the first of the tensor.
    pub(super) offset: u64,
    pub(super) dims: Vec<u64>,
    /// Elements of the storage from one index to the next, for each dimension.
    pub(super) strides: Vec<u64>,
}

impl Storage<'_> {
    /// The size of the storage, or `None` where it cannot be addressed.
    pub(super) fn bytes(&self) -> Option<u64> {
        let bits = self.dtype.map_or(8, |dtype| dtype.bitsize() as u64);
        Some(self.count.checked_mul(bits)? / 8)
    }
}

/// What a pickle has built.
#[derive(Debug, Default)]
pub(super) struct Built<'a> {
    pub(super) sequences: Vec<Vec<Value<'a>>>,
    pub(super) maps: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) views: Vec<View<'a>>,
}

impl<'a> Built<'a> {
    /// Keys and values of a dictionary, in their order.
    pub(super) fn map(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        if let Value::Map(index) = value { self.maps.get(index).map(Vec::as_slice) } else { None }
    }

    /// The tensor, if `value` is one.
    pub(super) fn view(&self, value: Value<'a>) -> Option<&View<'a>> {
        if let Value::View(index) = value { self.views.get(index) } else { None }
    }

    /// The items of a tuple or list.
    pub(super) fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        if let Value::Sequence(index) = value { self.sequences.get(index).map(Vec::as_slice) } else { None }
    }

    /// How many containers and tensors there are.
    pub(super) fn nodes(&self) -> usize {
        self.sequences.len() + self.maps.len() + self.storages.len() + self.views.len()
    }
}

/// What would work where a pickle is more than tensors.
pub(super) const SAVE_TENSORS: &str =
    "nothing in the file is run; save the state_dict alone, or convert it to safetensors";

impl Known {
    /// What `module.name` is.
    pub(super) fn named(module: &str, name: &str) -> Result<Self> {
        Ok(match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch.storage", "UntypedStorage") => Self::Untyped,
            ("torch", name) => Self::Elements(elements(name).ok_or_else(|| unknown(module, name))?),
            _ => return Err(unknown(module, name)),
        })
    }
}

/// What the storage class or type `name` of torch holds.
fn elements(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" | "float64" => Dtype::F64,
        "FloatStorage" | "float32" => Dtype::F32,
        "HalfStorage" | "float16" => Dtype::F16,
        "BFloat16Storage" | "bfloat16" => Dtype::BF16,
        "LongStorage" | "int64" => Dtype::I64,
        "IntStorage" | "int32" => Dtype::I32,
        "ShortStorage" | "int16" => Dtype::I16,
        "CharStorage" | "int8" => Dtype::I8,
        "ByteStorage" | "uint8" => Dtype::U8,
        "BoolStorage" | "bool" => Dtype::BOOL,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        _ => return None,
    })
}

fn unknown(module: &str, name: &str) -> Error {
    let name: String = format!("{module}.{name}").chars().take(80).collect();
    Error::unsupported(format!("the pickle asks for {name:?}, which is no tensor")).hint(SAVE_TENSORS)
}
