//! Protocol buffers, as much of them as a SentencePiece model needs: the fields of a message, one after the other.
//! Encoding: protobuf.dev, "Encoding".

use crate::error::{Error, Result};

/// The value of a field as it stands in the bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// An integer, boolean or enumerator.
    Number(u64),
    /// Four bytes: a float.
    Four([u8; 4]),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// Eight bytes, which nothing here reads.
    Eight,
}

/// The numbers and values of the fields of `message`, in their order.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Field<'_>)>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = message.len() - rest.len();
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field.ok_or_else(|| {
            Error::bad_file(format!("byte {at} of a message of {} begins no field", message.len()))
        }))
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = number(rest)?;
    let value = match key & 7 {
        0 => Field::Number(number(rest)?),
        1 => {
            *rest = rest.get(8..)?;
            Field::Eight
        }
        2 => {
            let length = usize::try_from(number(rest)?).ok()?;
            let (bytes, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            Field::Bytes(bytes)
        }
        5 => {
            let (bytes, behind) = rest.split_first_chunk()?;
            *rest = behind;
            Field::Four(*bytes)
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

/// Seven bits a byte, the lowest first; the highest bit says that there is more.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_their_order() {
        let message = b"\x08\x96\x01\x12\x02hi\x1d\0\0\x80\x3f\x21\0\0\0\0\0\0\0\0\x28\x00";
        let all: Vec<(u64, Field<'_>)> = fields(message).collect::<Result<_>>().unwrap();
        let due = [
            (1, Field::Number(150)),
            (2, Field::Bytes(b"hi")),
            (3, Field::Four(1f32.to_le_bytes())),
            (4, Field::Eight),
            (5, Field::Number(0)),
        ];
        assert_eq!(all, due);
    }

    #[test]
    fn what_is_no_field_ends_the_message_with_an_error() {
        let bad: [&[u8]; 7] = [
            b"\x08",
            b"\x0a\x05hi",
            b"\x0b",
            b"\x0d\0\0\0",
            b"\x09\0",
            &[0xff; 11],
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ];
        for message in bad {
            let all: Vec<_> = fields(message).collect();
            assert!(all.len() == 1 && all[0].is_err(), "{}", message.escape_ascii());
        }
    }
}
