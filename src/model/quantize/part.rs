//! The file while it is written: what a run that ended early has left of it is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::format::{Head, Place};

/// A file under a name of its own until it is whole.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    places: Vec<Place>,
    /// Bytes that have been written of each tensor.
    written: Vec<u64>,
}

impl Part {
    /// Begins the file, or takes up what an earlier run has left of the same; `groups` says how many tensors each item has.
    /// Gives how many items are there.
    pub(super) fn open(
        path: &Path,
        head: Head,
        groups: impl Iterator<Item = usize>,
    ) -> Result<(Self, usize)> {
        let located = |error: std::io::Error| Error::from(error).in_file(path);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(located)?;
        file.try_lock().map_err(|error| {
            Error::new(Kind::Io, format!("the file cannot be had alone: {error}"))
                .in_file(path)
                .hint("wait for the run that writes it, or name another file")
        })?;
        let len = file.metadata().map_err(located)?.len();
        let mut bytes = vec![0; head.bytes.len()];
        let is_same = len >= bytes.len() as u64 && file.read_exact(&mut bytes).is_ok() && bytes == head.bytes;
        let (mut whole, mut tensors, mut end) = (0, 0, head.bytes.len() as u64);
        for group in groups {
            let last = head.places[..tensors + group].last();
            let group_end = last.map_or(end, |place| place.start + place.bytes + place.padding);
            if !is_same || group_end > len {
                break;
            }
            (whole, tensors, end) = (whole + 1, tensors + group, group_end);
        }
        file.set_len(if is_same { end } else { 0 }).map_err(located)?;
        if !is_same {
            file.rewind().and_then(|()| file.write_all(&head.bytes)).map_err(located)?;
        }
        let written = vec![0; head.places.len()];
        Ok((Self { path: path.to_owned(), file, places: head.places, written }, whole))
    }

    /// The next bytes of a tensor. The last of an item's are to be written last: then the length of the file tells what is
    /// there.
    pub(super) fn write(&mut self, tensor: usize, bytes: &[u8]) -> Result<()> {
        let Place { start, bytes: most, padding } = self.places[tensor];
        let written = &mut self.written[tensor];
        let at = start + *written;
        *written += bytes.len() as u64;
        if *written > most {
            return Err(Error::internal("more bytes than the tensor has"));
        }
        let padding = if *written == most { padding as usize } else { 0 };
        let mut write = || {
            self.file.seek(SeekFrom::Start(at))?;
            self.file.write_all(bytes)?;
            self.file.write_all(&vec![0; padding])
        };
        write().map_err(|error: std::io::Error| Error::from(error).in_file(&self.path))
    }

    /// Checks that all bytes of a tensor are there.
    pub(super) fn check(&self, tensor: usize) -> Result<()> {
        match self.places[tensor].bytes - self.written[tensor] {
            0 => Ok(()),
            missing => Err(Error::internal(format!("{missing} bytes of a tensor are missing"))),
        }
    }

    /// Hands the file to the disk; its bytes.
    pub(super) fn finish(self) -> Result<u64> {
        let located = |error: std::io::Error| Error::from(error).in_file(&self.path);
        self.file.sync_all().map_err(located)?;
        Ok(self.file.metadata().map_err(located)?.len())
    }
}

/// The name of a file or folder while it is written.
pub(super) fn part_of(out: &Path) -> Result<PathBuf> {
    let mut name =
        out.file_name().ok_or_else(|| Error::invalid("this names no file").in_file(out))?.to_owned();
    name.push(".part");
    Ok(out.with_file_name(name))
}

/// Gives what is whole its name.
pub(super) fn rename(part: &Path, out: &Path) -> Result<()> {
    fs::rename(part, out).map_err(|error| Error::from(error).in_file(part))
}
