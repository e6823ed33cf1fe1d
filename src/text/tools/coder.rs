//! Qwen3-Coder's calls, in tags, with values as plain text:
//!
//! ```text
//! <function=name>
//! <parameter=key>
//! value
//! </parameter>
//! </function>
//! ```

use serde_json::{Map, Value};

use super::Tool;

const FUNCTION: (&str, &str) = ("<function=", "</function>");
const PARAMETER: (&str, &str) = ("<parameter=", "</parameter>");

/// Name and arguments of what stands between the marks, or `None` where it is no call. What kind a value is of, the schema says.
pub(super) fn read(text: &str, tools: &[Tool]) -> Option<(String, Map<String, Value>)> {
    let (name, rest) = text.trim().strip_prefix(FUNCTION.0)?.split_once('>')?;
    let mut rest = rest.trim().strip_suffix(FUNCTION.1)?.trim();
    let name = name.trim();
    let tool = tools.iter().find(|tool| tool.name == name);
    let properties = tool.and_then(|tool| tool.parameters.get("properties")?.as_object());
    let mut arguments = Map::new();
    while !rest.is_empty() {
        let (key, behind) = rest.strip_prefix(PARAMETER.0)?.split_once('>')?;
        let (value, behind) = behind.split_once(PARAMETER.1)?;
        let key = key.trim();
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let schema = properties.and_then(|properties| properties.get(key));
        arguments.insert(key.to_owned(), typed(value, schema));
        rest = behind.trim_start();
    }
    (!name.is_empty()).then(|| (name.to_owned(), arguments))
}

/// Whether values that a schema is of are all texts, as far as it says of what kind they are.
pub(super) fn is_text(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().all(|kind| kind == "string"),
        _ => {
            let listed = schema.get("enum").and_then(Value::as_array);
            match listed.map(Vec::as_slice).or_else(|| schema.get("const").map(std::slice::from_ref)) {
                Some(values) => values.iter().all(Value::is_string),
                None => !["$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| schema.get(key).is_some()),
            }
        }
    }
}

/// A text as a value: JSON, where the schema wants something other than text and it is some.
fn typed(text: &str, schema: Option<&Value>) -> Value {
    if schema.is_none_or(is_text) {
        return text.into();
    }
    // As Python writes them, which the template does too.
    match text.trim() {
        "True" => true.into(),
        "False" => false.into(),
        "None" => Value::Null,
        trimmed => serde_json::from_str(trimmed).unwrap_or_else(|_| text.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tools() -> Vec<Tool> {
        let parameters = json!({"properties": {
            "text": {"type": "string"}, "count": {"type": "integer"}, "ok": {"type": "boolean"},
            "list": {"type": "array"}, "unit": {"enum": ["1", "2"]}, "any": {"anyOf": [{"type": "null"}, {"type": "number"}]}
        }});
        vec![Tool { name: "f".into(), description: String::new(), parameters }]
    }

    #[test]
    fn values_are_of_the_kind_that_the_schema_says() {
        let parameter = |key: &str, value: &str| format!("<parameter={key}>\n{value}\n</parameter>\n");
        let said = [
            ("text", "12 < 13\n\n{\"a\": 1}"),
            ("count", "12"),
            ("ok", "True"),
            ("list", "[1, \"a\"]"),
            ("unit", "1"),
            ("any", "None"),
            ("other", "3"),
        ];
        let said: String = said.iter().map(|(key, value)| parameter(key, value)).collect();
        let (name, arguments) = read(&format!("\n<function=f>\n{said}</function>\n"), &tools()).unwrap();
        let due = json!({"text": "12 < 13\n\n{\"a\": 1}", "count": 12, "ok": true, "list": [1, "a"], "unit": "1",
            "any": null, "other": "3"});
        assert_eq!((name.as_str(), Value::Object(arguments)), ("f", due));
        // What is not of its kind is what was said; whether that is valid is for the tool to say.
        let (_, arguments) =
            read("<function=f><parameter=count>many</parameter></function>", &tools()).unwrap();
        assert_eq!(arguments["count"], "many");
        assert_eq!(read("<function=now></function>", &[]).unwrap(), ("now".into(), Map::new()));
        for wrong in [
            "",
            "f",
            "<function=f",
            "<function=>x</function>",
            "<function=></function>",
            "<function=f>",
            "<function=f>x</function>",
            "<function=f><parameter=a>1</function>",
            "<function=f><parameter=a</function>",
            "<function=f></function>x",
        ] {
            assert!(read(wrong, &tools()).is_none(), "{wrong}");
        }
    }
}
