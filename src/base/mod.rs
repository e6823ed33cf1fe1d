//! Floor 0: what every room stands on. Bytes that may be a mapped file, and arithmetic that may not wrap.

mod bytes;
mod seed;
mod shape;

pub use bytes::Bytes;
pub use seed::Seed;
pub use shape::product;
