//! The driver's own cache of compiled pipelines, kept in a file by device, driver and version where the backend has one
//! (Vulkan). Drivers of desktops keep caches themselves; those of phones leave it to the program.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use super::device::Device;
use super::tune;
use crate::base::checksum;
use crate::error::{Error, Result};

/// The most bytes that are read or written: several times what all kernels of a model compile to.
const MOST_BYTES: u64 = 64 << 20;
/// The most files that are kept; those of old drivers and versions go first.
const MOST_FILES: usize = 4;
/// The beginning of a file; its checksum and the driver's bytes follow.
const MAGIC: &[u8; 8] = b"PLMPIPE1";
const HEADER: usize = MAGIC.len() + size_of::<u64>();

/// A cache that pipelines are compiled with.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) raw: wgpu::PipelineCache,
    file: PathBuf,
    /// Checksum of what the file holds.
    kept: Option<u64>,
}

impl Cache {
    /// The cache in `folder`, empty where there is none or none that is whole; `None` where the backend has no such thing.
    pub(super) fn open(device: &Device, folder: &Path) -> Result<Option<Self>> {
        if !device.raw.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(None);
        }
        let key = tune::name(&device.info);
        let file = folder.join(format!("pipelines-{:016x}.bin", checksum(key.as_bytes())));
        let data = read(&file).unwrap_or_else(|error| {
            log::warn!("{} is not used: {error}", file.display());
            None
        });
        match create(device, data.as_deref()) {
            Ok(raw) => Ok(Some(Self { raw, file, kept: data.as_deref().map(checksum) })),
            // wgpu takes data of another driver as none, and those of another device as a mistake.
            Err(error) if data.is_some() => {
                log::warn!("{} is not used: {error}", file.display());
                Ok(Some(Self { raw: create(device, None)?, file, kept: None }))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the file where there is more to keep than it holds.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] with the file.
    pub(super) fn keep(&mut self) -> Result<()> {
        let Some(data) = self.raw.get_data().filter(|data| data.len() as u64 <= MOST_BYTES) else {
            return Ok(());
        };
        let sum = checksum(&data);
        if self.kept != Some(sum) {
            write(&self.file, &data).map_err(|error| Error::from(error).in_file(&self.file))?;
            self.kept = Some(sum);
        }
        Ok(())
    }
}

fn create(device: &Device, data: Option<&[u8]>) -> Result<wgpu::PipelineCache> {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
    // SAFETY: the data were handed out by the cache of a device of this name, driver and version of the program, which name
    // the file, and are whole: `read` has compared their checksum. Whoever can write into the user's own folder of caches
    // with intent needs no driver to run code.
    device.scoped("pipelines", || unsafe { device.raw.create_pipeline_cache(&descriptor) })
}

/// The driver's bytes in a file; `None` where there is no file.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(about) if about.len() > MOST_BYTES + HEADER as u64 => return refused("it is too large"),
        Ok(_) => {}
    }
    let mut bytes = fs::read(file)?;
    if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
        return refused("it is no file of ours");
    }
    let data = bytes.split_off(HEADER);
    if bytes[MAGIC.len()..] != checksum(&data).to_le_bytes() {
        return refused("it is damaged");
    }
    Ok(Some(data))
}

/// Whole or not at all: two programs may start at the same time.
fn write(file: &Path, data: &[u8]) -> io::Result<()> {
    let Some(folder) = file.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(folder)?;
    let fresh = folder.join(format!("pipelines-{}.new", std::process::id()));
    fs::write(&fresh, [MAGIC, &checksum(data).to_le_bytes()[..], data].concat())?;
    fs::rename(&fresh, file)?;
    forget_all_but(folder, MOST_FILES)
}

/// Removes the oldest files beyond `count`.
fn forget_all_but(folder: &Path, count: usize) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours =
            name.to_str().is_some_and(|name| name.starts_with("pipelines-") && name.ends_with(".bin"));
        if is_ours {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort_unstable();
    let surplus = files.len().saturating_sub(count);
    files[..surplus].iter().try_for_each(|(_, file)| fs::remove_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_refused_and_old_ones_go() {
        let folder = std::env::temp_dir().join(format!("pocketlm-pipelines-{}", std::process::id()));
        let file = folder.join("pipelines-0.bin");
        assert_eq!(read(&file).unwrap(), None);
        write(&file, b"compiled").unwrap();
        assert_eq!(read(&file).unwrap().as_deref(), Some(&b"compiled"[..]));
        let whole = fs::read(&file).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..HEADER - 1], b"", b"PLMPIPE0 and something else"]
        {
            fs::write(&file, damaged).unwrap();
            assert!(read(&file).is_err(), "{damaged:?}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&file, flipped).unwrap();
            assert!(read(&file).is_err(), "byte {at}");
        }
        fs::File::create(&file).unwrap().set_len(MOST_BYTES + HEADER as u64 + 1).unwrap();
        assert!(read(&file).is_err(), "a file without bound is read");
        for i in 1..=MOST_FILES + 2 {
            write(&folder.join(format!("pipelines-{i}.bin")), b"compiled").unwrap();
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), MOST_FILES);
        fs::remove_dir_all(&folder).unwrap();
    }
}
