//! Floor 0: what every room stands on. Bytes that may be a mapped file, arithmetic that may not wrap, checksums,
//! chance, files that are replaced at once, and how much memory there is.

mod bytes;
pub mod chance;
mod checksum;
mod memory;
mod replace;
mod seed;
mod shape;

pub use bytes::Bytes;
pub use checksum::checksum;
pub use memory::{Memory, Resident};
pub use replace::replace;
pub use seed::Seed;
pub use shape::product;
