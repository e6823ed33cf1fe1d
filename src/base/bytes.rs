//! Bytes that are cheap to clone and to cut: a mapped file, or memory that somebody handed over.

use std::fmt;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Kind, Result};

/// A shared, immutable run of bytes. Cloning and slicing copy nothing.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

enum Owner {
    Mapped(Mmap),
    Owned(Vec<u8>),
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps a file. The pages are read when touched and can be dropped by the system at any time.
    ///
    /// # Errors
    /// [`Kind::NotFound`] or [`Kind::Io`] with the path.
    pub fn map(path: &Path) -> Result<Self> {
        let located = |error: std::io::Error| Error::from(error).in_file(path);
        // Before it is opened: opening a pipe waits for its writer.
        let metadata = std::fs::metadata(path).map_err(located)?;
        if !metadata.is_file() {
            return Err(Error::new(Kind::Io, "not a regular file").in_file(path));
        }
        let file = File::open(path).map_err(located)?;
        if metadata.len() == 0 {
            // An empty file cannot be mapped on every system; it is still a file of no bytes.
            return Ok(Self::from(Vec::new()));
        }
        // SAFETY: the map is read-only and private to this value. Another process that truncates the file
        // can still raise SIGBUS; the documentation of `Model` tells users not to change a file in use.
        let map = unsafe { Mmap::map(&file) }.map_err(located)?;
        let range = 0..map.len();
        Ok(Self { owner: Arc::new(Owner::Mapped(map)), range })
    }

    /// Tells the system that these bytes are not needed for a while: pages of a mapped file leave memory, and are read
    /// again when touched. Other bytes stay.
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }

    /// The same for the whole file that they are a part of.
    pub fn release_file(&self) {
        if let Owner::Mapped(map) = &*self.owner {
            self.owner.release(0..map.len());
        }
    }

    /// The bytes `range` of these, or `None` where that reaches past the end.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Self { owner: self.owner.clone(), range: start..start + range.len() })
    }
}

impl Owner {
    #[cfg(unix)]
    fn release(&self, range: Range<usize>) {
        if let Self::Mapped(map) = self {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is read-only and of a file, so a page that is dropped comes back with the same bytes.
            let advised = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
            // A system that does not follow the advice keeps the pages; nothing else depends on it.
            _ = advised;
        }
    }

    /// There is no such advice.
    #[cfg(not(unix))]
    fn release(&self, _range: Range<usize>) {}
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &*self.owner {
            Owner::Mapped(map) => map,
            Owner::Owned(bytes) => bytes,
            Owner::Static(bytes) => bytes,
        };
        &whole[self.range.clone()]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(Owner::Owned(bytes)), range }
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self { owner: Arc::new(Owner::Static(bytes)), range: 0..bytes.len() }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_inside() {
        let bytes = Bytes::from(vec![0, 1, 2, 3, 4]);
        let middle = bytes.slice(1..4).unwrap();
        assert_eq!(&*middle, &[1, 2, 3]);
        assert_eq!(&*middle.slice(2..3).unwrap(), &[3]);
        assert!(middle.slice(2..4).is_none());
        let backwards = Range { start: 3, end: 2 };
        assert!(bytes.slice(backwards).is_none());
    }

    #[test]
    fn released_bytes_come_back() {
        let path = std::env::temp_dir().join(format!("pocketlm-release-{}", std::process::id()));
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = Bytes::map(&path).unwrap();
        let part = bytes.slice(5000..50_000).unwrap();
        for bytes in [&part, &bytes, &Bytes::from(content.clone())] {
            bytes.release();
            bytes.release_file();
        }
        assert_eq!((&*part, &*bytes), (&content[5000..50_000], &content[..]));
        std::fs::remove_file(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let path = std::env::temp_dir().join(format!("pocketlm-pipe-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let refused = Bytes::map(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(refused.unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Bytes::map(Path::new("no/such/file.gguf")).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("no/such/file.gguf"));
    }
}
