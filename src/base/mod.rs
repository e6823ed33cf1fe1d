//! Floor 0: what every room stands on. Bytes that may be a mapped file, arithmetic that may not wrap, and chance.

mod bytes;
pub mod chance;
mod seed;
mod shape;

pub use bytes::Bytes;
pub use seed::Seed;
pub use shape::product;
