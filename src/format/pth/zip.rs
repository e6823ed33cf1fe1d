//! The directory of a zip archive whose entries are stored as they are, which is all that torch writes.
//! Layout: PKWARE's APPNOTE 6.3, with the 64-bit records of files beyond 4 GiB.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::base::Bytes;
use crate::error::{Error, Result};

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const LOCATOR_64_BYTES: usize = 20;

/// The tag of the extra field that holds 64-bit sizes and offsets.
const EXTRA_64: u16 = 1;

/// Where the content of each entry lies in the file, by name.
///
/// # Errors
/// `BadFile` where a record is missing, passes the end or contradicts another, where two entries share a name or
/// bytes; `Unsupported` for compressed, encrypted and split archives.
pub(super) fn entries(file: &Bytes) -> Result<BTreeMap<String, Range<usize>>> {
    let (directory, count) = directory(file)?;
    let mut entries = BTreeMap::new();
    // From the local header to the end of the content.
    let mut taken: Vec<Range<usize>> = Vec::new();
    let mut at = directory.start;
    while at < directory.end {
        let entry = Entry::read(file, at, directory.end)?;
        let content = entry.content(file).map_err(|error| error.at(format!("entry {:?}", entry.name)))?;
        if content.end > directory.start {
            return Err(refuse("the content of an entry reaches into the directory", entry.local)
                .at(format!("entry {:?}", entry.name)));
        }
        at = entry.next;
        taken.push(entry.local..content.end);
        if entries.insert(entry.name.to_owned(), content).is_some() {
            return Err(refuse("two entries have the same name", at).at(format!("entry {:?}", entry.name)));
        }
    }
    if entries.len() as u64 != count {
        return Err(refuse(
            format!("the directory has {} entries, the end says {count}", entries.len()),
            directory.start,
        ));
    }
    taken.sort_by_key(|range| range.start);
    match taken.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(pair) => Err(refuse("two entries overlap", pair[1].start)),
        None => Ok(entries),
    }
}

/// Where the directory lies, and how many entries it has.
fn directory(file: &[u8]) -> Result<(Range<usize>, u64)> {
    let end = end(file).ok_or_else(|| {
        refuse("the zip file has no directory at its end", file.len())
            .hint("the file is truncated or damaged: download it again")
    })?;
    let field = |offset| u16_at(file, end + offset);
    if field(4) != Some(0) || field(6) != Some(0) || field(8) != field(10) {
        return Err(Error::unsupported("a zip file in several parts").at_offset(end as u64));
    }
    let [count, size, start] = match end_64(file, end)? {
        Some(fields) => fields,
        None => [
            u64::from(field(10).unwrap_or(0)),
            u64::from(u32_at(file, end + 12).unwrap_or(0)),
            u64::from(u32_at(file, end + 16).unwrap_or(0)),
        ],
    };
    let range =
        start.checked_add(size).filter(|&stop| stop <= end as u64).map(|stop| start as usize..stop as usize);
    let range = range.ok_or_else(|| {
        refuse(format!("the directory, {size} bytes at {start}, lies outside the file"), end)
    })?;
    Ok((range, count))
}

/// Where the end record stands: the last that the comment behind it reaches from to the end of the file.
fn end(file: &[u8]) -> Option<usize> {
    let last = file.len().checked_sub(END_BYTES)?;
    let fits = |&at: &usize| {
        u32_at(file, at) == Some(END)
            && u16_at(file, at + 20)
                .is_some_and(|comment| at + END_BYTES + usize::from(comment) == file.len())
    };
    (last.saturating_sub(usize::from(u16::MAX))..=last).rev().find(fits)
}

/// Count, size and start of the directory as the 64-bit record says, if there is one.
fn end_64(file: &[u8], end: usize) -> Result<Option<[u64; 3]>> {
    let Some(locator) = end.checked_sub(LOCATOR_64_BYTES) else { return Ok(None) };
    if u32_at(file, locator) != Some(LOCATOR_64) {
        return Ok(None);
    }
    let bad = || refuse("the 64-bit end of the directory is not where the file says", locator);
    let at = u64_at(file, locator + 8).and_then(|at| usize::try_from(at).ok()).ok_or_else(bad)?;
    if at.checked_add(END_64_BYTES).is_none_or(|stop| stop > locator) || u32_at(file, at) != Some(END_64) {
        return Err(bad());
    }
    let field = |offset| u64_at(file, at + offset).ok_or_else(bad);
    Ok(Some([field(32)?, field(40)?, field(48)?]))
}

/// A record of the directory.
struct Entry<'a> {
    name: &'a str,
    flags: u16,
    method: u16,
    packed: u64,
    size: u64,
    /// Where the local header stands.
    local: usize,
    /// Where the next record begins.
    next: usize,
}

impl<'a> Entry<'a> {
    fn read(file: &'a [u8], at: usize, end: usize) -> Result<Self> {
        let bad = || refuse("a record of the directory makes no sense", at);
        let short = |offset| u16_at(file, at + offset).ok_or_else(bad);
        let long = |offset| u32_at(file, at + offset).map(u64::from).ok_or_else(bad);
        if end - at < CENTRAL_BYTES || long(0)? != u64::from(CENTRAL) {
            return Err(bad());
        }
        let name_end = at + CENTRAL_BYTES + usize::from(short(28)?);
        let extra_end = name_end + usize::from(short(30)?);
        let next = extra_end + usize::from(short(32)?);
        if next > end {
            return Err(bad());
        }
        let name = std::str::from_utf8(&file[at + CENTRAL_BYTES..name_end])
            .map_err(|error| refuse("the name of an entry is not UTF-8", at).caused_by(error))?;
        let mut wide = [long(24)?, long(20)?, long(42)?];
        widen(&file[name_end..extra_end], &mut wide).ok_or_else(bad)?;
        let [size, packed, local] = wide;
        let local = usize::try_from(local).map_err(|_| bad())?;
        Ok(Self { name, flags: short(8)?, method: short(10)?, packed, size, local, next })
    }

    /// Where the content lies: behind the local header, whose length only it knows.
    fn content(&self, file: &[u8]) -> Result<Range<usize>> {
        let bad = |what: &str| refuse(what, self.local);
        if self.flags & 1 != 0 {
            return Err(Error::unsupported("an encrypted zip file").at_offset(self.local as u64));
        }
        if self.method != 0 {
            return Err(Error::unsupported("a compressed entry")
                .at_offset(self.local as u64)
                .hint("torch stores entries as they are: save the model again with torch.save"));
        }
        if self.packed != self.size {
            return Err(bad("an entry that is stored as it is has two sizes"));
        }
        let missing = || bad("there is no entry where the directory says");
        let header = self.local.checked_add(LOCAL_BYTES).and_then(|stop| file.get(self.local..stop));
        let header = header.filter(|header| u32_at(header, 0) == Some(LOCAL)).ok_or_else(missing)?;
        let [name, extra] = [26, 28].map(|offset| usize::from(u16_at(header, offset).unwrap_or(0)));
        let name_at = self.local + LOCAL_BYTES;
        if file.get(name_at..name_at + name) != Some(self.name.as_bytes()) {
            return Err(bad("an entry has another name than in the directory"));
        }
        let start = name_at + name + extra;
        let end = usize::try_from(self.size).ok().and_then(|size| start.checked_add(size));
        end.filter(|&end| end <= file.len())
            .map(|end| start..end)
            .ok_or_else(|| bad("the content of an entry passes the end of the file"))
    }
}

/// Replaces the fields that are all ones by those of the 64-bit extra field, in their order.
fn widen(mut extra: &[u8], fields: &mut [u64; 3]) -> Option<()> {
    let is_wide = |field: &u64| *field == u64::from(u32::MAX);
    while fields.iter().any(is_wide) {
        let (tag, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let mut data = extra.get(4..4 + length)?;
        extra = &extra[4 + length..];
        if tag != EXTRA_64 {
            continue;
        }
        for field in fields.iter_mut().filter(|field| is_wide(field)) {
            *field = u64_at(data, 0)?;
            data = &data[8..];
        }
        return Some(());
    }
    Some(())
}

fn refuse(what: impl Into<String>, at: usize) -> Error {
    Error::bad_file(what).at_offset(at as u64)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// An entry as it stands in a file.
    #[derive(Clone, Default)]
    struct Planted {
        name: &'static str,
        content: &'static [u8],
        flags: u16,
        method: u16,
        /// What the directory says of the size, where it lies.
        size: Option<u32>,
        extra: Vec<u8>,
        local: Option<u32>,
    }

    fn archive(planted: &[Planted]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for entry in planted {
            let at = file.len() as u32;
            let halves = |out: &mut Vec<u8>, halves: &[u16]| {
                out.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
            };
            let (name, length) = (entry.name.len() as u16, entry.content.len() as u32);
            let size = entry.size.unwrap_or(length).to_le_bytes();
            file.extend(LOCAL.to_le_bytes());
            halves(&mut file, &[0, entry.flags, entry.method, 0, 0, 0, 0, 0, 0, 0, 0, name, 0]);
            file.extend(entry.name.bytes().chain(entry.content.iter().copied()));
            directory.extend(CENTRAL.to_le_bytes());
            halves(&mut directory, &[0, 0, entry.flags, entry.method, 0, 0, 0, 0]);
            directory.extend(size.into_iter().chain(size));
            halves(&mut directory, &[name, entry.extra.len() as u16, 0, 0, 0, 0, 0]);
            directory.extend(entry.local.unwrap_or(at).to_le_bytes());
            directory.extend(entry.name.bytes().chain(entry.extra.iter().copied()));
        }
        let (start, count) = (file.len() as u32, (planted.len() as u16).to_le_bytes());
        let size = directory.len() as u32;
        file.extend(directory);
        file.extend(END.to_le_bytes());
        file.extend([0; 4].into_iter().chain(count).chain(count));
        file.extend(size.to_le_bytes().into_iter().chain(start.to_le_bytes()).chain([0; 2]));
        file
    }

    fn named(name: &'static str) -> Planted {
        Planted { name, content: b"0123456789abcdef", ..Planted::default() }
    }

    #[test]
    fn stored_entries_are_found() {
        let file = Bytes::from(archive(&[named("a"), named("b")]));
        let found = entries(&file).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.values().all(|range| &file[range.clone()] == b"0123456789abcdef"));
    }

    #[test]
    fn sizes_of_64_bits_are_read_where_the_short_field_is_full() {
        let extra =
            [&[9, 9, 1, 0, 7], &[1, 0, 16, 0][..], &16u64.to_le_bytes(), &16u64.to_le_bytes()].concat();
        let wide = Planted { size: Some(u32::MAX), extra, ..named("a") };
        let file = Bytes::from(archive(std::slice::from_ref(&wide)));
        assert_eq!(&file[entries(&file).unwrap()["a"].clone()], b"0123456789abcdef");
        let short = Planted { extra: wide.extra[..12].to_vec(), ..wide };
        assert!(entries(&archive(&[short]).into()).is_err());
    }

    #[test]
    fn what_contradicts_is_refused() {
        let cases = [
            (vec![named("a"), named("a")], Kind::BadFile, "the same name"),
            (vec![named("a"), Planted { local: Some(0), ..named("a") }], Kind::BadFile, "the same name"),
            (vec![named("a"), Planted { local: Some(0), ..named("b") }], Kind::BadFile, "another name"),
            (vec![Planted { size: Some(17), ..named("a") }], Kind::BadFile, "reaches into the directory"),
            (vec![Planted { size: Some(17), ..named("a") }, named("b")], Kind::BadFile, "overlap"),
            (vec![Planted { size: Some(1 << 30), ..named("a") }], Kind::BadFile, "passes the end"),
            (vec![Planted { local: Some(1 << 30), ..named("a") }], Kind::BadFile, "no entry where"),
            (vec![Planted { flags: 1, ..named("a") }], Kind::Unsupported, "encrypted"),
            (vec![Planted { method: 8, ..named("a") }], Kind::Unsupported, "compressed"),
        ];
        for (planted, kind, says) in cases {
            let error = entries(&archive(&planted).into()).expect_err(says);
            assert!(error.kind() == kind && error.to_string().contains(says), "{says}: {error:?}");
        }
        let mut miscounted = archive(&[named("a")]);
        let count = miscounted.len() - END_BYTES + 8;
        (miscounted[count], miscounted[count + 2]) = (2, 2);
        assert!(
            entries(&miscounted.into()).unwrap_err().to_string().contains("has 1 entries, the end says 2")
        );
    }
}
