//! Weights in the order of the CPU: the rows of a group of sixteen side by side, so that a vector holds the same
//! codes of sixteen outputs and no sum has to be taken across its lanes.
//!
//! Of each block of a group, every unit of the first row (a scale, four bytes of codes) is followed by that of the
//! second, and so on; units are in the order in which products use them ([`Codes::UNITS`]). No byte changes; rows
//! that the last group lacks are zero. The bytes of the file are read once and given back to the system.

use std::fmt::Display;
use std::ops::Range;

use memmap2::MmapMut;

use crate::error::{Error, Kind, Result};
use crate::quant::{Format, Matrix};

use super::codes::{Codes, with_codes};
use super::pool::Pool;
use super::simd::Simd;
use super::spelled;
use super::unit::{Blocks, decode};

/// Rows of a group.
pub(super) const GROUP: usize = 16;
/// Groups that a thread packs at once.
const PIECE: usize = 4;
/// Matrices begin where lines of caches do.
const LINE: usize = 64;
/// A large page of most systems' memory.
const LARGE_PAGE: usize = 2 << 20;

/// The packed matrices of a store, one behind the other: so even small ones lie in large pages, which memory gives a
/// fifth faster.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    bytes: Option<MmapMut>,
    /// Where the next matrix goes.
    at: usize,
}

/// Where a matrix stands on its shelf.
#[derive(Debug)]
pub(super) struct Place {
    range: Range<usize>,
    group_bytes: usize,
    /// Of the format, where its codes are numbers of levels.
    levels: [i8; 16],
}

/// A matrix in groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    group_bytes: usize,
    levels: &'a [i8; 16],
}

impl Shelf {
    /// A shelf with room for these matrices.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`].
    pub(super) fn new<'m>(matrices: impl Iterator<Item = &'m Matrix>) -> Result<Self> {
        let sizes = matrices.filter_map(|m| bytes_of(m.format(), m.rows(), m.cols()));
        let all = sizes.fold(0u64, |all, bytes| all.saturating_add(bytes.saturating_add(LINE as u64 - 1)));
        if all == 0 {
            return Ok(Self::default());
        }
        let none =
            |why: &dyn Display| Error::new(Kind::OutOfMemory, format!("no memory for {all} bytes: {why}"));
        // Room to begin where a large page does. What is not touched takes no memory.
        let spare = if cfg!(target_os = "linux") { LARGE_PAGE as u64 } else { 0 };
        let len = usize::try_from(all.saturating_add(spare)).map_err(|error| none(&error))?;
        let bytes = MmapMut::map_anon(len).map_err(|error| none(&error))?;
        let mut at = 0;
        if cfg!(target_os = "linux") {
            at = bytes.as_ptr().addr().next_multiple_of(LARGE_PAGE) - bytes.as_ptr().addr();
        }
        // None is no failure.
        #[cfg(target_os = "linux")]
        let _ = bytes.advise(memmap2::Advice::HugePage);
        Ok(Self { bytes: Some(bytes), at })
    }

    /// Packs a matrix, or `None` where its format has no codes.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] for one that the shelf was not made for.
    pub(super) fn pack(&mut self, pool: &mut Pool, matrix: &Matrix) -> Result<Option<Place>> {
        with_codes!(matrix.format(), U => self.pack_of::<U>(pool, matrix).map(Some), else Ok(None))
    }

    fn pack_of<U: Codes>(&mut self, pool: &mut Pool, matrix: &Matrix) -> Result<Place> {
        let group_bytes = group_bytes::<U>(matrix.cols());
        let range = self.at..self.at + matrix.rows().div_ceil(GROUP) * group_bytes;
        let bytes = self.bytes.as_mut().and_then(|bytes| bytes.get_mut(range.clone()));
        let bytes = bytes.ok_or_else(|| Error::internal("a matrix that no room was made for"))?;
        let pieces = bytes.chunks_mut(PIECE * group_bytes).enumerate();
        pool.each(pieces, |(piece, bytes)| {
            for (group, bytes) in bytes.chunks_exact_mut(group_bytes).enumerate() {
                let first = (piece * PIECE + group) * GROUP;
                for (row, from) in matrix.rows_in(first..matrix.rows().min(first + GROUP)).enumerate() {
                    let respelled = U::respelled(matrix.format(), &from);
                    pack::<U>(row, respelled.as_deref().unwrap_or(&from), bytes);
                }
            }
        })?;
        matrix.release();
        self.at = range.end.next_multiple_of(LINE);
        Ok(Place { range, group_bytes, levels: spelled::table(matrix.format()) })
    }

    /// The matrix that was put there.
    pub(super) fn get<'a>(&'a self, place: &'a Place) -> Packed<'a> {
        let bytes = self.bytes.as_deref().unwrap_or_default();
        Packed { bytes: &bytes[place.range.clone()], group_bytes: place.group_bytes, levels: &place.levels }
    }
}

impl Place {
    /// Bytes of all groups.
    pub(super) fn bytes(&self) -> usize {
        self.range.len()
    }
}

impl<'a> Packed<'a> {
    /// The levels that codes are the numbers of.
    pub(super) fn levels(self) -> &'a [i8; 16] {
        self.levels
    }

    /// Bytes of all groups.
    pub(super) fn bytes(self) -> usize {
        self.bytes.len()
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(self) -> usize {
        self.group_bytes / GROUP
    }

    /// Decodes row `row` of a matrix of this format; `bytes`, [`Self::row_bytes`], hold it meanwhile.
    #[inline(always)]
    pub(super) fn decode_row<S: Simd>(
        self,
        s: S,
        format: Format,
        row: usize,
        bytes: &mut [u8],
        out: &mut [f32],
    ) {
        let group = &self.bytes[row / GROUP * self.group_bytes..][..self.group_bytes];
        with_codes!(
            format,
            U => {
                unpack::<U>(row % GROUP, group, bytes);
                if U::RESPELLED {
                    spelled::decode(s, self.levels, U::BYTES, bytes, out);
                } else {
                    decode(s, format, bytes, out);
                }
            },
            else unreachable!("only what has codes is packed")
        );
    }

    /// The groups from `first` on, in order.
    pub(super) fn groups(self, first: usize) -> impl Iterator<Item = &'a [u8]> {
        self.bytes[first * self.group_bytes..].chunks_exact(self.group_bytes)
    }
}

/// Bytes of a packed matrix, or `None` where its format has no codes.
pub(in super::super) fn bytes_of(format: Format, rows: usize, cols: usize) -> Option<u64> {
    let groups = rows.div_ceil(GROUP) as u64;
    with_codes!(format, U => groups.checked_mul(group_bytes::<U>(cols) as u64), else None)
}

fn group_bytes<U: Codes>(cols: usize) -> usize {
    GROUP * cols / U::LEN * U::BYTES
}

/// Puts row `row` of a group in its places.
fn pack<U: Codes>(row: usize, from: &[u8], group: &mut [u8]) {
    for (from, to) in from.chunks_exact(U::BYTES).zip(group.chunks_exact_mut(GROUP * U::BYTES)) {
        let mut to = to;
        for units in U::UNITS {
            let len = units.size * units.count;
            let (place, rest) = to.split_at_mut(GROUP * len);
            let from = &from[units.at..units.at + len];
            match units.size {
                4 => put::<4>(row, from, place),
                2 => put::<2>(row, from, place),
                _ => put::<1>(row, from, place),
            }
            to = rest;
        }
    }
}

/// Takes row `row` of a group from its places.
fn unpack<U: Codes>(row: usize, group: &[u8], to: &mut [u8]) {
    for (from, to) in group.chunks_exact(GROUP * U::BYTES).zip(to.chunks_exact_mut(U::BYTES)) {
        let mut from = from;
        for units in U::UNITS {
            let (places, rest) = from.split_at(GROUP * units.size * units.count);
            let to = &mut to[units.at..][..units.size * units.count];
            for (unit, place) in to.chunks_exact_mut(units.size).zip(places.chunks_exact(GROUP * units.size))
            {
                unit.copy_from_slice(&place[units.size * row..][..units.size]);
            }
            from = rest;
        }
    }
}

#[inline(always)]
fn put<const SIZE: usize>(row: usize, units: &[u8], to: &mut [u8]) {
    for (unit, to) in units.as_chunks::<SIZE>().0.iter().zip(to.chunks_exact_mut(GROUP * SIZE)) {
        to[SIZE * row..][..SIZE].copy_from_slice(unit);
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, dispatch};
    use super::*;
    use crate::base::Seed;

    #[test]
    fn every_byte_has_its_place() {
        let mut pool = Pool::new(2).unwrap();
        let mut seed = Seed::new(8);
        for &format in Format::ALL {
            let (count, cols) = (37, 2 * format.block_len());
            let bytes = format.encode(&seed.vector(count * cols, 1.0));
            let matrix = Matrix::new("w", format, count, cols, bytes.into()).unwrap();
            // Behind another, so that it begins anywhere.
            let mut shelf = Shelf::new([&matrix, &matrix].into_iter()).unwrap();
            let Some(_) = shelf.pack(&mut pool, &matrix).unwrap() else { continue };
            let place = shelf.pack(&mut pool, &matrix).unwrap().unwrap();
            let packed = shelf.get(&place);
            assert_eq!(Some(packed.bytes() as u64), bytes_of(format, count, cols));
            let group = packed.groups(1).next().unwrap();
            // The first unit of the second block of row 17 is behind that of row 16.
            let (block, size) = with_codes!(format, U => (U::BYTES, U::UNITS[0]), else panic!());
            let unit = &group[GROUP * block + size.size..][..size.size];
            let respelled = with_codes!(format, U => U::respelled(format, &matrix.row(17)), else panic!());
            let file = matrix.row(17);
            let row = respelled.as_deref().unwrap_or(&file);
            assert_eq!(unit, &row[block + size.at..][..size.size], "{format}");
            let mut bytes = vec![0; packed.row_bytes()];
            let (mut expected, mut got) = (vec![0.0; cols], vec![0.0; cols]);
            for index in 0..count {
                matrix.decode_row(index, &mut expected);
                let isa = Isa::find();
                dispatch!(isa, s => packed.decode_row(s, format, index, &mut bytes, &mut got));
                assert_eq!(got, expected, "{format}, row {index}");
                if !with_codes!(format, U => U::respelled(format, &matrix.row(index)).is_some(), else panic!())
                {
                    assert_eq!(bytes, *matrix.row(index), "{format}, row {index}");
                }
            }
            let placed: usize =
                with_codes!(format, U => U::UNITS, else panic!()).iter().map(|u| u.size * u.count).sum();
            assert_eq!(placed, block, "{format}");
        }
    }
}
