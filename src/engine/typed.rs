//! Answers of a Rust type: its schema holds the answer, and serde reads it.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};
use crate::text::Constraint;

use super::event::FinishReason;
use super::options::GenerateOptions;
use super::session::Session;

/// The farthest that a whole number without bounds of its own goes, either way: within 64 bits.
const FARTHEST: i64 = 9_000_000_000_000_000_000;

impl Session {
    /// Says `text` and takes the answer as a `T`: its JSON schema, which `schemars` derives, is the constraint, whatever
    /// `options` say of one. The conversation keeps both.
    ///
    /// # Errors
    /// As [`Self::generate`], and what ends the answer; `Unsupported` where a part of the schema cannot be kept;
    /// `ContextOverflow` where the answer was cut before it was whole; `Cancelled`.
    pub fn respond_as<T: DeserializeOwned + JsonSchema>(
        &mut self,
        text: impl Into<String>,
        options: &GenerateOptions,
    ) -> Result<T> {
        let constraint = Some(Constraint::JsonSchema(schema_of::<T>()));
        let finish = self.say(text, &GenerateOptions { constraint, ..options.clone() })?.finish()?;
        self.answered(finish.text.clone());
        match finish.reason {
            FinishReason::Stop => serde_json::from_str(&finish.text).map_err(|error| {
                Error::internal("an answer by the schema of a type is none of its values").caused_by(error)
            }),
            FinishReason::Cancelled => Err(Error::new(Kind::Cancelled, "the answer was cancelled")),
            _ => {
                let count = finish.tokens.len();
                let what = format!("the answer was cut after {count} tokens, before it was whole");
                Err(Error::new(Kind::ContextOverflow, what).hint("allow more tokens, or ask for less"))
            }
        }
    }
}

/// The schema of a type, with what only a reader of Rust knows: which of several forms it takes does not matter where one
/// is enough, sets forget what comes twice, and whole numbers have 64 bits.
fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    adapt(&mut schema);
    schema
}

fn adapt(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if !map.contains_key("anyOf")
                && let Some(options) = map.get("oneOf").filter(|options| options.is_array()).cloned()
            {
                map.shift_remove("oneOf");
                map.insert("anyOf".into(), options);
            }
            if map.get("uniqueItems") == Some(&Value::Bool(true)) {
                map.shift_remove("uniqueItems");
            }
            bound(map);
            map.values_mut().for_each(adapt);
        }
        Value::Array(list) => list.iter_mut().for_each(adapt),
        _ => {}
    }
}

fn bound(map: &mut Map<String, Value>) {
    let is_whole = map.get("type").is_some_and(|kind| match kind {
        Value::Array(kinds) => kinds.contains(&json!("integer")),
        kind => kind == "integer",
    });
    if is_whole {
        map.entry("maximum").or_insert(json!(FARTHEST));
        map.entry("minimum").or_insert(json!(-FARTHEST));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    enum Shape {
        Dot,
        Circle { radius: f32 },
        Path(Vec<(u64, i8)>),
        Named(BTreeMap<String, Option<Box<Shape>>>),
        Set(HashSet<u16>),
    }

    #[test]
    fn schemas_of_types_have_nothing_that_is_refused() {
        let schema = schema_of::<Shape>();
        let text = schema.to_string();
        assert!(!text.contains("oneOf") && !text.contains("uniqueItems"), "{text}");
        assert!(text.contains(&FARTHEST.to_string()) && text.contains("65535"), "{text}");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");
        let checkpoint = crate::format::Checkpoint::open(path).unwrap();
        let crate::format::Dialect::Gguf(metadata) = &checkpoint.dialect else { panic!("a GGUF") };
        let tokenizer = crate::text::Tokenizer::from_gguf(metadata).unwrap();
        let lexicon = crate::text::Lexicon::new(&tokenizer.into()).unwrap();
        let mut guide = lexicon.guide(&Constraint::JsonSchema(schema), false).unwrap();
        for (text, is_shape) in [
            ("\"Dot\"", true),
            ("{\"Circle\": {\"radius\": 1.5}}", true),
            ("{\"Path\": [[1, -3]]}", true),
            ("{\"Named\": {\"a\": null, \"b\": \"Dot\"}}", true),
            ("{\"Set\": [1, 1]}", true),
            ("{\"Path\": [[-1, 3]]}", false),
            ("{\"Set\": [70000]}", false),
            ("{\"Circle\": {}}", false),
            ("\"Line\"", false),
        ] {
            assert_eq!(guide.accepts(text.as_bytes()).unwrap(), is_shape, "{text}");
            assert_eq!(serde_json::from_str::<Shape>(text).is_ok(), is_shape, "{text}");
        }
    }
}
