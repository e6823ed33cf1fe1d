//! Floor 0: what every room stands on. Bytes that may be a mapped file, arithmetic that may not wrap, checksums, and
//! chance.

mod bytes;
pub mod chance;
mod checksum;
mod seed;
mod shape;

pub use bytes::Bytes;
pub use checksum::checksum;
pub use seed::Seed;
pub use shape::product;
