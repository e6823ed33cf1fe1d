//! The file while it is written: `OUT.part`, whose whole tensors are kept when a run ends early.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::format::{GgufHead, Metadata, NewTensor};

/// A file that gets its name when it is whole.
#[derive(Debug)]
pub(super) struct Part {
    out: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    head: GgufHead,
    /// Bytes of the tensor under way that are still to come.
    missing: u64,
    next: usize,
}

impl Part {
    /// Begins the file, or takes up what an earlier run of the same settings has left; gives how many tensors are there.
    pub(super) fn open(out: &Path, metadata: &Metadata, tensors: &[NewTensor]) -> Result<(Self, usize)> {
        let head = GgufHead::new(metadata, tensors)?;
        let mut name =
            out.file_name().ok_or_else(|| Error::invalid("this names no file").in_file(out))?.to_owned();
        name.push(".part");
        let path = out.with_file_name(name);
        let located = |error: std::io::Error| Error::from(error).in_file(&path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(located)?;
        file.try_lock().map_err(|error| {
            Error::new(Kind::Io, format!("the file cannot be had alone: {error}"))
                .in_file(&path)
                .hint("wait for the run that writes it, or name another file")
        })?;
        let len = file.metadata().map_err(located)?.len();
        let mut bytes = vec![0; head.bytes().len()];
        let is_same =
            len >= bytes.len() as u64 && file.read_exact(&mut bytes).is_ok() && bytes == head.bytes();
        let there = if is_same { head.ends().take_while(|&end| end <= len).count() } else { 0 };
        let end = head.ends().take(there).last().unwrap_or(head.bytes().len() as u64);
        file.set_len(if is_same { end } else { 0 }).map_err(located)?;
        file.seek(SeekFrom::End(0)).map_err(located)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        if !is_same {
            file.write_all(head.bytes()).map_err(located)?;
        }
        Ok((Self { out: out.to_owned(), path, file, head, missing: 0, next: there }, there))
    }

    /// The next tensor.
    pub(super) fn begin(&mut self, tensor: &NewTensor) -> Result<()> {
        self.missing = tensor.bytes()?;
        self.next += 1;
        Ok(())
    }

    /// Bytes of the tensor.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let more = || Error::internal("more bytes than the tensor has");
        self.missing = self.missing.checked_sub(bytes.len() as u64).ok_or_else(more)?;
        let padding = if self.missing == 0 { self.head.padding(self.next - 1) } else { 0 };
        let written = self.file.write_all(bytes).and_then(|()| self.file.write_all(&[0; 32][..padding]));
        written.map_err(|error| Error::from(error).in_file(&self.path))
    }

    /// Gives the file its name; its bytes.
    pub(super) fn finish(mut self) -> Result<u64> {
        if self.missing > 0 {
            return Err(Error::internal(format!("{} bytes of a tensor are missing", self.missing)));
        }
        let located = |error: std::io::Error| Error::from(error).in_file(&self.path);
        self.file.flush().map_err(located)?;
        let file = self.file.get_ref();
        file.sync_all().map_err(located)?;
        let bytes = file.metadata().map_err(located)?.len();
        fs::rename(&self.path, &self.out).map_err(located)?;
        Ok(bytes)
    }
}
