//! The C interface: `include/pocketlm.h`, which is made from these files, says how it is used.
//!
//! What a door gets is never believed. A handle is a number that is looked up (`handles.rs`), never an address that is
//! followed; structs of options say how large they are (`input.rs`); texts are checked to be UTF-8. Every door goes
//! through [`status::door`], behind which nothing unwinds. What is left to the caller is what C cannot say otherwise:
//! that a pointer and a size belong together.
#![allow(non_camel_case_types, reason = "the names are those of C")]
#![allow(
    clippy::needless_update,
    reason = "options that the engine learns stay as is usual until they are here"
)]
#![allow(clippy::missing_safety_doc, reason = "the beginning of the header says it for all doors")]

pub mod condense;
pub mod conversation;
pub mod engine;
pub mod estimate;
mod handles;
mod input;
pub mod model;
pub mod options;
pub mod prompt;
pub mod rounds;
pub mod session;
pub mod status;
pub mod stream;
pub mod tools;
