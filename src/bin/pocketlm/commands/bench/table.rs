//! How rows are printed: as a table for people as they come, or for programs.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::output;

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Style {
    /// A table in Markdown.
    Md,
    /// A line of names, a line for each row.
    Csv,
    /// An array of objects.
    Json,
    /// An object on each line.
    Jsonl,
}

/// A column of the table for people.
pub(super) struct Column<T: 'static> {
    pub(super) name: &'static str,
    pub(super) width: usize,
    pub(super) cell: fn(&T) -> String,
}

/// Rows on their way to stdout.
pub(super) struct Table<T: 'static> {
    style: Option<Style>,
    columns: &'static [Column<T>],
    rows: Vec<T>,
}

impl<T: Serialize> Table<T> {
    /// An empty table; without a style rows are only kept.
    pub(super) fn new(style: Option<Style>, columns: &'static [Column<T>]) -> Self {
        Self { style, columns, rows: Vec::new() }
    }

    /// Adds a row and prints it where the form allows.
    pub(super) fn add(&mut self, row: T) -> anyhow::Result<()> {
        let is_first = self.rows.is_empty();
        match self.style {
            Some(Style::Md) => {
                if is_first {
                    output::line(&self.line(|column| column.name.into()))?;
                    output::line(&self.line(|column| format!("{}:", "-".repeat(column.width - 1))))?;
                }
                output::line(&self.line(|column| (column.cell)(&row)))?;
            }
            Some(Style::Csv) => {
                let (names, values) = comma_separated(&row)?;
                if is_first {
                    output::line(&names)?;
                }
                output::line(&values)?;
            }
            Some(Style::Jsonl) => output::json(&row)?,
            Some(Style::Json) | None => {}
        }
        self.rows.push(row);
        Ok(())
    }

    /// Prints what had to wait for all rows, and gives them.
    pub(super) fn finish(self) -> anyhow::Result<Vec<T>> {
        if self.style == Some(Style::Json) {
            output::json(&self.rows)?;
        }
        Ok(self.rows)
    }

    fn line(&self, cell: impl Fn(&Column<T>) -> String) -> String {
        let cells: Vec<String> =
            self.columns.iter().map(|column| format!("{:>1$}", cell(column), column.width)).collect();
        format!("| {} |", cells.join(" | "))
    }
}

/// `n/a` where there is no number.
pub(super) fn number(number: Option<f64>, places: usize) -> String {
    number.map_or_else(|| "n/a".into(), |number| format!("{number:.places$}"))
}

/// The names and the values of a row's fields, without its lists.
fn comma_separated(row: &impl Serialize) -> anyhow::Result<(String, String)> {
    let fields = serde_json::to_value(row)?;
    let flat = fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_array());
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (name, value) in flat {
        names.push(name.clone());
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        values.push(format!("\"{}\"", text.replace('"', "\"\"")));
    }
    Ok((names.join(","), values.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_lists_left_out() {
        #[derive(Serialize)]
        struct Planted {
            name: &'static str,
            count: Option<u32>,
            samples: Vec<u32>,
            rate: f64,
        }
        let row = Planted { name: "a \"b\", c", count: None, samples: vec![1], rate: 0.5 };
        let (names, values) = comma_separated(&row).unwrap();
        assert_eq!((names.as_str(), values.as_str()), ("name,count,rate", r#""a ""b"", c","","0.5""#));
        assert_eq!((number(None, 2), number(Some(1.234), 2)), ("n/a".into(), "1.23".into()));
    }
}
