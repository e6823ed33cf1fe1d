//! What a grammar of JSON lets through and a reader of JSON stumbles over: numbers that no float is or is near, and arrays
//! in arrays without an end. Both are JSON; readers round the ones, or refuse both (serde_json reads numbers up to 1.8e308
//! and 128 levels).

use llguidance::toktrie::SimpleVob;

use super::Lexicon;

/// Levels of arrays and objects.
const MOST_DEPTH: u32 = 120;
/// Digits of a number's whole part: what every reader knows exactly (RFC 7493, 2.2).
const MOST_DIGITS: u32 = 15;
/// Digits behind the point: no float tells more apart.
const MOST_FRACTION: u32 = 20;
/// Digits of an exponent.
const MOST_EXPONENT: u32 = 2;

/// Where a text of JSON stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    depth: u32,
    string: bool,
    escaped: bool,
    number: Number,
    /// Something other than space was seen.
    begun: bool,
    /// The last byte that is not space ended a value that nothing can make longer.
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Number {
    /// None.
    #[default]
    No,
    /// So many digits of its whole part.
    Whole(u32),
    /// So many digits behind the point.
    Fraction(u32),
    /// So many digits of its exponent.
    Exponent(u32),
}

impl Scan {
    /// The next byte of the text.
    pub(super) fn push(&mut self, byte: u8) {
        if self.string {
            self.string = self.escaped || byte != b'"';
            self.closed = !self.string;
            self.escaped = byte == b'\\' && !self.escaped;
            return;
        }
        self.number = self.number.after(byte);
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => return,
            b'"' => self.string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.begun = true;
        self.closed = matches!(byte, b']' | b'}' | b'e' | b'l') && self.number == Number::No;
    }

    /// Whether a value is closed that is all of the text: only space can follow.
    pub(super) fn is_closed(&self) -> bool {
        self.begun && self.closed && self.depth == 0 && !self.string
    }

    /// Takes the tokens out of `mask` that no reader would follow; where none would be left, leaves them all.
    pub(super) fn narrow(&self, mask: &mut SimpleVob, lexicon: &Lexicon) {
        let is_near = match self.number {
            Number::No => self.depth > MOST_DEPTH / 2,
            Number::Whole(_) | Number::Fraction(_) | Number::Exponent(_) => true,
        };
        let vast = lexicon.vast().iter().filter(|&&token| mask.is_allowed(token));
        let suspects: Vec<u32> = match is_near {
            true => mask.iter().collect(),
            false => vast.copied().collect(),
        };
        let beyond: Vec<u32> =
            suspects.into_iter().filter(|&token| self.is_beyond(lexicon.bytes(token))).collect();
        if beyond.len() < mask.num_set() {
            beyond.into_iter().for_each(|token| mask.disallow_token(token));
        }
    }

    fn is_beyond(&self, bytes: &[u8]) -> bool {
        let mut scan = self.clone();
        bytes.iter().any(|&byte| {
            scan.push(byte);
            scan.depth > MOST_DEPTH
                || match scan.number {
                    Number::Whole(digits) => digits > MOST_DIGITS,
                    Number::Fraction(digits) => digits > MOST_FRACTION,
                    Number::Exponent(digits) => digits > MOST_EXPONENT,
                    Number::No => false,
                }
        })
    }
}

impl Number {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::No | Self::Whole(0), b'-') => Self::Whole(0),
            (Self::No, b'0'..=b'9') => Self::Whole(1),
            (Self::Whole(digits), b'0'..=b'9') => Self::Whole(digits + 1),
            (Self::Whole(_), b'.') => Self::Fraction(0),
            (Self::Fraction(digits), b'0'..=b'9') => Self::Fraction(digits + 1),
            (Self::Whole(_) | Self::Fraction(_), b'e' | b'E') => Self::Exponent(0),
            (Self::Exponent(0), b'+' | b'-') => Self::Exponent(0),
            (Self::Exponent(digits), b'0'..=b'9') => Self::Exponent(digits + 1),
            _ => Self::No,
        }
    }
}

/// Whether a number with an exponent of three digits stands in a token.
pub(super) fn has_vast_exponent(token: &[u8]) -> bool {
    token.windows(4).any(|part| {
        let digits = if matches!(part[1], b'+' | b'-') { 2 } else { 1 };
        matches!(part[0], b'e' | b'E') && part[digits..].iter().all(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Scan {
        let mut scan = Scan::default();
        text.bytes().for_each(|byte| scan.push(byte));
        scan
    }

    #[test]
    fn a_value_is_closed_when_nothing_can_make_it_longer() {
        for text in ["{}", "[1, 2]", "\"a\"", "\"a\\\"\"", "true", "false", "null", "{\"a\": \"}\"} ", "[[]]"]
        {
            assert!(scan(text).is_closed(), "{text}");
        }
        for text in ["", " ", "{", "1", "12.5", "1e5", "\"a", "\"a\\\"", "[\"]\"", "{\"a\": true", "[true"] {
            assert!(!scan(text).is_closed(), "{text}");
        }
    }

    #[test]
    fn what_no_reader_follows_is_beyond() {
        assert!(scan("1e99").is_beyond(b"9"));
        assert!(scan("-1.5E-9").is_beyond(b"99"));
        assert!(!scan("1e9").is_beyond(b"9,"));
        assert!(scan(&"9".repeat(15)).is_beyond(b"9"));
        assert!(!scan(&"9".repeat(15)).is_beyond(b".9"));
        assert!(scan(&format!("0.{}", "9".repeat(20))).is_beyond(b"9"));
        assert!(scan(&"[".repeat(120)).is_beyond(b"["));
        assert!(!scan(&"[".repeat(119)).is_beyond(b"["));
        assert!(!scan(&format!("\"{}", "[".repeat(200))).is_beyond(b"1e999"));
        assert!(has_vast_exponent(b"1e308") && has_vast_exponent(b"e+10") && !has_vast_exponent(b"e10"));
    }
}
