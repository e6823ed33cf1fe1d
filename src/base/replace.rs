//! Files that are whole at any moment: the old content or the new, never a part of either.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// What a process that was killed has left is removed after this long.
const STALE: Duration = Duration::from_secs(600);

/// Puts what `write` writes in the place of the file at `path`: it stands beside it under another name until the disk has
/// it, then takes its name. Whoever is stopped on the way, by whatever, leaves the file as it was. Only this user can
/// read the new file.
///
/// # Errors
/// [`Kind::Io`] and what `write` returns, with the path; the file is as it was.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let located = |error: io::Error| Error::from(error).in_file(path);
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
        return Err(Error::new(Kind::Io, "not a regular file").in_file(path));
    }
    // What a link points to is replaced, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().ok_or_else(|| Error::invalid("this names no file").in_file(path))?;
    let folder = path.parent().filter(|folder| *folder != "").unwrap_or(Path::new("."));
    let mut prefix = name.to_owned();
    prefix.push(".saving-");
    sweep(folder, &prefix);
    let fresh = folder.join(fresh_name(prefix));
    let whole = write_whole(&fresh, write).and_then(|()| fs::rename(&fresh, path));
    if whole.is_err() {
        // The error that matters is the one above.
        _ = fs::remove_file(&fresh);
    }
    whole.and_then(|()| sync_folder(folder)).map_err(located)
}

/// A name that no other save has: not of this process, and not of another that runs.
fn fresh_name(mut prefix: OsString) -> OsString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    prefix.push(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    prefix
}

fn write_whole(fresh: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = BufWriter::with_capacity(1 << 16, options.open(fresh)?);
    write(&mut file)?;
    // Without it a file system may take the new name to disk before the bytes.
    file.into_inner()?.sync_all()
}

/// Brings the new name to disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        // Elsewhere a folder cannot be opened as a file; the rename is on its way to disk.
        false => Ok(()),
    }
}

/// Removes what saves of this file have left that were killed.
fn sweep(folder: &Path, prefix: &OsString) {
    let Ok(found) = fs::read_dir(folder) else { return };
    for entry in found.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        let age = || entry.metadata().and_then(|data| data.modified()).ok()?.elapsed().ok();
        if is_ours && age().is_some_and(|age| age > STALE) {
            // Left for the next time where it cannot be removed.
            _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pocketlm-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_as_it_was() {
        let folder = Folder::new("replace");
        let path = folder.0.join("a");
        replace(&path, |out| out.write_all(b"old")).unwrap();
        let refused = replace(&path, |out| {
            out.write_all(&[1; 100_000])?;
            Err(io::Error::other("planted"))
        });
        assert!(refused.unwrap_err().to_string().contains("planted"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        replace(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(&folder.0)), (b"new".to_vec(), vec!["a".into()]));
        assert_eq!(replace(&folder.0, |_| Ok(())).unwrap_err().kind(), Kind::Io);
        assert!(replace(&folder.0.join("none/a"), |_| Ok(())).is_err());
    }

    #[test]
    fn what_a_killed_save_left_goes_when_it_is_old() {
        let folder = Folder::new("sweep");
        let [old, young, other] =
            ["a.saving-1-0", "a.saving-2-0", "b.saving-1-0"].map(|name| folder.0.join(name));
        for path in [&old, &young, &other] {
            fs::write(path, "part").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * STALE;
        for path in [&old, &other] {
            File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
        replace(&folder.0.join("a"), |_| Ok(())).unwrap();
        assert_eq!(names(&folder.0), ["a", "a.saving-2-0", "b.saving-1-0"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_others_cannot_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("link");
        let (path, link) = (folder.0.join("a"), folder.0.join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, |out| out.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
