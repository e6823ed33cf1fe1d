//! What C hands in, and where it wants answers: checked here, once.

use crate::prompt::plm_text;
use crate::status::{Outcome, Refusal, plm_status};

/// A struct that begins with its own size, as the caller's header knows it. Of numbers and pointers alone: whatever bytes
/// are in it, it is one.
///
/// # Safety
/// `repr(C)`, the first field is a `usize`, and all bytes are allowed in all fields.
pub(crate) unsafe trait Versioned: Copy {
    /// As this library knows it, its size said.
    fn usual() -> Self;
}

/// The struct that `given` points to; the usual one for null. Fields that an older header does not have are as usual.
///
/// # Safety
/// `given` is null, or so many bytes are there as the first field says.
pub(crate) unsafe fn options<T: Versioned>(given: *const T) -> Outcome<T> {
    let mut options = T::usual();
    if given.is_null() {
        return Ok(options);
    }
    // SAFETY: the size is at the beginning of each such struct.
    let size = unsafe { given.cast::<usize>().read_unaligned() };
    check_size(size)?;
    if size > size_of::<T>() {
        let message = format!("the options have {size} bytes and this library knows {}", size_of::<T>());
        return Err(Refusal::new(
            plm_status::PLM_UNSUPPORTED,
            &message,
            "the header is newer than the library; take the two from one release",
        ));
    }
    // SAFETY: the caller has `size` bytes there, `options` has no fewer, and all bytes are allowed.
    unsafe { std::ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut options).cast::<u8>(), size) };
    Ok(options)
}

/// Writes `answer` where the caller wants it, as much of it as the caller's header knows.
///
/// # Safety
/// `wanted` is null, or so many bytes may be written there as its first field says.
pub(crate) unsafe fn give<T: Versioned>(wanted: *mut T, answer: T) -> Outcome<()> {
    if wanted.is_null() {
        return Err(Refusal::invalid("the place for the answer is null"));
    }
    // SAFETY: the size is at the beginning of each such struct.
    let size = unsafe { wanted.cast::<usize>().read_unaligned() };
    check_size(size)?;
    let head = size_of::<usize>();
    let count = size.min(size_of::<T>()) - head;
    // SAFETY: both have `head + count` bytes; the caller's own size stays as it is.
    unsafe {
        let from = (&raw const answer).cast::<u8>().add(head);
        std::ptr::copy_nonoverlapping(from, wanted.cast::<u8>().add(head), count);
    }
    Ok(())
}

/// Writes `value` to a place that must be there.
pub(crate) fn put<T>(place: Option<&mut T>, value: T) -> Outcome<()> {
    let place = place.ok_or_else(|| Refusal::invalid("the place for the result is null"))?;
    *place = value;
    Ok(())
}

/// The `count` elements at `first`.
///
/// # Safety
/// So many are there, for as long as the result is used.
pub(crate) unsafe fn list<'a, T>(first: *const T, count: usize, name: &str) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    let bytes = count.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
    if first.is_null() || !first.is_aligned() || bytes.is_none() {
        let message = format!("{count} {name} cannot be at {:#x}", first.addr());
        return Err(Refusal::invalid(&message));
    }
    // SAFETY: neither null nor too large, and the caller has so many there.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// The text that `given` points to.
///
/// # Safety
/// So many bytes are there, for as long as the result is used.
pub(crate) unsafe fn text<'a>(given: plm_text, name: &str) -> Outcome<&'a str> {
    // SAFETY: the caller has so many bytes there.
    let bytes = unsafe { list(given.data.cast::<u8>(), given.size, "bytes of text")? };
    std::str::from_utf8(bytes).map_err(|error| {
        Refusal::new(
            plm_status::PLM_INVALID_ARGUMENT,
            &format!("the {name} is not UTF-8 from byte {} on", error.valid_up_to()),
            "texts are UTF-8, paths too",
        )
    })
}

/// Copies `items` to `place`, which has room for `capacity`, and says how many there are. Without a place it only says that.
///
/// # Safety
/// So many may be written at `place`.
pub(crate) unsafe fn copy_out<T: Copy>(
    items: &[T],
    place: *mut T,
    capacity: usize,
    count: Option<&mut usize>,
) -> Outcome {
    put(count, items.len())?;
    if place.is_null() && capacity == 0 {
        return Ok(plm_status::PLM_OK);
    }
    if place.is_null() || !place.is_aligned() {
        return Err(Refusal::invalid("there is a capacity and no place"));
    }
    if capacity < items.len() {
        let message = format!("{} are there, and there is place for {capacity}", items.len());
        return Err(Refusal::new(plm_status::PLM_TOO_SMALL, &message, "ask for the count first"));
    }
    // SAFETY: the caller has place for `capacity`, which are no fewer.
    unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), place, items.len()) };
    Ok(plm_status::PLM_OK)
}

fn check_size(size: usize) -> Outcome<()> {
    if size < size_of::<usize>() || size > 1 << 16 {
        return Err(Refusal::new(
            plm_status::PLM_INVALID_ARGUMENT,
            &format!("a struct_size of {size} is none"),
            "begin with what the struct's _default() returns",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{plm_generate_options, plm_generate_options_default};

    fn read(given: &plm_generate_options) -> Outcome<plm_generate_options> {
        // SAFETY: it is one.
        unsafe { options(given) }
    }

    #[test]
    fn structs_of_other_headers_are_told_apart() {
        let usual = plm_generate_options_default();
        let given = plm_generate_options { max_tokens: 7, top_k: 3, ..usual };
        assert_eq!(read(&given).unwrap().top_k, 3);
        // One that ends after `max_tokens`.
        let end = std::mem::offset_of!(plm_generate_options, max_tokens) + 4;
        let older = read(&plm_generate_options { struct_size: end, ..given }).unwrap();
        assert_eq!((older.max_tokens, older.top_k), (7, usual.top_k));
        for size in [0, 1, size_of::<usize>() - 1, 1 << 20, usize::MAX] {
            let refusal = read(&plm_generate_options { struct_size: size, ..given }).unwrap_err();
            assert_eq!(refusal.status, plm_status::PLM_INVALID_ARGUMENT, "{size}");
        }
        let newer = plm_generate_options { struct_size: usual.struct_size + 8, ..given };
        assert_eq!(read(&newer).unwrap_err().status, plm_status::PLM_UNSUPPORTED);
    }

    #[test]
    fn an_answer_is_no_longer_than_its_place() {
        let usual = plm_generate_options_default();
        let end = std::mem::offset_of!(plm_generate_options, max_tokens) + 4;
        let mut place = plm_generate_options { struct_size: end, top_k: 99, ..usual };
        // SAFETY: the place is longer than it says.
        unsafe { give(&raw mut place, plm_generate_options { max_tokens: 5, top_k: 1, ..usual }) }.unwrap();
        assert_eq!((place.struct_size, place.max_tokens, place.top_k), (end, 5, 99));
        // SAFETY: nothing is written.
        assert!(unsafe { give(std::ptr::null_mut(), usual) }.is_err());
    }

    #[test]
    fn texts_and_lists_are_checked() {
        let bad = [b'a', 0xff];
        let of = |data: *const u8, size| plm_text { data: data.cast(), size };
        // SAFETY: the bytes are there, or nothing is read.
        unsafe {
            assert_eq!(text(of(bad.as_ptr(), 1), "path").unwrap(), "a");
            assert!(text(of(bad.as_ptr(), 2), "path").is_err());
            assert_eq!(text(of(std::ptr::null(), 0), "path").unwrap(), "");
            assert!(text(of(std::ptr::null(), 3), "path").is_err());
            assert!(text(of(bad.as_ptr(), usize::MAX), "path").is_err());
            assert!(list(bad.as_ptr().cast::<u64>(), usize::MAX / 4, "numbers").is_err());
        }
    }
}
