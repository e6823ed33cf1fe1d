//! A table of Markdown (GitHub's extension), with its columns made as wide as what stands in them.

use unicode_width::UnicodeWidthStr;

/// A line of a table: pieces of text, and whether they are bold.
pub(super) type Line = Vec<(String, bool)>;

/// The lines of a table of these rows.
pub(super) fn lines(rows: &[String]) -> Vec<Line> {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row)).collect();
    let has_head = cells.get(1).is_some_and(|row| is_rule(row));
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let is_shown = |at: usize| !(has_head && at == 1);
    let width = |column: usize| {
        let shown = cells.iter().enumerate().filter(|(at, _)| is_shown(*at));
        shown.filter_map(|(_, row)| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |(at, row): (usize, &Vec<String>)| -> Line {
        if !is_shown(at) {
            let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
            return vec![(rules.join("──"), false)];
        }
        let cell = |column: usize| {
            let text = row.get(column).map_or("", String::as_str);
            let is_last = column + 1 == columns;
            let gap = if is_last { 0 } else { widths[column] - text.width() + 2 };
            (format!("{text}{}", " ".repeat(gap)), has_head && at == 0)
        };
        (0..columns).map(cell).collect()
    };
    cells.iter().enumerate().map(line).collect()
}

/// The cells of a row, without marks of emphasis and code. A bar that is escaped is not the end of a cell.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|');
    let mut cells = vec![String::new()];
    let mut characters = row.chars().peekable();
    while let Some(c) = characters.next() {
        let cell = cells.len() - 1;
        match c {
            '\\' if characters.peek() == Some(&'|') => cells[cell].extend(characters.next()),
            '|' if characters.peek().is_some() => cells.push(String::new()),
            '|' => {}
            c => cells[cell].push(c),
        }
    }
    cells.iter().map(|cell| cell.trim().replace("**", "").replace('`', "")).collect()
}

/// Whether a row stands between the head and the rest.
fn is_rule(row: &[String]) -> bool {
    row.iter().all(|cell| cell.contains('-') && cell.chars().all(|c| matches!(c, '-' | ':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rows: &[&str]) -> Vec<String> {
        let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
        lines(&rows).into_iter().map(|line| line.into_iter().map(|(text, _)| text).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = ["| a | `b` |", "|:--|---:|", "| 你好 | c \\| d |", "| x |"];
        assert_eq!(text(&rows), ["a     b", "───────────", "你好  c | d", "x     "]);
        assert!(lines(&["| a |".into(), "|---|".into()])[0][0].1, "the head is bold");
        assert_eq!(text(&["|"]), [""]);
    }
}
