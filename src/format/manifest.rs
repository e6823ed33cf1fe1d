//! What the files of a model must hold, byte for byte: a JSON file with the SHA-256 of every chunk of every file, which
//! may be signed with minisign (<https://jedisct1.github.io/minisign/>).
//!
//! ```json
//! {"pocketlm_manifest": 1, "chunk_bytes": 4194304,
//!  "files": [{"name": "model.gguf", "bytes": 98362432, "chunks": ["64 hexadecimal digits", "…"]}]}
//! ```
//!
//! Names are relative to the folder of the model, with `/` between parts. A file that is read and not in the manifest is
//! refused, and so is one that is in the manifest and not there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::Bytes;
use crate::error::{Error, Kind, Result};

use super::Files;

const VERSION: u32 = 1;
/// Bytes of a chunk in the manifests that are written here.
const CHUNK: u64 = 4 << 20;
/// The sizes of chunks that are taken.
const CHUNKS: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 30;
/// Bytes of a manifest: at 4 MiB a chunk, enough for half a terabyte.
const MOST: usize = 16 << 20;
/// Bytes of a signature file: four short lines.
const MOST_OF_A_SIGNATURE: usize = 16 << 10;

/// What the files of a model must hold. Reading one proves that it is sound, and with a key, who signed it; loading a
/// model with it ([`crate::LoadOptions::verify`]) proves the same of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    chunk_bytes: u64,
    /// By name.
    files: BTreeMap<String, Entry>,
    trusted_comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    bytes: u64,
    chunks: Vec<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    pocketlm_manifest: u32,
    chunk_bytes: u64,
    files: Vec<JsonFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonFile {
    name: String,
    bytes: u64,
    chunks: Vec<String>,
}

/// A part of a file, and what it must be.
#[derive(Clone, Debug)]
pub struct Chunk {
    file: PathBuf,
    number: usize,
    /// Where it begins.
    offset: u64,
    bytes: Bytes,
    sha256: [u8; 32],
}

impl Manifest {
    /// Reads the manifest at `path`: believed as it is, so it should come with the app and not with the model.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `BadFile` where it is no manifest, `Unsupported` where it is a newer one.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(&Bytes::map(path)?).map_err(|error| error.in_file(path))
    }

    /// Reads the manifest at `path` after checking its signature, which stands beside it in `path` + `.minisig`, against
    /// `key`: minisign's public key, with or without the comment above it.
    ///
    /// # Errors
    /// As [`Self::read`]; `BadFile` where the signature is not by `key` over this file, `InvalidArgument` where `key` is
    /// no key.
    pub fn read_signed(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        let path = path.as_ref();
        let mut signature = path.as_os_str().to_owned();
        signature.push(".minisig");
        let signature = Path::new(&signature);
        let signed =
            Bytes::map(signature).map_err(|error| error.hint("a manifest with a key needs its signature"))?;
        Self::parse_signed(&Bytes::map(path)?, &signed, key).map_err(|error| error.in_file(path))
    }

    /// The manifest in `json`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(json: &[u8]) -> Result<Self> {
        let refuse = |what: String| Err(Error::bad_file(what));
        if json.len() > MOST {
            return refuse(format!("a manifest of {} bytes; at most {MOST} are allowed", json.len()));
        }
        #[derive(Deserialize)]
        struct Version {
            pocketlm_manifest: u32,
        }
        let wrong = |error: serde_json::Error| Error::bad_file("this is no manifest").caused_by(error);
        let Version { pocketlm_manifest } = serde_json::from_slice(json).map_err(wrong)?;
        if pocketlm_manifest > VERSION {
            let what = format!("a manifest of version {pocketlm_manifest}, and not {VERSION}");
            return Err(Error::unsupported(what).hint("update this program"));
        }
        let Json { pocketlm_manifest, chunk_bytes, files } = serde_json::from_slice(json).map_err(wrong)?;
        if pocketlm_manifest != VERSION || !CHUNKS.contains(&chunk_bytes) {
            return refuse(format!(
                "a manifest of version {pocketlm_manifest} with chunks of {chunk_bytes} bytes"
            ));
        }
        let mut entries = BTreeMap::new();
        for JsonFile { name, bytes, chunks } in files {
            let at = |error: Error| error.at(format!("file {name:?}"));
            if !is_plain(&name) {
                return Err(at(Error::bad_file("the name does not stay in the folder of the model")));
            }
            if chunks.len() as u64 != bytes.div_ceil(chunk_bytes) {
                let what = format!("{} chunks of {chunk_bytes} bytes are not {bytes} bytes", chunks.len());
                return Err(at(Error::bad_file(what)));
            }
            let no_hash = || at(Error::bad_file("a chunk without 64 lower-case hexadecimal digits"));
            let chunks =
                chunks.iter().map(|chunk| unhex(chunk).ok_or_else(no_hash)).collect::<Result<_>>()?;
            if entries.insert(name.clone(), Entry { bytes, chunks }).is_some() {
                return Err(at(Error::bad_file("the file is there twice")));
            }
        }
        match entries.is_empty() {
            true => refuse("a manifest of no files".into()),
            false => Ok(Self { chunk_bytes, files: entries, trusted_comment: None }),
        }
    }

    /// The manifest in `json`, after checking that `signature` is by `key` over it.
    ///
    /// # Errors
    /// As [`Self::read_signed`].
    pub fn parse_signed(json: &[u8], signature: &[u8], key: &str) -> Result<Self> {
        let no_key = |error| Error::invalid("this is no public key of minisign").caused_by(error);
        let line = key.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let key = PublicKey::from_base64(line).map_err(no_key)?;
        let refuse = |what: &str| Error::bad_file(what).at("signature");
        let text = std::str::from_utf8(signature).ok().filter(|text| text.len() <= MOST_OF_A_SIGNATURE);
        let text = text.ok_or_else(|| refuse("this is no signature of minisign"))?;
        let signature = Signature::decode(text)
            .map_err(|error| refuse("this is no signature of minisign").caused_by(error))?;
        // Not before the signature is right is the JSON looked at.
        key.verify(json, &signature, false).map_err(|error| {
            refuse("the manifest is not what the owner of the key signed").caused_by(error)
        })?;
        let trusted_comment = Some(signature.trusted_comment().to_owned());
        Ok(Self { trusted_comment, ..Self::parse(json)? })
    }

    /// What the signer says of the manifest, under the same signature; without one, nothing. What minisign calls the
    /// untrusted comment is not looked at.
    pub fn trusted_comment(&self) -> Option<&str> {
        self.trusted_comment.as_deref()
    }

    /// The manifest of `files` as they are, named from `root`.
    ///
    /// # Errors
    /// `InvalidArgument` where one is not below `root`.
    pub fn of(root: &Path, files: &Files) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for (path, bytes) in files.all() {
            let name = name_in(root, &path)?;
            let mut chunks = Vec::new();
            for range in ranges(bytes.len(), CHUNK) {
                let chunk = bytes.slice(range).ok_or_else(|| Error::internal("a chunk beyond its file"))?;
                chunks.push(Sha256::digest(&*chunk).into());
                chunk.release();
            }
            entries.insert(name, Entry { bytes: bytes.len() as u64, chunks });
        }
        Ok(Self { chunk_bytes: CHUNK, files: entries, trusted_comment: None })
    }

    /// The manifest as it is kept, and signed.
    ///
    /// # Errors
    /// None but `Internal`.
    pub fn to_json(&self) -> Result<String> {
        let of = |(name, entry): (&String, &Entry)| JsonFile {
            name: name.clone(),
            bytes: entry.bytes,
            chunks: entry.chunks.iter().map(hex).collect(),
        };
        let files = self.files.iter().map(of).collect();
        let json = Json { pocketlm_manifest: VERSION, chunk_bytes: self.chunk_bytes, files };
        let text = serde_json::to_string_pretty(&json);
        Ok(text.map_err(|error| Error::internal("the manifest cannot be written").caused_by(error))? + "\n")
    }

    /// Names and sizes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files.iter().map(|(name, entry)| (name.as_str(), entry.bytes))
    }

    /// The chunks of `files`, named from `root`, each with what it must be.
    ///
    /// # Errors
    /// `BadFile` where a file is not in the manifest or of another size; where one of the manifest is not there.
    pub fn chunks(&self, root: &Path, files: &BTreeMap<PathBuf, Bytes>) -> Result<Vec<Chunk>> {
        let mut all = Vec::new();
        for (path, bytes) in files {
            let at = |error: Error| error.in_file(path);
            let entry = name_in(root, path).ok().and_then(|name| self.files.get(&name));
            let Some(entry) = entry else {
                return Err(at(Error::bad_file("the manifest does not know the file")));
            };
            if entry.bytes != bytes.len() as u64 {
                let what = format!("{} bytes, where the manifest says {}", bytes.len(), entry.bytes);
                return Err(at(Error::bad_file(what)));
            }
            for (number, (range, &sha256)) in
                ranges(bytes.len(), self.chunk_bytes).zip(&entry.chunks).enumerate()
            {
                let offset = range.start as u64;
                let bytes = bytes.slice(range).ok_or_else(|| Error::internal("a chunk beyond its file"))?;
                all.push(Chunk { file: path.clone(), number, offset, bytes, sha256 });
            }
        }
        for name in self.files.keys() {
            let path = root.join(name);
            if !files.contains_key(&path) && !path.is_file() {
                return Err(Error::bad_file("a file of the manifest is not there").in_file(path));
            }
        }
        Ok(all)
    }

    /// The files of the manifest below `root`, those that are there.
    pub fn present(&self, root: &Path) -> BTreeMap<PathBuf, Bytes> {
        let paths = self.files.keys().map(|name| root.join(name));
        paths.filter_map(|path| Some((path.clone(), Bytes::map(&path).ok()?))).collect()
    }
}

impl Chunk {
    /// Whether it is what it must be.
    ///
    /// # Errors
    /// `BadFile` with the file, the chunk and the byte where it begins.
    pub fn check(&self) -> Result<()> {
        let is = Sha256::digest(&*self.bytes);
        // A loader that is slower reads it again, from the system's cache.
        self.bytes.release();
        if is[..] == self.sha256 {
            return Ok(());
        }
        Err(Error::new(Kind::BadFile, "the file is not what the manifest says")
            .at(format!("chunk {}", self.number))
            .at_offset(self.offset)
            .in_file(&self.file)
            .hint("get the file again"))
    }
}

/// Whether `name` stays in its folder, on every system.
fn is_plain(name: &str) -> bool {
    let parts = || name.split('/');
    let is_normal = |part: &str| matches!(Path::new(part).components().next(), Some(Component::Normal(whole)) if whole == part);
    parts().all(is_normal) && !name.contains(['\\', ':', '\0'])
}

/// The name of `path` in a manifest of `root`.
fn name_in(root: &Path, path: &Path) -> Result<String> {
    let inside = path.strip_prefix(root).ok().and_then(Path::to_str);
    let name = inside.map(|name| name.replace(std::path::MAIN_SEPARATOR, "/")).filter(|name| is_plain(name));
    name.ok_or_else(|| {
        Error::invalid("the file is not in the folder of the model, so that no manifest can name it")
            .in_file(path)
    })
}

/// The chunks of a file.
fn ranges(len: usize, chunk: u64) -> impl Iterator<Item = std::ops::Range<usize>> {
    let chunk = usize::try_from(chunk).unwrap_or(usize::MAX);
    (0..len).step_by(chunk).map(move |start| start..len.min(start.saturating_add(chunk)))
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let value = |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = 16 * value(pair[0]) + value(pair[1]);
    }
    Some(hash)
}
