//! Which JSON schemas can be kept. llguidance refuses keywords that it does not know how to keep where the schema's draft has
//! them; what a draft does not have it passes over, as the standard says. A schema's author wants what is written there, so
//! every keyword that says something of a value is refused here by name, whatever the draft, unless it is kept.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What is said of values and not kept.
const REFUSED: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "disallow",
    "divisibleBy",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "x-guidance",
];
const SCHEMAS: &[&str] = &["additionalItems", "additionalProperties", "items"];
const LISTS: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];
const MAPS: &[&str] = &["$defs", "definitions", "patternProperties", "properties"];
/// Bounds, and the direction in which they let more through.
const BOUNDS: &[(&str, f64)] =
    &[("exclusiveMaximum", 1.0), ("exclusiveMinimum", -1.0), ("maximum", 1.0), ("minimum", -1.0)];
/// The farthest bound.
const FARTHEST: f64 = 9.2e18;
/// The farthest bound where multiples are asked for.
const FARTHEST_MULTIPLE: f64 = 1e15;
/// Drafts that know `prefixItems`, by how their names begin.
const NEW: &str = "https://json-schema.org/draft/2020-12/";
/// Whole numbers up to here are exact in a float.
const EXACT: u64 = 1 << 53;
/// Schemas within schemas, at most: serde_json reads no deeper text either.
const MOST_DEPTH: usize = 128;

/// How JSON is written: without `\u`, so that a name has one spelling and none passes for another; with space between
/// tokens, but not without end.
fn spelling() -> Value {
    json!({"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}", "json_allowed_escapes": "nrbtf\\\""})
}

/// The schema as it is given to llguidance.
pub(in crate::text) fn checked(schema: &Value) -> Result<Value> {
    if deeper(schema, MOST_DEPTH) {
        return Err(
            Error::invalid("the JSON schema is nested too deep").hint(format!("{MOST_DEPTH} levels work"))
        );
    }
    let length = schema.to_string().len();
    if length > super::MOST_BYTES {
        let what = format!("the JSON schema has {length} bytes");
        return Err(Error::invalid(what).hint(format!("{} are the most that works", super::MOST_BYTES)));
    }
    let mut root = match schema {
        Value::Object(map) => map.clone(),
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err(Error::invalid("the JSON schema is false: nothing is valid by it")),
        _ => return Err(Error::invalid("the JSON schema is no object")),
    };
    let is_new = root.get("$schema").and_then(Value::as_str).is_none_or(|name| name.starts_with(NEW));
    let mut walk = Walk { is_new, seen: HashSet::new(), refs: Vec::new() };
    walk.object(&mut root, "#")?;
    let mut root = Value::Object(root);
    // What is referred to is a schema, wherever it stands.
    while let Some(to) = walk.refs.pop() {
        let Some(pointer) = to.strip_prefix('#').filter(|pointer| pointer.starts_with('/')) else { continue };
        if !walk.seen.contains(&to) {
            match root.pointer_mut(pointer) {
                Some(target) => walk.schema(target, &to)?,
                None => return Err(Error::invalid(format!("the JSON schema has no {to}")).at("$ref")),
            }
        }
    }
    if let Value::Object(root) = &mut root {
        root.insert("x-guidance".into(), spelling());
    }
    Ok(root)
}

/// A walk over all schemas of a schema.
struct Walk {
    /// `prefixItems` is known.
    is_new: bool,
    seen: HashSet<String>,
    refs: Vec<String>,
}

impl Walk {
    fn schema(&mut self, schema: &mut Value, at: &str) -> Result<()> {
        match schema {
            Value::Object(map) => self.object(map, at),
            Value::Bool(_) => Ok(()),
            _ => Err(Error::invalid("a JSON schema is neither an object nor true nor false").at(at)),
        }
    }

    fn object(&mut self, map: &mut Map<String, Value>, at: &str) -> Result<()> {
        if !self.seen.insert(at.to_owned()) {
            return Ok(());
        }
        strip(map);
        let refuse = |name: &str| {
            Err(Error::unsupported(format!("the JSON schema's keyword `{name}` is not supported"))
                .at(at)
                .hint("docs/answers.md lists what works"))
        };
        if let Some(name) = REFUSED.iter().find(|&&name| map.contains_key(name)) {
            return refuse(name);
        }
        if !self.is_new && map.contains_key("prefixItems") {
            return refuse("prefixItems");
        }
        if map.get("minProperties").is_some_and(|least| counts_names_twice(map, least)) {
            return refuse("minProperties");
        }
        self.numbers(map, at)?;
        let is_root = at == "#";
        let renames = ["$id", "id"].iter().any(|key| map.get(*key).is_some_and(Value::is_string));
        if renames && !is_root && map.values().any(refers) {
            return refuse("$id");
        }
        match map.get("$ref") {
            None => {}
            Some(Value::String(to)) if (to == "#" || to.starts_with("#/")) && !to.contains(['%', '~']) => {
                self.refs.push(to.clone());
            }
            Some(Value::String(to)) => {
                return Err(Error::unsupported(format!(
                    "the JSON schema's keyword `$ref` is not supported for {to:?}"
                ))
                .at(at)
                .hint("a `#/…` in the same schema without escapes would work"));
            }
            Some(_) => return Err(Error::invalid("a `$ref` is no text").at(at)),
        }
        for &key in SCHEMAS {
            if let Some(value) = map.get_mut(key).filter(|value| !value.is_array()) {
                self.schema(value, &format!("{at}/{key}"))?;
            }
        }
        for &key in LISTS {
            if let Some(Value::Array(list)) = map.get_mut(key) {
                for (i, value) in list.iter_mut().enumerate() {
                    self.schema(value, &format!("{at}/{key}/{i}"))?;
                }
            }
        }
        for &key in MAPS {
            if let Some(Value::Object(inner)) = map.get_mut(key) {
                for (name, value) in inner.iter_mut() {
                    self.schema(value, &format!("{at}/{key}/{name}"))?;
                }
            }
        }
        Ok(())
    }

    /// Numbers are floats to llguidance, and bounds 64 bits: a wider bound is drawn in, which lets nothing wrong through, and
    /// what cannot be is refused.
    fn numbers(&self, map: &mut Map<String, Value>, at: &str) -> Result<()> {
        let refuse = |key: &str, number: &Value| {
            let what = format!("the JSON schema's keyword `{key}` is not supported for {number}");
            Err(Error::unsupported(what).at(at).hint("numbers up to 2 to the 53rd would work"))
        };
        // Whether a float is a multiple is a matter of its last digit.
        let farthest = if map.contains_key("multipleOf") { FARTHEST_MULTIPLE } else { FARTHEST };
        if map.contains_key("multipleOf") {
            map.entry("maximum").or_insert(json!(farthest as i64));
            map.entry("minimum").or_insert(json!(-farthest as i64));
        }
        for &(key, sign) in BOUNDS {
            let Some(bound) = map.get_mut(key) else { continue };
            let outward = bound.as_f64().map_or(0.0, |value| value * sign);
            if outward < -farthest {
                return refuse(key, bound);
            }
            if outward > farthest {
                *bound = json!((farthest * sign) as i64);
            }
        }
        for key in ["const", "enum"] {
            if let Some(number) = map.get(key).and_then(inexact) {
                return refuse(key, number);
            }
        }
        Ok(())
    }
}

/// Takes out what says nothing.
fn strip(map: &mut Map<String, Value>) {
    let is_trivial = |value: &Value| match value {
        Value::Bool(is) => *is,
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if map.get("uniqueItems") == Some(&Value::Bool(false)) {
        map.shift_remove("uniqueItems");
    }
    if map.get("propertyNames") == Some(&json!({"type": "string"})) {
        map.shift_remove("propertyNames");
    }
    let idle = ["dependencies", "dependentRequired", "dependentSchemas", "propertyNames"];
    for key in idle.into_iter().chain(["unevaluatedItems", "unevaluatedProperties"]) {
        if map.get(key).is_some_and(is_trivial) {
            map.shift_remove(key);
        }
    }
    let lacks = |map: &Map<String, Value>, keys: &[&str]| keys.iter().all(|&key| !map.contains_key(key));
    if lacks(map, &["if"]) {
        map.shift_remove("then");
        map.shift_remove("else");
    } else if lacks(map, &["then", "else"]) {
        map.shift_remove("if");
    }
    if lacks(map, &["contains"]) {
        map.shift_remove("minContains");
        map.shift_remove("maxContains");
    }
    for key in ["$dynamicAnchor", "$recursiveAnchor", "$vocabulary"] {
        map.shift_remove(key);
    }
}

/// Whether two properties of one name could be taken for the two that `least` asks for. A grammar cannot tell that it has
/// said a name before.
fn counts_names_twice(map: &Map<String, Value>, least: &Value) -> bool {
    let required = map.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let is_open =
        map.contains_key("patternProperties") || map.get("additionalProperties") != Some(&Value::Bool(false));
    is_open && least.as_u64().is_some_and(|least| least > required + 1)
}

fn refers(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.contains_key("$ref") || map.values().any(refers),
        Value::Array(list) => list.iter().any(refers),
        _ => false,
    }
}

/// A number in it that no float is.
fn inexact(value: &Value) -> Option<&Value> {
    match value {
        Value::Number(number) => {
            let size = number.as_u64().or(number.as_i64().map(i64::unsigned_abs));
            size.is_some_and(|size| size > EXACT).then_some(value)
        }
        Value::Array(list) => list.iter().find_map(inexact),
        Value::Object(map) => map.values().find_map(inexact),
        _ => None,
    }
}

fn deeper(value: &Value, most: usize) -> bool {
    match value {
        Value::Array(list) => most == 0 || list.iter().any(|value| deeper(value, most - 1)),
        Value::Object(map) => most == 0 || map.values().any(|value| deeper(value, most - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_is_not_kept_is_refused_by_name_wherever_it_stands() {
        for name in REFUSED {
            let inner =
                json!({ *name: {"type": "integer"}, "if": {"type": "integer"}, "contains": {"minimum": 1} });
            let inner = match *name {
                "then" | "else" | "if" | "contains" | "minContains" | "maxContains" => inner,
                name => json!({ name: {"type": "integer"} }),
            };
            let places = [
                inner.clone(),
                json!({"properties": {"a": inner}}),
                json!({"items": {"anyOf": [true, inner]}}),
                json!({"$ref": "#/components/b", "components": {"b": inner}}),
                json!({"$schema": "http://json-schema.org/draft-04/schema#", "$defs": {"b": inner}}),
            ];
            for schema in places {
                let error = checked(&schema).unwrap_err();
                assert_eq!(error.kind(), Kind::Unsupported, "{schema}");
                assert!(error.to_string().contains('`'), "{error}");
            }
        }
        // As names of properties and as values they say nothing.
        let fine = json!({"properties": {"not": true, "if": {"const": {"not": 1}}}, "default": {"if": 1}, "uniqueItems": false});
        assert!(checked(&fine).is_ok());
    }

    #[test]
    fn what_llguidance_would_get_wrong_is_refused() {
        for schema in [
            json!({"const": 9007199254740993u64}),
            json!({"enum": [1, [{"a": -9007199254740994i64}]]}),
            json!({"minimum": 1e20}),
            json!({"minProperties": 2}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [true]}),
            json!({"$ref": "http://example.com/a.json"}),
            json!({"$ref": "#/a~1b"}),
            json!({"properties": {"a": {"$id": "b", "items": {"$ref": "#/c"}}}}),
        ] {
            assert_eq!(checked(&schema).unwrap_err().kind(), Kind::Unsupported, "{schema}");
        }
        for schema in
            [json!(false), json!(3), json!({"items": 3}), json!({"$ref": 3}), json!({"$ref": "#/a"})]
        {
            assert_eq!(checked(&schema).unwrap_err().kind(), Kind::InvalidArgument, "{schema}");
        }
        let closed = json!({"minProperties": 2, "additionalProperties": false, "properties": {"a": true}});
        assert!(checked(&closed).is_ok());
        let mut deep = json!(true);
        for _ in 0..200 {
            deep = json!({"items": deep});
        }
        assert_eq!(checked(&deep).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
