//! How a line of Markdown begins: what block it is of, found without waiting for more of the line than is needed.

/// A block, by its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// A paragraph, or more of one.
    Text,
    /// A line without anything.
    Blank,
    /// A heading of this level, from 1.
    Heading(usize),
    /// An item of a list: what stands before its text.
    Item(String),
    /// A quotation.
    Quote,
    /// The beginning of code, with its language.
    Fence {
        /// What ends it: at least so many of the same.
        fence: Fence,
        /// What follows the fence.
        language: String,
    },
    /// A line across the page.
    Rule,
    /// A row of a table, whole.
    Row,
}

/// What stands around a block of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    /// A backtick or a tilde.
    pub(super) mark: char,
    /// How many of them, at least 3.
    pub(super) length: usize,
}

impl Fence {
    /// Whether a line may still become the one that ends the code.
    pub(super) fn may_end(self, line: &str) -> bool {
        line.trim().chars().all(|c| c == self.mark)
    }

    /// Whether a whole line ends the code.
    pub(super) fn ends(self, line: &str) -> bool {
        self.may_end(line) && line.trim().len() >= self.length
    }
}

/// What is known of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More of the line has to be seen.
    Open,
    /// It is of this block, and its text begins after so many bytes.
    Known(Block, usize),
}

/// The block of a line that begins with `line`, and ends there where `is_whole`. CommonMark 0.31, section 4, but for indented
/// code: models indent what belongs to an item of a list.
pub(super) fn head(line: &str, is_whole: bool) -> Head {
    let text = line.trim_start_matches([' ', '\t']);
    let indent = line.len() - text.len();
    let Some(first) = text.chars().next() else {
        return if is_whole { Head::Known(Block::Blank, indent) } else { Head::Open };
    };
    let known = match first {
        '#' => heading(text, is_whole),
        '-' | '*' | '+' => bullet(text, first, is_whole),
        '0'..='9' => number(text, is_whole),
        '>' => quote(text, is_whole),
        '`' | '~' => fence(text, first, is_whole),
        '|' if !is_whole => None,
        '|' => Some((Block::Row, 0)),
        _ => Some((Block::Text, 0)),
    };
    match known {
        None => Head::Open,
        // The indentation of text is its own.
        Some((Block::Text, _)) => Head::Known(Block::Text, 0),
        Some((Block::Item(mark), length)) => {
            Head::Known(Block::Item(format!("{}{mark}", &line[..indent])), indent + length)
        }
        Some((block, length)) => Head::Known(block, indent + length),
    }
}

/// What a line is taken for as soon as it is known; `None` while it is open.
type Known = Option<(Block, usize)>;

const TEXT: Known = Some((Block::Text, 0));

fn heading(text: &str, is_whole: bool) -> Known {
    let marks = text.len() - text.trim_start_matches('#').len();
    match text[marks..].chars().next() {
        None if !is_whole && marks <= 6 => None,
        Some(' ') if marks <= 6 => {
            let rest = text[marks..].trim_start_matches(' ');
            (is_whole || !rest.is_empty()).then(|| (Block::Heading(marks), text.len() - rest.len()))
        }
        _ => TEXT,
    }
}

fn bullet(text: &str, mark: char, is_whole: bool) -> Known {
    if text.chars().all(|c| c == mark || c == ' ') && mark != '+' {
        if !is_whole {
            return None;
        }
        if text.chars().filter(|&c| c == mark).count() >= 3 {
            return Some((Block::Rule, text.len()));
        }
    }
    item(text, 1, "•", is_whole)
}

fn number(text: &str, is_whole: bool) -> Known {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match text[digits..].chars().next() {
        _ if digits > 9 => TEXT,
        None if !is_whole => None,
        Some('.' | ')') => item(text, digits + 1, &text[..=digits], is_whole),
        _ => TEXT,
    }
}

/// An item whose mark takes `length` bytes and is shown as `mark`.
fn item(text: &str, length: usize, mark: &str, is_whole: bool) -> Known {
    match text[length..].chars().next() {
        None if !is_whole => None,
        Some(' ') => Some((Block::Item(format!("{mark} ")), length + 1)),
        _ => TEXT,
    }
}

fn quote(text: &str, is_whole: bool) -> Known {
    match text[1..].chars().next() {
        None if !is_whole => None,
        Some(' ') => Some((Block::Quote, 2)),
        _ => Some((Block::Quote, 1)),
    }
}

fn fence(text: &str, mark: char, is_whole: bool) -> Known {
    let rest = text.trim_start_matches(mark);
    let length = text.len() - rest.len();
    let may_be_code = (length >= 3 || rest.is_empty()) && !(mark == '`' && rest.contains('`'));
    match is_whole {
        false if may_be_code => None,
        true if may_be_code && length >= 3 => {
            let language = rest.trim().to_owned();
            Some((Block::Fence { fence: Fence { mark, length }, language }, text.len()))
        }
        _ => TEXT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(line: &str) -> Block {
        match head(line, true) {
            Head::Known(block, _) => block,
            Head::Open => panic!("{line:?} is whole"),
        }
    }

    #[test]
    fn blocks_are_those_of_commonmark() {
        let item = |mark: &str| Block::Item(mark.to_owned());
        let cases = [
            ("", Block::Blank),
            ("  ", Block::Blank),
            ("a", Block::Text),
            ("# a", Block::Heading(1)),
            ("###### a", Block::Heading(6)),
            ("####### a", Block::Text),
            ("#a", Block::Text),
            ("- a", item("• ")),
            ("  * a", item("  • ")),
            ("-a", Block::Text),
            ("**a** b", Block::Text),
            ("12. a", item("12. ")),
            ("1) a", item("1) ")),
            ("1.5", Block::Text),
            ("1984 was", Block::Text),
            ("1234567890. a", Block::Text),
            ("> a", Block::Quote),
            ("---", Block::Rule),
            ("* * *", Block::Rule),
            ("--", Block::Text),
            ("| a | b |", Block::Row),
            ("`a` b", Block::Text),
            ("```a``` b", Block::Text),
        ];
        for (line, due) in cases {
            assert_eq!(block(line), due, "{line:?}");
        }
        let fence = Fence { mark: '`', length: 4 };
        assert_eq!(block("````rust"), Block::Fence { fence, language: "rust".into() });
        assert!(fence.ends("````  ") && fence.ends("`````") && !fence.ends("```") && !fence.ends("````a"));
    }

    #[test]
    fn what_is_seen_of_a_line_decides_as_the_whole_line_does() {
        let lines = [
            "plain",
            "# head",
            "#tag",
            "- item",
            "-5",
            "--- x",
            "3. third",
            "3.14",
            "> said",
            ">said",
            "`x` is",
            "```x``` is",
            "*a* b",
            "* b",
            "+1",
            "~ 5",
            "1",
            "- ",
            "***bold***",
        ];
        for line in lines {
            let whole = head(line, true);
            for end in 0..=line.len() {
                let seen = head(&line[..end], false);
                assert!(seen == Head::Open || seen == whole, "{:?} of {line:?}: {seen:?}", &line[..end]);
            }
        }
    }
}
