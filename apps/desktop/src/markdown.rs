//! Markdown in blocks, read while it is being written. What can no longer change is read once; only what stands behind the last
//! blank line, or in the last lines of a block of code, is read again when more of it comes.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A piece of text in one style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The text.
    pub text: String,
    /// How it looks.
    pub style: Style,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Important.
    pub strong: bool,
    /// Stressed.
    pub emphasis: bool,
    /// Code.
    pub code: bool,
    /// Struck through.
    pub struck: bool,
    /// The text of a link.
    pub link: bool,
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A heading of level 1 to 6.
    Heading(u8, Vec<Span>),
    /// Running text.
    Text(Vec<Span>),
    /// Code in a language, which may be empty.
    Code(String, String),
    /// A table, its head first.
    Table(Vec<Vec<Vec<Span>>>),
    /// A line across.
    Rule,
}

/// A block and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Lists around it.
    pub indent: u8,
    /// Whether it is quoted.
    pub is_quoted: bool,
    /// What stands before it: a bullet, or a number with a full stop.
    pub marker: Option<String>,
    /// Whether it goes on with the code of the block before.
    pub goes_on: bool,
    /// What it is.
    pub kind: Kind,
}

/// A text that grows.
#[derive(Debug, Default)]
pub struct Document {
    blocks: Vec<Block>,
    /// Blocks that do not change any more.
    settled: usize,
    /// Bytes that they were read from.
    settled_to: usize,
    seen: usize,
    fence: Option<Fence>,
    /// Bytes that were read so far, over again or not.
    read: u64,
}

/// A block of code that is open.
#[derive(Clone, Debug)]
struct Fence {
    mark: char,
    length: usize,
    language: String,
    /// Some of its code is settled.
    goes_on: bool,
}

/// Bytes of open code that are read again at most.
const CODE: usize = 2048;

impl Document {
    /// The blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Blocks at the beginning that do not change while the text only grows.
    pub fn settled(&self) -> usize {
        self.settled
    }

    /// Follows a text that begins as it did the last time; one that is shorter is read anew.
    pub fn follow(&mut self, text: &str) {
        if text.len() == self.seen {
            return;
        }
        if text.len() < self.seen {
            *self = Self { read: self.read, ..Self::default() };
        }
        self.seen = text.len();
        self.blocks.truncate(self.settled);
        while self.settle(text) {}
        let rest = &text[self.settled_to..];
        self.read += rest.len() as u64;
        match &self.fence {
            Some(fence) => self.blocks.push(code(fence, rest)),
            None => self.blocks.extend(parse(rest)),
        }
    }

    /// Settles the next piece of the text, where there is one.
    fn settle(&mut self, text: &str) -> bool {
        let rest = &text[self.settled_to..];
        self.read += rest.len() as u64;
        let bytes = match self.fence.take() {
            Some(fence) => self.settle_code(fence, rest),
            None => self.settle_text(rest),
        };
        self.settled_to += bytes.unwrap_or(0);
        self.settled = if bytes.is_some() { self.blocks.len() } else { self.settled };
        bytes.is_some()
    }

    fn settle_code(&mut self, mut fence: Fence, rest: &str) -> Option<usize> {
        let mut at = 0;
        for line in rest.split_inclusive('\n') {
            if line.ends_with('\n') && closes(line, &fence) {
                self.blocks.push(code(&fence, &rest[..at]));
                return Some(at + line.len());
            }
            at += line.len();
            if at >= CODE && line.ends_with('\n') {
                self.blocks.push(code(&fence, &rest[..at]));
                fence.goes_on = true;
                self.fence = Some(fence);
                return Some(at);
            }
        }
        self.fence = Some(fence);
        None
    }

    fn settle_text(&mut self, rest: &str) -> Option<usize> {
        let (mut at, mut is_blank) = (0, false);
        for line in rest.split_inclusive('\n') {
            if let Some(fence) = opens(line) {
                self.blocks.extend(parse(&rest[..at]));
                self.fence = Some(fence);
                return Some(at + line.len());
            }
            // What is indented after a blank line may belong to a list before it.
            let begins = line.chars().next().is_some_and(|c| !c.is_whitespace());
            if is_blank && begins {
                self.blocks.extend(parse(&rest[..at]));
                return Some(at);
            }
            is_blank = line.trim().is_empty() && at > 0;
            at += line.len();
        }
        None
    }
}

/// A line that begins code, where all of it is there and it stands in no list.
fn opens(line: &str) -> Option<Fence> {
    let text = line.strip_suffix('\n')?;
    let mark = text.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let length = text.chars().take_while(|&c| c == mark).count();
    let language = text[length..].trim();
    let is_fence = length >= 3 && !(mark == '`' && language.contains('`'));
    is_fence.then(|| Fence { mark, length, language: language.to_owned(), goes_on: false })
}

fn closes(line: &str, fence: &Fence) -> bool {
    let text = line.trim();
    text.len() >= fence.length && text.chars().all(|c| c == fence.mark)
}

fn code(fence: &Fence, text: &str) -> Block {
    // The line that closes it may be there without its end.
    let whole =
        text.rsplit_once('\n').filter(|(_, last)| closes(last, fence)).map_or(text, |(whole, _)| whole);
    let whole = if closes(text, fence) && !text.contains('\n') { "" } else { whole };
    let kind = Kind::Code(fence.language.clone(), whole.trim_end_matches('\n').to_owned());
    Block { indent: 0, is_quoted: false, marker: None, goes_on: fence.goes_on, kind }
}

/// The blocks of a whole text.
fn parse(text: &str) -> Vec<Block> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut reader = Reader::default();
    Parser::new_ext(text, options).for_each(|event| reader.hear(event));
    reader.end_text();
    reader.blocks
}

#[derive(Default)]
struct Reader {
    blocks: Vec<Block>,
    spans: Vec<Span>,
    style: Style,
    /// The next number of each list around, none where it has bullets.
    lists: Vec<Option<u64>>,
    quotes: u32,
    marker: Option<String>,
    heading: Option<u8>,
    code: Option<(String, String)>,
    table: Vec<Vec<Vec<Span>>>,
}

impl Reader {
    fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some((_, code)) => code.push_str(&text),
                None => self.say(&text, self.style),
            },
            Event::Code(text) => self.say(&text, Style { code: true, ..self.style }),
            // What a model writes is shown, not believed.
            Event::Html(text) | Event::InlineHtml(text) => self.say(&text, self.style),
            Event::SoftBreak => self.say(" ", self.style),
            Event::HardBreak => self.say("\n", self.style),
            Event::Rule => self.push(Kind::Rule),
            Event::TaskListMarker(done) => self.marker = Some(if done { "[x]" } else { "[ ]" }.into()),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => self.heading = Some(number(level)),
            Tag::BlockQuote(_) => self.quotes += 1,
            Tag::CodeBlock(kind) => {
                self.end_text();
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                self.code = Some((language, String::new()));
            }
            Tag::List(first) => {
                self.end_text();
                self.lists.push(first);
            }
            Tag::Item => {
                self.end_text();
                self.marker = Some(match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}.", *number - 1)
                    }
                    _ => "•".into(),
                });
            }
            Tag::TableHead | Tag::TableRow => self.table.push(Vec::new()),
            Tag::Emphasis => self.style.emphasis = true,
            Tag::Strong => self.style.strong = true,
            Tag::Strikethrough => self.style.struck = true,
            Tag::Link { .. } => self.style.link = true,
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                let level = self.heading.take().unwrap_or(1);
                let spans = std::mem::take(&mut self.spans);
                self.push(Kind::Heading(level, spans));
            }
            TagEnd::Paragraph | TagEnd::Item | TagEnd::HtmlBlock => self.end_text(),
            TagEnd::BlockQuote(_) => {
                self.end_text();
                self.quotes = self.quotes.saturating_sub(1);
            }
            TagEnd::CodeBlock => {
                if let Some((language, code)) = self.code.take() {
                    self.push(Kind::Code(language, code.trim_end_matches('\n').to_owned()));
                }
            }
            TagEnd::List(_) => {
                self.end_text();
                self.lists.pop();
            }
            TagEnd::TableCell => {
                let spans = std::mem::take(&mut self.spans);
                if let Some(row) = self.table.last_mut() {
                    row.push(spans);
                }
            }
            TagEnd::Table => {
                let rows = std::mem::take(&mut self.table);
                self.push(Kind::Table(rows));
            }
            TagEnd::Emphasis => self.style.emphasis = false,
            TagEnd::Strong => self.style.strong = false,
            TagEnd::Strikethrough => self.style.struck = false,
            TagEnd::Link => self.style.link = false,
            _ => {}
        }
    }

    fn say(&mut self, text: &str, style: Style) {
        match self.spans.last_mut().filter(|last| last.style == style) {
            Some(last) => last.text.push_str(text),
            None => self.spans.push(Span { text: text.to_owned(), style }),
        }
    }

    fn end_text(&mut self) {
        if !self.spans.is_empty() {
            let spans = std::mem::take(&mut self.spans);
            self.push(Kind::Text(spans));
        }
    }

    fn push(&mut self, kind: Kind) {
        let indent = u8::try_from(self.lists.len()).unwrap_or(u8::MAX).min(8);
        let (is_quoted, marker) = (self.quotes > 0, self.marker.take());
        self.blocks.push(Block { indent, is_quoted, marker, goes_on: false, kind });
    }
}

fn number(level: HeadingLevel) -> u8 {
    level as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Sky\n\nThe sky is **blue** and `vast`.\n\n1. one\n2. two\n   - inner\n\n   more of two\n\n```rust\nfn main() {}\n\nlet x = 1;\n```\n\n> said\n\n| a | b |\n|---|---|\n| 1 | *2* |\n\n---\nend";

    fn whole(text: &str) -> Vec<Block> {
        let mut document = Document::default();
        document.follow(text);
        document.blocks().to_vec()
    }

    fn plain(spans: &[Span]) -> String {
        spans.iter().map(|span| span.text.as_str()).collect()
    }

    #[test]
    fn blocks_are_told_apart() {
        let blocks = whole(TEXT);
        let said: Vec<String> = blocks
            .iter()
            .map(|block| {
                let marker = block.marker.clone().unwrap_or_default();
                let what = match &block.kind {
                    Kind::Heading(level, spans) => format!("h{level} {}", plain(spans)),
                    Kind::Text(spans) => plain(spans),
                    Kind::Code(language, code) => format!("{language}: {code}"),
                    Kind::Table(rows) => format!("{} rows of {}", rows.len(), rows[0].len()),
                    Kind::Rule => "rule".into(),
                };
                format!("{}{}{marker}|{what}", block.indent, if block.is_quoted { ">" } else { "" })
            })
            .collect();
        let due = [
            "0|h1 Sky",
            "0|The sky is blue and vast.",
            "11.|one",
            "12.|two",
            "2•|inner",
            "1|more of two",
            "0|rust: fn main() {}\n\nlet x = 1;",
            "0>|said",
            "0|2 rows of 2",
            "0|rule",
            "0|end",
        ];
        assert_eq!(said, due);
    }

    #[test]
    fn however_it_comes_it_is_the_same() {
        for step in [1, 2, 7, 1000] {
            let mut document = Document::default();
            let mut settled: Vec<Block> = Vec::new();
            for end in (1..=TEXT.len()).filter(|end| end % step == 0 || *end == TEXT.len()) {
                document.follow(&TEXT[..end]);
                assert_eq!(document.blocks()[..settled.len()], settled, "what was settled has changed");
                settled = document.blocks()[..document.settled()].to_vec();
            }
            assert_eq!(document.blocks(), whole(TEXT), "in steps of {step}");
        }
    }

    #[test]
    fn code_is_closed_by_its_own_mark_alone() {
        let blocks = whole("````\n```\ninner\n```\n````\nafter\n");
        assert_eq!(blocks[0].kind, Kind::Code(String::new(), "```\ninner\n```".into()));
        assert_eq!(blocks.len(), 2);
        // While it is being written nothing of the mark is shown as code.
        assert_eq!(whole("```py\nx = 1\n```")[0].kind, Kind::Code("py".into(), "x = 1".into()));
    }

    /// Bytes read while a text of `pieces` pieces comes byte by byte, for each of its bytes.
    fn read_again(piece: &str, pieces: usize, before: &str) -> f64 {
        let text = before.to_owned() + &piece.repeat(pieces);
        let mut document = Document::default();
        (1..=text.len()).step_by(4).for_each(|end| document.follow(&text[..end]));
        document.read as f64 / text.len() as f64
    }

    #[test]
    fn a_long_answer_costs_no_more_for_each_byte() {
        for (piece, before) in
            [("Some words of a paragraph that is not long.\n\n", ""), ("let x = 1; // code\n", "```rust\n")]
        {
            let (short, long) = (read_again(piece, 400, before), read_again(piece, 1600, before));
            assert!(long < 1.3 * short, "{short:.0} and {long:.0} bytes read for each byte of {piece:?}");
        }
        // One paragraph without an end is read again and again: the measure sees it.
        let (short, long) = (read_again("words ", 400, ""), read_again("words ", 1600, ""));
        assert!(long > 3.0 * short, "{short:.0} and {long:.0}");
    }
}
