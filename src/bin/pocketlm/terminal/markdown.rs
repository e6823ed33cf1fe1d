//! Markdown as it streams in, for a terminal: headings, lists, quotations, code, tables and emphasis, by the rules of CommonMark as far
//! as they can be told without waiting. Nothing that was written is changed: what may still turn out to be a mark is held back
//! until the next character, the head of a line until its block is known, a table until its end.
//!
//! One rule is stricter: emphasis begins only behind a space or punctuation, because what is not closed later cannot be taken back.

use anstyle::{AnsiColor, Style};

use super::head::{Block, Fence, Head, head};
use super::page::Page;
use super::table;

/// A text on its way to the terminal.
#[derive(Debug)]
pub(crate) struct Markdown {
    page: Page,
    /// Cells of a rule.
    width: usize,
    state: State,
    /// The head of a line whose block is not known.
    held: String,
    rows: Vec<String>,
    spans: Spans,
    /// The style of the line's block.
    base: Style,
    /// The mark that is not over yet: its character, how many, and what stands before it.
    mark: Option<(char, usize, char)>,
    last: char,
}

/// Where in the text the next character stands.
#[derive(Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Line,
    /// The start of a line of code.
    CodeStart(Fence),
    Code(Fence),
}

/// What is open.
#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    is_bold: bool,
    is_italic: bool,
    /// The backticks that end the code.
    code: Option<usize>,
}

const CODE: Style = AnsiColor::Cyan.on_default();
const FAINT: Style = Style::new().dimmed();

impl Markdown {
    /// Lines are broken at `width` cells, or by the terminal.
    pub(super) fn new(width: Option<usize>) -> Self {
        Self {
            page: Page::new(width),
            width: width.unwrap_or(40).min(40),
            state: State::LineStart,
            held: String::new(),
            rows: Vec::new(),
            spans: Spans::default(),
            base: Style::new(),
            mark: None,
            last: ' ',
        }
    }

    /// What is to be written after `text`.
    pub(super) fn push(&mut self, text: &str) -> String {
        text.chars().for_each(|c| self.next(c));
        self.page.take()
    }

    /// The rest, without the end of its line.
    pub(super) fn finish(&mut self) -> String {
        match &self.state {
            State::LineStart if self.held.is_empty() => {}
            State::LineStart => self.begin_line(true),
            State::CodeStart(fence) if fence.ends(&self.held) => {}
            State::CodeStart(_) => self.begin_code(),
            State::Line | State::Code(_) => {}
        }
        self.end_of_mark(' ');
        self.end_of_table(self.last != '\n');
        self.page.style(Style::new());
        self.page.flush();
        self.page.take()
    }

    fn next(&mut self, c: char) {
        match (&self.state, c) {
            (_, '\r') => {}
            (State::LineStart, '\n') => {
                self.begin_line(true);
                if self.state == State::Line {
                    self.end_line();
                }
                self.last = '\n';
            }
            (State::LineStart, c) => {
                self.held.push(c);
                self.begin_line(false);
            }
            (State::Line, '\n') => self.end_line(),
            (State::Line, c) => self.inline(c),
            (State::CodeStart(fence), '\n') => {
                if fence.ends(&self.held) {
                    self.held.clear();
                    self.page.style(Style::new());
                    self.state = State::LineStart;
                } else {
                    self.begin_code();
                    self.next('\n');
                }
            }
            (State::CodeStart(fence), c) => {
                let fence = *fence;
                self.held.push(c);
                if !fence.may_end(&self.held) {
                    self.begin_code();
                }
            }
            (State::Code(fence), '\n') => {
                self.state = State::CodeStart(*fence);
                self.page.end_line();
            }
            (State::Code(_), c) => self.page.verbatim(c.encode_utf8(&mut [0; 4])),
        }
    }

    /// Begins the line that is held, if its block is known by now.
    fn begin_line(&mut self, is_whole: bool) {
        let Head::Known(block, start) = head(&self.held, is_whole) else { return };
        let held = std::mem::take(&mut self.held);
        if block == Block::Row {
            self.rows.push(held);
            self.last = '|';
            return;
        }
        self.end_of_table(false);
        self.state = State::Line;
        self.last = ' ';
        self.base = Style::new();
        self.page.hang("");
        // Emphasis does not reach over the end of its block.
        if block != Block::Text {
            self.spans = Spans::default();
        }
        match block {
            Block::Text | Block::Row | Block::Blank => {}
            Block::Heading(level) => {
                let style = AnsiColor::Magenta.on_default().bold();
                self.base = if level == 1 { style.underline() } else { style };
            }
            Block::Item(mark) => {
                self.page.style(Style::new());
                self.page.verbatim(&mark);
                self.page.hang(&" ".repeat(mark.chars().count()));
            }
            Block::Quote => {
                self.page.style(FAINT);
                self.page.verbatim("│ ");
                self.page.hang("│ ");
                self.base = Style::new().italic();
            }
            Block::Rule => {
                self.page.style(FAINT);
                self.page.verbatim(&"─".repeat(self.width));
            }
            Block::Fence { fence, language } => {
                if !language.is_empty() {
                    self.page.style(FAINT);
                    self.page.verbatim(&language);
                    self.page.style(CODE);
                    self.page.end_line();
                }
                self.page.style(CODE);
                self.state = State::CodeStart(fence);
                return;
            }
        }
        self.restyle();
        held[start..].chars().for_each(|c| self.inline(c));
    }

    fn begin_code(&mut self) {
        let State::CodeStart(fence) = self.state else { return };
        self.state = State::Code(fence);
        self.page.verbatim(&std::mem::take(&mut self.held));
    }

    fn end_line(&mut self) {
        self.end_of_mark('\n');
        if self.base != Style::new() {
            self.page.style(Style::new());
        }
        self.page.end_line();
        self.state = State::LineStart;
    }

    /// Shows the table that the rows are of; its last line may be the last of all, and stays open then.
    fn end_of_table(&mut self, is_open: bool) {
        let rows = std::mem::take(&mut self.rows);
        let lines = table::lines(&rows);
        let count = lines.len();
        for (at, line) in lines.into_iter().enumerate() {
            for (text, is_bold) in line {
                self.page.style(if is_bold { Style::new().bold() } else { Style::new() });
                self.page.verbatim(&text);
            }
            self.page.style(Style::new());
            if at + 1 < count || !is_open {
                self.page.end_line();
            }
        }
    }

    /// A character within a block.
    fn inline(&mut self, c: char) {
        if let Some((mark, length, _)) = &mut self.mark {
            if *mark == c && c != '\\' {
                *length += 1;
                return;
            }
            if *mark == '\\' && "\\`*_#~|<>".contains(c) && self.spans.code.is_none() {
                self.mark = None;
                self.show(c);
                return;
            }
            self.end_of_mark(c);
        }
        match c {
            '*' | '_' | '`' | '\\' => self.mark = Some((c, 1, self.last)),
            c => self.show(c),
        }
    }

    /// What a mark comes to, now that `after` follows it.
    fn end_of_mark(&mut self, after: char) {
        let Some((mark, length, before)) = self.mark.take() else { return };
        let is_part = |c: char| !c.is_whitespace() && !is_punctuation(c);
        let (opens, closes) = (!after.is_whitespace() && !is_part(before), !before.is_whitespace());
        let closes = closes && (mark == '*' || !is_part(after));
        let Spans { is_bold, is_italic, code } = self.spans;
        let toggled = |is_open: bool, is_meant: bool| match is_open {
            true => !(is_meant && closes),
            false => is_meant && opens,
        };
        let next = match (mark, code) {
            ('`', Some(due)) if due == length => Spans { code: None, ..self.spans },
            ('`', None) => Spans { code: Some(length), ..self.spans },
            ('*' | '_', None) if length <= 3 => Spans {
                is_italic: toggled(is_italic, length != 2),
                is_bold: toggled(is_bold, length != 1),
                code,
            },
            _ => self.spans,
        };
        let is_mark = (next.is_bold, next.is_italic, next.code) != (is_bold, is_italic, code);
        if is_mark {
            self.spans = next;
            self.restyle();
            self.last = mark;
        } else {
            (0..length).for_each(|_| self.show(mark));
        }
    }

    fn restyle(&mut self) {
        let Spans { is_bold, is_italic, code } = self.spans;
        let mut style = if code.is_some() { CODE } else { self.base };
        if is_bold {
            style = style.bold();
        }
        if is_italic {
            style = style.italic();
        }
        self.page.style(style);
    }

    fn show(&mut self, c: char) {
        self.page.text(if c == '\t' { ' ' } else { c });
        self.last = c;
    }
}

/// Punctuation and symbols, which emphasis may begin behind.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut markdown = Markdown::new(None);
        let begun = markdown.push(text);
        begun + &markdown.finish()
    }

    /// With styles in words, so that cases are read.
    fn named(text: &str) -> String {
        let names = [
            ("\x1b[36m", "<code>"),
            ("\x1b[1m", "<b>"),
            ("\x1b[3m", "<i>"),
            ("\x1b[1m\x1b[3m", "<bi>"),
            ("\x1b[2m", "<faint>"),
            ("\x1b[1m\x1b[35m", "<head>"),
            ("\x1b[1m\x1b[4m\x1b[35m", "<title>"),
            ("\x1b[0m", "</>"),
        ];
        let mut text = shown(text);
        for (code, name) in names.iter().rev() {
            text = text.replace(code, name);
        }
        text
    }

    #[test]
    fn marks_become_styles() {
        let cases = [
            ("plain text", "plain text"),
            ("a **b** c", "a <b>b</> c"),
            ("a *b* c", "a <i>b</> c"),
            ("***a***", "<bi>a</>"),
            ("(**a**), `b_c_d`", "(<b>a</>), <code>b_c_d</>"),
            ("``a`b``", "<code>a`b</>"),
            ("# T\ntext", "<title>T</>\ntext"),
            ("## T **b**\n", "<head>T b</>\n"),
            ("- a\n- b", "• a\n• b"),
            ("1. a\n   - b", "1. a\n   • b"),
            ("> a", "<faint>│ </><i>a</>"),
            ("```rust\nlet a = \"**\";\n```\nb", "<faint>rust</><code>\nlet a = \"**\";\n</>b"),
            ("~~~\n```\n~~~", "<code>```\n</>"),
            ("a\n\nb", "a\n\nb"),
            ("\\*a\\* \\d", "*a* \\d"),
        ];
        for (text, due) in cases {
            let named = named(text).replace("<head>T </><head><b>b", "<head>T b");
            assert_eq!(named, due, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_mark_stays() {
        let texts = [
            "2 * 3 * 4",
            "5**2",
            "snake_case_name",
            "a * b",
            "#hashtag",
            "C:\\dir",
            "\\(x^2\\)",
            "1984",
            "-",
            "--",
            "a ****",
        ];
        for text in texts {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("a `b\n\nc"), "a \x1b[36mb\n\x1b[0m\nc", "nothing reaches over a paragraph");
    }

    #[test]
    fn a_table_is_aligned_when_it_is_whole() {
        let mut markdown = Markdown::new(None);
        assert_eq!(markdown.push("| a | long |\n|---|---|\n| b | **c** |\n"), "");
        assert_eq!(markdown.push("after"), "\x1b[1ma  long\x1b[0m\n───────\nb  c\n");
        assert_eq!(shown("| a |\n"), "a\n");
        assert_eq!(shown("| a |\n| b |"), "a\nb");
    }

    #[test]
    fn how_a_text_comes_does_not_matter() {
        let text = "# A *b*\n\n1. one **two**\n2. `three`\n\n```py\nx = 1\n````\n| a | b |\n|--|--|\n| 1 | 2 |\n> said\n---\nend *";
        for width in [None, Some(9)] {
            let whole = {
                let mut markdown = Markdown::new(width);
                markdown.push(text) + &markdown.finish()
            };
            for size in 1..7 {
                let mut markdown = Markdown::new(width);
                let characters: Vec<char> = text.chars().collect();
                let pieces = characters.chunks(size).map(|piece| piece.iter().collect::<String>());
                let shown: String = pieces.map(|piece| markdown.push(&piece)).collect();
                assert_eq!(shown + &markdown.finish(), whole, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn words_appear_as_they_come() {
        let mut markdown = Markdown::new(Some(80));
        assert_eq!(markdown.push("Hello, wor"), "Hello,");
        assert_eq!(markdown.push("ld. **Now"), " world.");
        assert_eq!(markdown.push("** "), " \x1b[1mNow\x1b[0m");
    }
}
