//! FunctionGemma's calls, `call:name{key:<escape>text<escape>,other:12,list:[1,2]}`, and Gemma 4's, with another mark around text.

use serde_json::{Map, Value};

/// Values in values, at most.
const MOST_DEPTH: u32 = 64;

/// Name and arguments of what stands between the marks, or `None` where it is no call. `escape` stands around text.
pub(super) fn read(text: &str, escape: &str) -> Option<(String, Map<String, Value>)> {
    let text = text.trim().strip_prefix("call:")?;
    let (name, rest) = text.split_at(text.find('{')?);
    let mut reader = Reader { rest, escape };
    let arguments = reader.object(0)?;
    let is_all = reader.rest.trim().is_empty();
    (is_all && !name.trim().is_empty()).then(|| (name.trim().to_owned(), arguments))
}

struct Reader<'a> {
    rest: &'a str,
    escape: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, what: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn until(&mut self, ends: impl Fn(char) -> bool) -> Option<&'a str> {
        let (text, rest) = self.rest.split_at(self.rest.find(ends)?);
        self.rest = rest;
        Some(text)
    }

    fn object(&mut self, depth: u32) -> Option<Map<String, Value>> {
        let mut object = Map::new();
        if depth > MOST_DEPTH || !self.take("{") {
            return None;
        }
        while !self.take("}") {
            let key = match self.take(self.escape) {
                true => self.escaped()?,
                false => self.until(|c| c == ':')?.trim().to_owned(),
            };
            if !self.take(":") {
                return None;
            }
            object.insert(key, self.value(depth + 1)?);
            if !self.take(",") && !self.rest.trim_start().starts_with('}') {
                return None;
            }
        }
        Some(object)
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if self.take(self.escape) {
            return self.escaped().map(Value::from);
        }
        match self.rest.trim_start().chars().next()? {
            '{' => self.object(depth).map(Value::Object),
            '[' => {
                self.take("[");
                let mut list = Vec::new();
                while !self.take("]") {
                    if depth > MOST_DEPTH {
                        return None;
                    }
                    list.push(self.value(depth + 1)?);
                    if !self.take(",") && !self.rest.trim_start().starts_with(']') {
                        return None;
                    }
                }
                Some(Value::Array(list))
            }
            _ => {
                let word = self.until(|c| matches!(c, ',' | '}' | ']'))?.trim();
                Some(serde_json::from_str(word).unwrap_or_else(|_| word.into()))
            }
        }
    }

    fn escaped(&mut self) -> Option<String> {
        let (text, rest) = self.rest.split_once(self.escape)?;
        self.rest = rest;
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_every_kind() {
        let (name, arguments) = read(
            "call:get_weather{city:<escape>São, {Paulo}<escape>,days:3,ok:true,at:[1,{a:<escape>b<escape>}],unit:celsius}",
            "<escape>",
        )
        .unwrap();
        assert_eq!(name, "get_weather");
        let due =
            json!({"city": "São, {Paulo}", "days": 3, "ok": true, "at": [1, {"a": "b"}], "unit": "celsius"});
        assert_eq!(Value::Object(arguments), due);
        assert_eq!(read("call:now{}", "<escape>").unwrap(), ("now".into(), Map::new()));
        let (_, arguments) = read("call:a{b:<|\"|>c}<|\"|>}", "<|\"|>").unwrap();
        assert_eq!(Value::Object(arguments), json!({"b": "c}"}));
        let deep = format!("call:a{{b:{}", "[".repeat(10_000));
        for wrong in
            ["", "call:", "call:{}", "call:a{", "call:a{b}", "call:a{b:1", "call:a{b:1}x", "a{}", &deep]
        {
            assert!(read(wrong, "<escape>").is_none(), "{wrong:.20}");
        }
    }
}
