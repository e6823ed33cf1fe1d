//! Floor 2: containers. Bytes on disk become a checkpoint: names, shapes, and bytes still on disk. No opinion.

mod metadata;

pub use metadata::{Array, Metadata, Value};
