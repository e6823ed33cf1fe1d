//! A pickle machine that builds tensors, plain containers and nothing else: no import, no call, no object.
//! What a pickle would call is looked up in a list of names; every other is refused.
//! Opcodes: Python's `pickletools`.
//!
//! Containers live in one arena and values are small handles into it, so that a pickle that nests or refers to itself
//! without end costs no stack, and all memory is bounded by the length of the pickle and the limits below.

use std::collections::HashMap;

use crate::error::{Error, Result};

use super::value::{Built, Known, SAVE_TENSORS, Storage, Value, View};

/// Bytes of a pickle; that of a model has some hundred for each tensor.
const MAX_BYTES: usize = 1 << 22;
/// Values on the stack: Python sends the items of a container in batches of a thousand.
const MAX_STACK: usize = 1 << 16;
/// Marks on the stack: how deep tuples are open in each other.
const MAX_MARKS: usize = 256;
/// Slots of the memo.
const MAX_MEMO: usize = 1 << 18;
/// Containers and tensors.
const MAX_NODES: usize = 1 << 18;
/// Dimensions of a tensor.
const MAX_DIMS: usize = 8;

/// Runs `pickle` to its end: what it built, and the value it leaves.
///
/// # Errors
/// `Unsupported` for a name or opcode that is not in the list, `BadFile` for what makes no sense, both with the byte
/// of the file, in which the pickle begins at `start`.
pub(super) fn run(pickle: &[u8], start: u64) -> Result<(Built<'_>, Value<'_>)> {
    if pickle.len() > MAX_BYTES {
        return Err(Error::unsupported(format!("a pickle of {} bytes", pickle.len()))
            .hint(format!("at most {MAX_BYTES} are read; save the state_dict alone")));
    }
    let mut machine = Machine { pickle, ..Machine::default() };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok((machine.built, value)),
            Err(error) => return Err(error.at_offset(start + at as u64)),
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    built: Built<'a>,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; the result at the last.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        match self.take(1)?[0] {
            // PROTO, FRAME
            0x80 => self.protocol()?,
            0x95 => _ = self.take(8)?,
            b'.' => return self.finish().map(Some),

            b'(' => self.mark()?,
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_mark()?,
            b'2' => {
                let top = self.pop()?;
                self.push(top)?;
                self.push(top)?;
            }
            b'N' | 0x88 | 0x89 => self.push(Value::Plain)?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Plain)?;
            }
            b'K' | b'M' | b'J' | 0x8a => self.integer()?,
            // BINUNICODE and its short and long forms
            b'X' | 0x8c | 0x8d => self.text()?,

            b')' => self.sequence(Vec::new())?,
            b']' => self.sequence(Vec::new())?,
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.sequence(items)?;
            }
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(&items)?;
            }
            b'}' => self.new_map()?,
            b'd' => {
                let items = self.pop_mark()?;
                self.new_map()?;
                self.insert(&items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.insert(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.insert(&items)?;
            }

            b'h' | b'j' => self.recall()?,
            b'q' | b'r' | 0x94 => self.memoize()?,

            b'c' => self.global()?,
            // STACK_GLOBAL
            0x93 => self.stack_global()?,
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => {
                return Err(Error::unsupported(format!("the pickle opcode {}", other.escape_ascii()))
                    .hint(SAVE_TENSORS));
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Value<'a>> {
        let value = self.pop()?;
        if self.stack.is_empty() && self.marks.is_empty() {
            return Ok(value);
        }
        Err(Error::bad_file("the pickle ends with values left over"))
    }

    fn protocol(&mut self) -> Result<()> {
        match self.take(1)?[0] {
            2..=5 => Ok(()),
            other => Err(Error::unsupported(format!("pickle protocol {other}")).hint("2 to 5 work")),
        }
    }

    // Bytes of the pickle.

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let pickle = self.pickle;
        let bytes = self.at.checked_add(count).and_then(|end| pickle.get(self.at..end));
        let bytes = bytes.ok_or_else(|| Error::bad_file("the pickle ends too soon"))?;
        self.at += count;
        Ok(bytes)
    }

    /// A number of `count` bytes, at most 8, the lowest first.
    fn number(&mut self, count: usize) -> Result<u64> {
        let bytes = self.take(count)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.pickle[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| Error::bad_file("the pickle ends within a name"))?;
        self.at += end + 1;
        utf8(&rest[..end])
    }

    // The stack.

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        if self.stack.len() >= MAX_STACK {
            return Err(Error::bad_file(format!("more than {MAX_STACK} values wait on the stack")));
        }
        self.stack.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= MAX_MARKS {
            return Err(Error::bad_file(format!("containers are open {MAX_MARKS} deep")));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = (self.stack.len() > floor).then(|| self.stack.pop()).flatten();
        value.ok_or_else(|| Error::bad_file("an opcode needs a value that is not on the stack"))
    }

    /// The last `count` values, in their order.
    fn pop_many(&mut self, count: usize) -> Result<Vec<Value<'a>>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err(Error::bad_file("an opcode needs values that are not on the stack")),
        }
    }

    /// The values since the last mark, in their order.
    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let start =
            self.marks.pop().ok_or_else(|| Error::bad_file("an opcode needs a mark that is not there"))?;
        Ok(self.stack.split_off(start))
    }

    // Plain values.

    fn integer(&mut self) -> Result<()> {
        let number = match self.pickle[self.at - 1] {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            b'J' => i64::from(self.number(4)? as i32),
            _ => {
                let length = usize::from(self.take(1)?[0]);
                let bytes = self.take(length)?;
                signed(bytes).ok_or_else(|| Error::unsupported("an integer of more than 64 bits"))?
            }
        };
        self.push(Value::Int(number))
    }

    fn text(&mut self) -> Result<()> {
        let width = match self.pickle[self.at - 1] {
            0x8c => 1,
            b'X' => 4,
            _ => 8,
        };
        let length = self.number(width)?;
        let length =
            usize::try_from(length).map_err(|_| Error::bad_file("a text passes the end of the pickle"))?;
        let text = utf8(self.take(length)?)?;
        self.push(Value::Text(text))
    }

    // Containers.

    fn room(&self) -> Result<()> {
        match self.built.nodes() < MAX_NODES {
            true => Ok(()),
            false => Err(Error::bad_file(format!("more than {MAX_NODES} containers and tensors"))),
        }
    }

    fn sequence(&mut self, items: Vec<Value<'a>>) -> Result<()> {
        self.room()?;
        self.built.sequences.push(items);
        self.push(Value::Sequence(self.built.sequences.len() - 1))
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let items = self.pop_many(count)?;
        self.sequence(items)
    }

    fn new_map(&mut self) -> Result<()> {
        self.room()?;
        self.built.maps.push(Vec::new());
        self.push(Value::Map(self.built.maps.len() - 1))
    }

    /// Appends to the list on the stack.
    fn extend(&mut self, items: &[Value<'a>]) -> Result<()> {
        let list = self.pop()?;
        let Value::Sequence(index) = list else { return Err(Error::bad_file("items for what is no list")) };
        self.built.sequences[index].extend_from_slice(items);
        self.push(list)
    }

    /// Adds keys and values in turns to the dictionary on the stack.
    fn insert(&mut self, items: &[Value<'a>]) -> Result<()> {
        let map = self.pop()?;
        let Value::Map(index) = map else { return Err(Error::bad_file("items for what is no dictionary")) };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Error::bad_file("a key without a value"));
        }
        self.built.maps[index].extend(pairs.iter().map(|&[key, value]| (key, value)));
        self.push(map)
    }

    // The memo.

    fn recall(&mut self) -> Result<()> {
        let width = if self.pickle[self.at - 1] == b'h' { 1 } else { 4 };
        let slot = self.number(width)? as u32;
        let value = self.memo.get(&slot).copied();
        self.push(value.ok_or_else(|| Error::bad_file(format!("memo slot {slot} was never written")))?)
    }

    fn memoize(&mut self) -> Result<()> {
        let slot = match self.pickle[self.at - 1] {
            b'q' => self.number(1)? as u32,
            b'r' => self.number(4)? as u32,
            _ => self.memo.len() as u32,
        };
        // Python numbers the slots one after the other.
        if slot as usize >= MAX_MEMO {
            return Err(Error::bad_file(format!(
                "memo slot {slot}, where slots below {MAX_MEMO} are possible"
            )));
        }
        let top = self.pop()?;
        self.memo.insert(slot, top);
        self.push(top)
    }

    // What a pickle may name, and what becomes of it.

    fn global(&mut self) -> Result<()> {
        let (module, name) = (self.line()?, self.line()?);
        self.push(Value::Known(Known::named(module, name)?))
    }

    fn stack_global(&mut self) -> Result<()> {
        let names = self.pop_many(2)?;
        let [Value::Text(module), Value::Text(name)] = names[..] else {
            return Err(Error::bad_file("a name that is no text"));
        };
        self.push(Value::Known(Known::named(module, name)?))
    }

    /// `("storage", class, key, device, count)`.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let [
            Value::Text("storage"),
            Value::Known(class),
            Value::Text(key),
            Value::Text(_),
            Value::Int(count),
        ] = self.built.sequence(id).unwrap_or_default()
        else {
            return Err(Error::bad_file("a persistent id that is no storage"));
        };
        let dtype = match class {
            Known::Elements(dtype) => Some(*dtype),
            Known::Untyped => None,
            _ => return Err(Error::bad_file("a storage of no class of storages")),
        };
        let count =
            u64::try_from(*count).map_err(|_| Error::bad_file(format!("a storage of {count} elements")))?;
        let storage = Storage { key, dtype, count };
        self.room()?;
        self.built.storages.push(storage);
        self.push(Value::Storage(self.built.storages.len() - 1))
    }

    fn reduce(&mut self) -> Result<()> {
        let call = self.pop_many(2)?;
        let (Value::Known(callee), Some(arguments)) = (call[0], self.built.sequence(call[1])) else {
            return Err(Error::bad_file("a call of what cannot be called"));
        };
        match (callee, arguments) {
            (Known::OrderedDict, []) => self.new_map(),
            (Known::Size, &[dims @ Value::Sequence(_)]) => self.push(dims),
            (Known::RebuildParameter, &[data @ Value::View(_), _, _]) => self.push(data),
            (
                Known::RebuildTensor,
                &[Value::Storage(storage), Value::Int(offset), dims, strides, _, _, ref rest @ ..],
            ) => {
                let view = self.view(storage, offset, dims, strides, rest)?;
                self.room()?;
                self.built.views.push(view);
                self.push(Value::View(self.built.views.len() - 1))
            }
            _ => Err(Error::bad_file(format!("a call of {callee:?} with other arguments than torch writes"))),
        }
    }

    fn view(
        &self,
        storage: usize,
        offset: i64,
        dims: Value<'a>,
        strides: Value<'a>,
        rest: &[Value<'a>],
    ) -> Result<View<'a>> {
        let storage = self.built.storages[storage];
        let dtype = match (storage.dtype, rest) {
            (Some(dtype), []) => dtype,
            (_, &[Value::Known(Known::Elements(dtype)), ..]) => dtype,
            _ => return Err(Error::bad_file("a tensor without a type")),
        };
        let offset =
            u64::try_from(offset).map_err(|_| Error::bad_file(format!("a tensor begins at {offset}")))?;
        let (dims, strides) = (self.sizes(dims)?, self.sizes(strides)?);
        if dims.len() != strides.len() {
            return Err(Error::bad_file(format!("{} dimensions and {} strides", dims.len(), strides.len())));
        }
        Ok(View { storage, dtype, offset, dims, strides })
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<u64>> {
        let items = self.built.sequence(value).filter(|items| items.len() <= MAX_DIMS);
        let items =
            items.ok_or_else(|| Error::bad_file(format!("no shape of at most {MAX_DIMS} dimensions")))?;
        let size = |item: &Value<'a>| match item {
            Value::Int(size) => u64::try_from(*size).ok(),
            _ => None,
        };
        let sizes: Option<Vec<u64>> = items.iter().map(size).collect();
        sizes.ok_or_else(|| Error::bad_file("a size that is no positive integer"))
    }

    /// Attributes of a dictionary, such as the `_metadata` of a state_dict, are not kept.
    fn build(&mut self) -> Result<()> {
        let both = self.pop_many(2)?;
        match both[0] {
            target @ Value::Map(_) => self.push(target),
            _ => Err(Error::bad_file("attributes for what is no dictionary")),
        }
    }
}

/// A number in two's complement, the lowest byte first, if 64 bits hold it.
fn signed(bytes: &[u8]) -> Option<i64> {
    let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
    let mut low = [sign; 8];
    let held = bytes.len().min(8);
    low[..held].copy_from_slice(&bytes[..held]);
    let number = i64::from_le_bytes(low);
    let extends = bytes[held..].iter().all(|&byte| byte == sign) && (number < 0) == (sign != 0);
    extends.then_some(number)
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| Error::bad_file("a text is not UTF-8").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// What a pickle of protocol 2 with this body leaves.
    fn value(body: &[u8]) -> Result<Value<'_>> {
        run(body, 0).map(|(_, value)| value)
    }

    fn refused(body: &[u8], kind: Kind, says: &str) {
        let error = value(body).expect_err(says);
        assert!(error.kind() == kind && error.to_string().contains(says), "{error:?}");
    }

    #[test]
    fn numbers_are_read_in_every_width() {
        let cases: [(&[u8], i64); 8] = [
            (b"K\xff.", 255),
            (b"M\xff\xff.", 65535),
            (b"J\xff\xff\xff\xff.", -1),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\x80.", -128),
            (b"\x8a\x02\x80\x00.", 128),
            (b"\x8a\x09\0\0\0\0\0\0\0\x40\0.", 1 << 62),
            (b"\x8a\x09\0\0\0\0\0\0\0\x80\xff.", i64::MIN),
        ];
        for (body, due) in cases {
            assert_eq!(value(body).unwrap(), Value::Int(due), "{}", body.escape_ascii());
        }
        refused(b"\x8a\x09\0\0\0\0\0\0\0\x80\0.", Kind::Unsupported, "more than 64 bits");
        refused(b"\x8a\x09\0\0\0\0\0\0\0\0\x01.", Kind::Unsupported, "more than 64 bits");
    }

    #[test]
    fn limits_hold() {
        let marks = [vec![b'('; MAX_MARKS + 1], b"N.".to_vec()].concat();
        refused(&marks, Kind::BadFile, "open 256 deep");
        refused(&vec![b'N'; MAX_STACK + 1], Kind::BadFile, "wait on the stack");
        let containers = b"}0".repeat(MAX_NODES + 1);
        refused(&containers, Kind::BadFile, "containers and tensors");
        refused(&vec![b'N'; MAX_BYTES + 1], Kind::Unsupported, "a pickle of");
        refused(
            &[b"Nr".to_vec(), (MAX_MEMO as u32).to_le_bytes().to_vec()].concat(),
            Kind::BadFile,
            "memo slot",
        );
    }

    /// Lists within lists cost an arena's entry each and no stack of ours, and a list may hold itself.
    #[test]
    fn nesting_and_cycles_cost_no_stack() {
        let deep = [b"]".repeat(50_000), b"a".repeat(49_999), b".".to_vec()].concat();
        assert_eq!(value(&deep).unwrap(), Value::Sequence(0));
        assert_eq!(value(b"]q\0h\0a.").unwrap(), Value::Sequence(0));
    }

    #[test]
    fn names_are_refused_unless_they_are_known() {
        assert_eq!(value(b"cos\nsystem\n.").unwrap_err().kind(), Kind::Unsupported);
        refused(b"cbuiltins\neval\n.", Kind::Unsupported, "builtins.eval");
        refused(b"ctorch\nload\n.", Kind::Unsupported, "torch.load");
        refused(b"\x8c\x02os\x8c\x06system\x93.", Kind::Unsupported, "os.system");
        refused(b"ccollections\nOrderedDict\nN\x85R.", Kind::BadFile, "other arguments");
        refused(b"K\x01)R.", Kind::BadFile, "cannot be called");
        refused(b"ctorch\nFloatStorage\n)R.", Kind::BadFile, "other arguments");
    }

    #[test]
    fn the_stack_has_a_floor() {
        for body in [&b"."[..], b"0.", b"N(0.", b"N(\x85.", b"t.", b"a.", b"(N", b"}(K\x01u.", b"NN."] {
            assert_eq!(value(body).unwrap_err().kind(), Kind::BadFile, "{}", body.escape_ascii());
        }
    }
}
