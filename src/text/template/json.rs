//! JSON as Python's `json.dumps` writes it.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::limits::Budget;
use super::python::float;

/// How `json.dumps` lays out its text.
struct Layout {
    indent: Option<String>,
    item: String,
    key: String,
    sort: bool,
    ascii: bool,
}

/// Hugging Face's `tojson`: `json.dumps(value, ensure_ascii=False, indent, separators, sort_keys)`.
pub(super) fn tojson(state: &mut State, value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let sort: Option<bool> = kwargs.get("sort_keys")?;
    let ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(width) => match u8::try_from(width) {
            Ok(width) => Some(" ".repeat(width.into())),
            Err(_) => return Err(refuse("the indent is no number up to 255")),
        },
    };
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(refuse("separators are two texts")),
    };
    let layout = Layout { indent, item, key, sort: sort.unwrap_or(false), ascii: ascii.unwrap_or(false) };
    let mut out = String::new();
    Budget::of(state).meter(&mut out, |out| layout.write(out, &value, 0))?;
    Ok(out)
}

fn refuse(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"))
}

impl Layout {
    fn write(&self, out: &mut dyn Write, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.write_str("null")?,
            ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" })?,
            ValueKind::Number => out.write_str(&number(value))?,
            ValueKind::String => self.text(out, value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                out.write_char('[')?;
                let mut count = 0;
                for item in value.try_iter()? {
                    self.next(out, count, depth + 1)?;
                    self.write(out, &item, depth + 1)?;
                    count += 1;
                }
                self.close(out, ']', count, depth)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                out.write_char('{')?;
                for (i, key) in keys.iter().enumerate() {
                    self.next(out, i, depth + 1)?;
                    self.key(out, key)?;
                    out.write_str(&self.key)?;
                    self.write(out, &value.get_item(key)?, depth + 1)?;
                }
                self.close(out, '}', keys.len(), depth)?;
            }
            kind => return Err(refuse(&format!("{kind} is not JSON"))),
        }
        Ok(())
    }

    fn next(&self, out: &mut dyn Write, index: usize, depth: usize) -> fmt::Result {
        if index > 0 {
            out.write_str(&self.item)?;
        }
        self.new_line(out, depth)
    }

    fn close(&self, out: &mut dyn Write, bracket: char, count: usize, depth: usize) -> fmt::Result {
        if count > 0 {
            self.new_line(out, depth)?;
        }
        out.write_char(bracket)
    }

    fn new_line(&self, out: &mut dyn Write, depth: usize) -> fmt::Result {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.write_char('\n')?;
        (0..depth).try_for_each(|_| out.write_str(indent))
    }

    /// A key; those that are no text become one.
    fn key(&self, out: &mut dyn Write, key: &Value) -> Result<(), Error> {
        let text = match key.kind() {
            ValueKind::String => return Ok(self.text(out, key.as_str().unwrap_or_default())?),
            ValueKind::None => "null".to_owned(),
            ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
            ValueKind::Number => number(key),
            kind => return Err(refuse(&format!("a key is {kind}"))),
        };
        Ok(self.text(out, &text)?)
    }

    fn text(&self, out: &mut dyn Write, text: &str) -> fmt::Result {
        out.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '\u{8}' => out.write_str("\\b")?,
                '\u{c}' => out.write_str("\\f")?,
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}")?;
                    }
                }
                c => out.write_char(c)?,
            }
        }
        out.write_char('"')
    }
}

/// A number as Python writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(value) => float(value),
        Err(_) => value.to_string(),
    }
}
