//! A request's JSON object. Fields that nobody asks for are passed over; `null` is as good as nothing.

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// The fields of an object, and how they are called in refusals.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What stands before their names, `text.format.` for one.
    path: String,
}

/// The object that a body is.
///
/// # Errors
/// Where it is no JSON, or none with fields.
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Refusal::invalid("", "The body has to be a JSON object.")),
        Err(error) => Err(Refusal::invalid("", format!("The body is not valid JSON: {error}."))),
    }
}

impl<'a> Fields<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// How a field is called in refusals.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    pub(crate) fn wrong(&self, name: &str, due: &str) -> Refusal {
        let path = self.path(name);
        Refusal::invalid(&path, format!("`{path}` has to be {due}."))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.get(name).map(|value| value.as_str().ok_or_else(|| self.wrong(name, "a string"))).transpose()
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.get(name)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(name, "true or false")))
            .transpose()
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, Refusal> {
        let of = |value: &'a Value| {
            let map = value.as_object().ok_or_else(|| self.wrong(name, "an object"))?;
            Ok(Fields { map, path: format!("{}.", self.path(name)) })
        };
        self.get(name).map(of).transpose()
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Refusal> {
        let list = |value: &'a Value| {
            value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(name, "an array"))
        };
        self.get(name).map(list).transpose()
    }

    /// A number from `least` to `most`.
    pub(crate) fn number(&self, name: &str, least: f32, most: f32) -> Result<Option<f32>, Refusal> {
        let due = || self.wrong(name, &format!("a number from {least} to {most}"));
        let of = |value: &Value| {
            let number = value.as_f64().ok_or_else(due)? as f32;
            if (least..=most).contains(&number) { Ok(number) } else { Err(due()) }
        };
        self.get(name).map(of).transpose()
    }

    /// A whole number, none of those below `least`; one above 32 bits is the largest of them.
    pub(crate) fn count(&self, name: &str, least: u32) -> Result<Option<u32>, Refusal> {
        let due = || self.wrong(name, &format!("a whole number, at least {least}"));
        let of = |value: &Value| match value.as_u64() {
            Some(count) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
            // Some clients write 16.0.
            None => match value.as_f64() {
                Some(count) if count >= 0.0 && count.fract() == 0.0 => Ok(count as u32),
                _ => Err(due()),
            },
        };
        let count = self.get(name).map(of).transpose()?;
        if count.is_some_and(|count| count < least) { Err(due()) } else { Ok(count) }
    }

    /// Refuses each field that is there and is not one of its idle values.
    pub(crate) fn refuse(&self, names: &[(&str, &[&str])]) -> Result<(), Refusal> {
        for (name, idle) in names {
            if let Some(value) = self.get(name).filter(|value| !idle.contains(&value.to_string().as_str())) {
                let mut shown = value.to_string();
                if shown.len() > 40 {
                    let end = (0..=40).rev().find(|&at| shown.is_char_boundary(at)).unwrap_or(0);
                    shown.replace_range(end.., "…");
                }
                let path = self.path(name);
                return Err(Refusal::unsupported(
                    &path,
                    format!("`{path}` is not supported here, not as {shown}."),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        let map = parse(br#"{"a": 3, "b": null, "c": 1e12, "d": {"e": "x"}, "f": 16.0, "g": -1, "h": 1.5}"#)
            .unwrap();
        let fields = Fields::new(&map);
        assert_eq!(fields.count("a", 1).unwrap(), Some(3));
        assert_eq!((fields.count("b", 1).unwrap(), fields.count("z", 1).unwrap()), (None, None));
        assert_eq!(
            (fields.count("c", 0).unwrap(), fields.count("f", 0).unwrap()),
            (Some(u32::MAX), Some(16))
        );
        for (refused, param) in [
            (fields.count("a", 4).unwrap_err(), "a"),
            (fields.count("g", 0).unwrap_err(), "g"),
            (fields.count("h", 0).unwrap_err(), "h"),
            (fields.number("a", 0.0, 2.0).unwrap_err(), "a"),
            (fields.text("a").unwrap_err(), "a"),
            (fields.flag("a").unwrap_err(), "a"),
            (fields.object("d").unwrap().unwrap().count("e", 0).unwrap_err(), "d.e"),
            (fields.refuse(&[("a", &["2"])]).unwrap_err(), "a"),
        ] {
            assert_eq!(refused.to_json()["error"]["param"], param);
        }
        assert!(fields.refuse(&[("a", &["3"]), ("b", &[]), ("z", &[])]).is_ok());
        for body in ["", "{", "[]", "3", "{\"a\": 1e999}", "{\"a\": \"\u{0}\"}", &"[".repeat(500)] {
            assert_eq!(parse(body.as_bytes()).unwrap_err().status, 400, "{body}");
        }
        assert!(parse(b"{\"a\": \"\xff\"}").is_err());
    }
}
