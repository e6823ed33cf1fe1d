//! Where Jinja2, being Python, answers otherwise than minijinja.

use minijinja::value::{Kwargs, Object, ObjectRepr, ValueKind};
use minijinja::{Environment, Error, Value};

/// Puts the answers in place.
pub(super) fn install(environment: &mut Environment) {
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_filter("indent", indent);
}

/// Whether `iter` takes the value. None is no empty list.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Whether the value has a length and items. A text has, and a map.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Undefined | ValueKind::String | ValueKind::Bytes | ValueKind::Seq | ValueKind::Map
    )
}

/// Jinja2's `indent(width=4, first=False, blank=False)`: a newline at the end stays.
fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = width.map_or_else(|| kwargs.get("width"), |width| Ok(Some(width)))?;
    let first = first.map_or_else(|| kwargs.get("first"), |first| Ok(Some(first)))?;
    let blank = blank.map_or_else(|| kwargs.get("blank"), |blank| Ok(Some(blank)))?;
    kwargs.assert_all_used()?;
    let indention = match width {
        None => "    ".to_owned(),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(width)?),
        },
    };
    let mut out = String::new();
    for (i, line) in lines(text).enumerate() {
        let indented = if i == 0 { first == Some(true) } else { blank == Some(true) || !line.is_empty() };
        if i > 0 {
            out.push('\n');
        }
        if indented {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// `(text + "\n").splitlines()`.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let ends = |c| {
            matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
        };
        let Some(at) = text.find(ends) else {
            rest = None;
            return Some(text);
        };
        let (line, end) = text.split_at(at);
        let length = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(0, char::len_utf8) };
        rest = Some(&end[length..]);
        Some(line)
    })
}

/// The attribute of a map that has the name of a method of `dict`, where Python finds the method: there
/// `{"items": 1}.items` is no number.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    let is_dict = value.kind() == ValueKind::Map
        && value.as_object().is_some_and(|object| !object.type_name().ends_with("::Namespace"));
    if is_dict { Ok(Value::from_object(Method)) } else { value.get_attr(name) }
}

/// A bound method that nobody called. It has no attributes and no items.
#[derive(Debug)]
struct Method;

impl Object for Method {
    fn repr(self: &std::sync::Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// `repr` of a float: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-1.25e300, "-1.25e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn splitlines() {
        let cases: [(&str, &[&str]); 5] = [
            ("", &[""]),
            ("a", &["a"]),
            ("a\n", &["a", ""]),
            ("a\r\nb\rc\u{2028}d", &["a", "b", "c", "d"]),
            ("\n\n", &["", "", ""]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines(text).collect::<Vec<_>>(), expected);
        }
    }
}
