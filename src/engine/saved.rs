//! A session in bytes: what is written, and what is believed when it comes back.
//!
//! ```text
//! offset  bytes
//!      0  8       "pocketlm"
//!      8  u32     version, 3
//!     12  u64     bytes in all
//!     20  32      the model's identity
//!         u8      from version 2 on: 1 where the session slides: u32 its sinks
//!         u8      from version 3 on: how keys and values were stored: 0 not told, 1 f32, 2 f16, 3 q8, 4 q4
//!         u32 n   tokens of the history, then n × u32
//!         u64 n   bytes of the transcript, then n bytes: a JSON array of messages
//!         u8      1 where an answer was under way: u32 tokens of its prompt, u8 1 where it draws: u64 its seed;
//!                 from version 2 on, u8 1 where mirostat follows it: f64 its limit
//!         u8      1 where keys and values follow: 32 bytes what they belong to, u32 positions, u64 n, n bytes
//!      …  32      SHA-256 of all before it
//! ```
//!
//! Whole numbers have their lowest byte first. Nothing is believed before the sum is right, and nothing afterwards
//! either: the sum tells damage, not intent, so every length is held against the bytes that are there.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::base::Bytes;
use crate::error::{Error, Kind, Result};
use crate::kernel::KvType;
use crate::text::Message;

use super::identity::Hash;
use super::view::Overflow;

/// What a saved session begins with.
const MAGIC: &[u8; 8] = b"pocketlm";
/// Of this layout. A program reads the versions up to its own.
const VERSION: u32 = 3;
/// Bytes of magic, version, and the number of bytes in all.
const HEAD: usize = 20;
/// Bytes of the sum at the end.
const SUM: usize = 32;

/// Types of keys and values by their codes.
const KV_TYPES: [Option<KvType>; 5] =
    [None, Some(KvType::F32), Some(KvType::F16), Some(KvType::Q8), Some(KvType::Q4)];

/// What is kept of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The identity of its model.
    pub model: Hash,
    /// What becomes of it when it outgrows the context.
    pub overflow: Overflow,
    /// How its keys and values were stored, where that is told.
    pub kv_type: Option<KvType>,
    /// Its tokens, those of an unfinished answer included.
    pub history: Vec<u32>,
    /// The conversation.
    pub transcript: Vec<Message>,
    /// The answer that was under way.
    pub answer: Option<Unfinished>,
    /// Keys and values of the history's beginning.
    pub kv: Option<SavedKv>,
}

/// An answer that was under way: what it takes, beside the history and the caller's options, to go on as if it had never
/// stopped. A draw is a function of the seed and of how many tokens the answer has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unfinished {
    /// Tokens of the history that are the prompt; the others are the answer.
    pub prompt_tokens: u32,
    /// What the draws are a function of, where there are any.
    pub seed: Option<u64>,
    /// What mirostat knows of the answer, which no history tells.
    pub limit: Option<f64>,
}

/// Keys and values, as the device had them.
#[derive(Clone)]
pub struct SavedKv {
    /// Who can use them: the same model and adapters, and the same layout.
    pub key: Hash,
    /// Positions, from the first.
    pub positions: u32,
    /// By block: keys, then values, page after page.
    pub bytes: Bytes,
}

impl PartialEq for SavedKv {
    fn eq(&self, other: &Self) -> bool {
        (self.key, self.positions, &*self.bytes) == (other.key, other.positions, &*other.bytes)
    }
}

impl std::fmt::Debug for SavedKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SavedKv({} positions, {} bytes)", self.positions, self.bytes.len())
    }
}

impl Saved {
    /// Writes it.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let before = self.before_kv()?;
        let kv = self.kv.as_ref().map_or(&[][..], |kv| &kv.bytes);
        let total = HEAD + before.len() + kv.len() + SUM;
        let mut sum = Sha256::new();
        let mut put = |bytes: &[u8]| {
            sum.update(bytes);
            out.write_all(bytes)
        };
        put(MAGIC)?;
        put(&VERSION.to_le_bytes())?;
        put(&(total as u64).to_le_bytes())?;
        put(&before)?;
        put(kv)?;
        out.write_all(&sum.finalize())
    }

    /// Everything between the head and the bytes of the keys and values.
    fn before_kv(&self) -> io::Result<Vec<u8>> {
        let transcript = match self.transcript.is_empty() {
            true => Vec::new(),
            false => {
                serde_json::to_vec(&self.transcript.iter().map(|message| &message.0).collect::<Vec<_>>())?
            }
        };
        let mut out = self.model.to_vec();
        let sinks = match self.overflow {
            Overflow::Stop => None,
            Overflow::Slide { sinks } => Some(sinks),
        };
        out.push(sinks.is_some().into());
        out.extend(sinks.iter().flat_map(|sinks| sinks.to_le_bytes()));
        out.extend(KV_TYPES.iter().zip(0..).filter(|(kv, _)| **kv == self.kv_type).map(|(_, code)| code));
        out.extend((self.history.len() as u32).to_le_bytes());
        out.extend(self.history.iter().flat_map(|token| token.to_le_bytes()));
        out.extend((transcript.len() as u64).to_le_bytes());
        out.extend(transcript);
        out.push(self.answer.is_some().into());
        if let Some(Unfinished { prompt_tokens, seed, limit }) = self.answer {
            out.extend(prompt_tokens.to_le_bytes());
            out.push(seed.is_some().into());
            out.extend(seed.iter().flat_map(|seed| seed.to_le_bytes()));
            out.push(limit.is_some().into());
            out.extend(limit.iter().flat_map(|limit| limit.to_le_bytes()));
        }
        out.push(self.kv.is_some().into());
        if let Some(kv) = &self.kv {
            out.extend(kv.key);
            out.extend(kv.positions.to_le_bytes());
            out.extend((kv.bytes.len() as u64).to_le_bytes());
        }
        Ok(out)
    }

    /// Reads one. Keys and values stay where they are in `bytes`.
    ///
    /// # Errors
    /// `Unsupported` for a newer version; `BadFile` for everything that is not a saved session to the last bit.
    pub fn read(bytes: &Bytes) -> Result<Self> {
        let refuse = |what: &str| Err(Error::bad_file(what));
        if !bytes.starts_with(MAGIC) {
            return refuse("this is not a saved session");
        }
        let mut head = Cursor { bytes, at: MAGIC.len(), end: bytes.len() };
        let version = head.u32()?;
        if version > VERSION {
            let what =
                format!("the session was saved by a newer program: version {version} and not {VERSION}");
            return Err(Error::unsupported(what).hint("update this program, or begin a new session"));
        }
        let total = head.u64()?;
        if total != bytes.len() as u64 || bytes.len() < HEAD + SUM {
            return refuse(&format!("the session has {} bytes and says {total}", bytes.len()));
        }
        let (content, sum) = bytes.split_at(bytes.len() - SUM);
        if Sha256::digest(content)[..] != *sum || version == 0 {
            return refuse("the session is damaged: its checksum is wrong");
        }
        let mut body = Cursor { bytes, at: HEAD, end: content.len() };
        let saved = Self::parse(&mut body, version)?;
        match body.at == body.end {
            true => Ok(saved),
            false => refuse("the session has bytes that mean nothing"),
        }
    }

    fn parse(body: &mut Cursor<'_>, version: u32) -> Result<Self> {
        let model = body.array()?;
        let slides = version > 1 && body.flag()?;
        let overflow = if slides { Overflow::Slide { sinks: body.u32()? } } else { Overflow::Stop };
        let kv_type = if version > 2 { body.kv_type()? } else { None };
        let count = body.u32()?;
        let history = body.take(u64::from(count) * 4)?;
        let history: Vec<u32> = history
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let length = body.u64()?;
        let transcript = transcript(body.take(length)?)?;
        let answer = match body.flag()? {
            false => None,
            true => {
                let prompt_tokens = body.u32()?;
                let seed = if body.flag()? { Some(body.u64()?) } else { None };
                if prompt_tokens == 0 || prompt_tokens > count {
                    return Err(Error::bad_file("the answer under way is not in the session's history"));
                }
                // The first version knew no mirostat.
                let has_limit = version > 1 && body.flag()?;
                let limit = if has_limit { Some(f64::from_bits(body.u64()?)) } else { None };
                if limit.is_some_and(|limit| !limit.is_finite()) {
                    return Err(Error::bad_file("the limit of the answer under way is no number"));
                }
                Some(Unfinished { prompt_tokens, seed, limit })
            }
        };
        let kv = match body.flag()? {
            false => None,
            true => {
                let (key, positions, length) = (body.array()?, body.u32()?, body.u64()?);
                if positions > count {
                    return Err(Error::bad_file("the session has more keys and values than tokens"));
                }
                Some(SavedKv { key, positions, bytes: body.bytes_of(length)? })
            }
        };
        Ok(Self { model, overflow, kv_type, history, transcript, answer, kv })
    }
}

/// The messages of a conversation.
fn transcript(json: &[u8]) -> Result<Vec<Message>> {
    if json.is_empty() {
        return Ok(Vec::new());
    }
    let messages: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(json).map_err(|error| {
            Error::new(Kind::BadFile, "the session's transcript is no list of messages").caused_by(error)
        })?;
    Ok(messages.into_iter().map(Message).collect())
}

/// A place in bytes whose lengths are not believed.
struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
}

impl Cursor<'_> {
    fn range(&mut self, count: u64) -> Result<std::ops::Range<usize>> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let Some(end) = end.filter(|&end| end <= self.end) else {
            let what = format!("{count} bytes are due and {} are left", self.end - self.at);
            return Err(Error::bad_file(what).at_offset(self.at as u64));
        };
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn take(&mut self, count: u64) -> Result<&[u8]> {
        let range = self.range(count)?;
        Ok(&self.bytes[range])
    }

    fn bytes_of(&mut self, count: u64) -> Result<Bytes> {
        let range = self.range(count)?;
        self.bytes.slice(range).ok_or_else(|| Error::internal("a range that was checked"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn kv_type(&mut self) -> Result<Option<KvType>> {
        let (at, [code]) = (self.at as u64, self.array()?);
        let unknown = || Error::bad_file(format!("{code} is no type of keys and values")).at_offset(at);
        KV_TYPES.get(usize::from(code)).copied().ok_or_else(unknown)
    }

    fn flag(&mut self) -> Result<bool> {
        let at = self.at as u64;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Error::bad_file(format!("{other} is neither yes nor no")).at_offset(at)),
        }
    }
}
