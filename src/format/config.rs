//! JSON settings with typed access, as Hugging Face's folders have them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

use super::Files;

/// A JSON object. `null` is the same as absent.
#[derive(Clone, Debug, Default)]
pub struct Config(Map<String, Value>);

impl Config {
    /// Reads the JSON file at `path`, or `None` where there is no such file.
    ///
    /// # Errors
    /// [`Kind::BadFile`] where it is not a JSON object; [`Kind::Io`].
    pub fn read(path: &Path) -> Result<Option<Self>> {
        Self::read_with(&Files::default(), path)
    }

    /// As [`Self::read`]; `files` opens and remembers it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with(files: &Files, path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = files.optional(path)? else { return Ok(None) };
        Self::parse(&bytes).map(Some).map_err(|error| error.in_file(path))
    }

    /// Reads a JSON object.
    ///
    /// # Errors
    /// [`Kind::BadFile`] where it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map(Self)
            .map_err(|error| Error::bad_file("the file is not a JSON object").caused_by(error))
    }

    /// The value of `key`, if there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Keys and values in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys of `self`, and those of `defaults` that it does not have; its `null` is absent for good.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        Self(defaults.0.iter().chain(&self.0).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// With `value` for `key`, whatever it was before.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0.insert(key.to_owned(), value);
        self
    }

    /// Without some keys.
    #[must_use]
    pub fn without(&self, keys: &[&str]) -> Self {
        let kept = self.0.iter().filter(|(key, _)| !keys.contains(&key.as_str()));
        Self(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The file that [`Self::parse`] reads.
    pub fn to_json(&self) -> Vec<u8> {
        format!("{:#}\n", Value::Object(self.0.clone())).into_bytes()
    }

    /// The chat template of `tokenizer_config.json`: a text, or the default of a list of named texts.
    pub fn chat_template(&self) -> Option<String> {
        match self.get("chat_template")? {
            Value::String(template) => Some(template.clone()),
            Value::Array(named) => {
                let default = named.iter().find(|entry| entry["name"] == "default")?;
                default["template"].as_str().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// A non-negative integer that fits in u32.
    ///
    /// # Errors
    /// [`Kind::BadFile`] where the key holds something else. Likewise below.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer from 0 to 4294967295", |value| u32::try_from(value.as_u64()?).ok())
    }

    /// A number.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a boolean", Value::as_bool)
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// An object.
    pub fn object(&self, key: &str) -> Result<Option<Self>> {
        self.typed(key, "an object", |value| value.as_object().cloned().map(Self))
    }

    /// An array.
    pub fn array(&self, key: &str) -> Result<Option<&[Value]>> {
        self.typed(key, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let refuse = || Error::bad_file(format!("{} where {wanted} belongs", describe(value))).at(key);
        read(value).ok_or_else(refuse).map(Some)
    }
}

impl From<Map<String, Value>> for Config {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => format!("the number {value}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn types_are_checked_and_null_is_absent() {
        let config = Config::parse(br#"{"a": 1, "b": 1.5, "c": null, "d": -1, "e": "1"}"#).unwrap();
        assert_eq!(config.u32("a").unwrap(), Some(1));
        assert_eq!(config.float("a").unwrap(), Some(1.0));
        assert_eq!(config.float("b").unwrap(), Some(1.5));
        assert_eq!(config.u32("c").unwrap(), None);
        assert_eq!(config.u32("none").unwrap(), None);
        for key in ["b", "d", "e"] {
            let error = config.u32(key).unwrap_err();
            assert_eq!(error.kind(), Kind::BadFile);
            assert!(error.to_string().contains(&format!("({key})")), "{error}");
        }
    }

    #[test]
    fn nan_and_deep_nesting_are_not_json() {
        assert!(Config::parse(br#"{"eps": NaN}"#).is_err());
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Config::parse(deep.as_bytes()).is_err());
        assert!(Config::parse(b"[]").is_err());
    }
}
