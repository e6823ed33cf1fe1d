//! Styled text on a terminal, broken between words. A word appears when it is whole.

use anstyle::Style;
use unicode_width::UnicodeWidthChar;

/// Writes text into lines of a width.
#[derive(Debug)]
pub(super) struct Page {
    /// Cells of a line; `None` leaves breaking lines to the terminal.
    width: Option<usize>,
    /// What lines begin with that are broken here.
    margin: String,
    /// Cells that are taken of the line.
    column: usize,
    /// Spaces that stand before the word, unless it goes to the next line.
    spaces: usize,
    /// The word so far, with its styles, and its cells.
    word: String,
    cells: usize,
    style: Style,
    out: String,
}

impl Page {
    pub(super) fn new(width: Option<usize>) -> Self {
        Self {
            width,
            margin: String::new(),
            column: 0,
            spaces: 0,
            word: String::new(),
            cells: 0,
            style: Style::new(),
            out: String::new(),
        }
    }

    /// What is written since it was last taken, but for the word that is not whole yet.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    /// What lines begin with from now on where they are broken.
    pub(super) fn hang(&mut self, margin: &str) {
        margin.clone_into(&mut self.margin);
    }

    /// How text looks from here on.
    pub(super) fn style(&mut self, style: Style) {
        if style == self.style {
            return;
        }
        if self.style != Style::new() {
            self.word += "\x1b[0m";
        }
        self.word += &style.render().to_string();
        self.style = style;
    }

    /// Text whose spaces are where a line may break.
    pub(super) fn text(&mut self, c: char) {
        match c {
            ' ' => {
                self.flush();
                self.spaces += 1;
            }
            c => {
                self.put(c);
                // Scripts without spaces break anywhere.
                if c.width() == Some(2) {
                    self.flush();
                }
            }
        }
    }

    /// Text that is never broken, such as code.
    pub(super) fn verbatim(&mut self, text: &str) {
        self.flush();
        text.chars().for_each(|c| self.put(c));
        self.column += self.spaces + self.cells;
        self.out.extend(std::iter::repeat_n(' ', self.spaces));
        self.out += &self.word;
        self.word.clear();
        (self.spaces, self.cells) = (0, 0);
    }

    /// Ends the line.
    pub(super) fn end_line(&mut self) {
        self.flush();
        self.out.push('\n');
        (self.column, self.spaces) = (0, 0);
    }

    /// Shows what there is of the last word.
    pub(super) fn flush(&mut self) {
        if self.cells > 0 {
            let is_over = self.width.is_some_and(|width| self.column + self.spaces + self.cells > width);
            if is_over && self.column > self.margin.chars().count() {
                self.out.push('\n');
                self.out += &self.margin;
                self.column = self.margin.chars().count();
            } else {
                self.out.extend(std::iter::repeat_n(' ', self.spaces));
                self.column += self.spaces;
            }
            self.column += self.cells;
            (self.spaces, self.cells) = (0, 0);
        }
        self.out += &self.word;
        self.word.clear();
    }

    /// A character of the word. A terminal obeys control characters, and a model may write any.
    fn put(&mut self, c: char) {
        let shown = match c {
            '\t' => return (0..4).for_each(|_| self.put(' ')),
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        self.word.push(shown);
        self.cells += shown.width().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    fn page(width: usize, text: &str) -> String {
        let mut page = Page::new(Some(width));
        page.hang("  ");
        text.chars().for_each(|c| page.text(c));
        page.flush();
        page.take()
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(page(8, "one two three"), "one two\n  three");
        assert_eq!(page(7, "one two"), "one two");
        assert_eq!(page(4, "seventeen a"), "seventeen\n  a", "a word is not broken");
        assert_eq!(page(6, "你好世界"), "你好世\n  界", "a character takes two cells");
    }

    #[test]
    fn a_word_waits_for_its_end() {
        let mut page = Page::new(Some(80));
        "hel".chars().for_each(|c| page.text(c));
        assert_eq!(page.take(), "");
        "lo ".chars().for_each(|c| page.text(c));
        assert_eq!(page.take(), "hello");
    }

    #[test]
    fn a_terminal_is_not_given_orders() {
        assert_eq!(page(80, "\x1b[2J\u{9b}31m\x07"), "\u{fffd}[2J\u{fffd}31m\u{fffd}");
        let mut page = Page::new(None);
        page.verbatim("\x1b]0;title\x07");
        assert_eq!(page.take(), "\u{fffd}]0;title\u{fffd}");
    }

    #[test]
    fn styles_take_no_cells() {
        let mut page = Page::new(Some(3));
        page.style(AnsiColor::Cyan.on_default());
        "abc".chars().for_each(|c| page.text(c));
        page.style(Style::new());
        page.end_line();
        assert_eq!(page.take(), "\x1b[36mabc\x1b[0m\n");
    }
}
