//! Key–value metadata with typed access, as GGUF has it.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A metadata value. Integers keep their sign and width only as far as meaning needs it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer type.
    Unsigned(u64),
    /// Any signed integer type.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// A flat array of one type.
    Array(Array),
}

/// A flat array of metadata values.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Unsigned integers.
    Unsigned(Vec<u64>),
    /// Signed integers.
    Signed(Vec<i64>),
    /// Floats.
    Float(Vec<f64>),
    /// Booleans.
    Bool(Vec<bool>),
    /// Texts.
    Text(Vec<String>),
}

impl Value {
    /// What the value is, for errors.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned integer",
            Self::Signed(_) => "a signed integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Text(_) => "a string",
            Self::Array(Array::Unsigned(_) | Array::Signed(_)) => "an array of integers",
            Self::Array(Array::Float(_)) => "an array of floats",
            Self::Array(Array::Bool(_)) => "an array of booleans",
            Self::Array(Array::Text(_)) => "an array of strings",
        }
    }
}

/// The metadata of a file: keys in order, each once.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Adds a key.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where the key is there already.
    pub fn insert(&mut self, key: String, value: Value) -> Result<()> {
        if self.values.contains_key(&key) {
            return Err(Error::bad_file("the metadata key is there twice").at(key));
        }
        self.values.insert(key, value);
        Ok(())
    }

    /// The value of `key`, if there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A non-negative integer that fits in u32.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where the key holds something else. Likewise below.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer from 0 to 4294967295", |value| match *value {
            Value::Unsigned(value) => u32::try_from(value).ok(),
            Value::Signed(value) => u32::try_from(value).ok(),
            _ => None,
        })
    }

    /// A float.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a float", |value| match *value {
            Value::Float(value) => Some(value),
            _ => None,
        })
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a boolean", |value| match *value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::Text(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// An array of texts.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::Text(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// An array of floats.
    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>> {
        self.typed(key, "an array of floats", |value| match value {
            Value::Array(Array::Float(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// An array of integers, each in the range of i64.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Array(Array::Signed(values)) => Some(values.clone()),
            Value::Array(Array::Unsigned(values)) => {
                values.iter().map(|&value| i64::try_from(value).ok()).collect()
            }
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let refuse = || Error::bad_file(format!("{} where {wanted} belongs", value.type_name())).at(key);
        read(value).ok_or_else(refuse).map(Some)
    }
}
