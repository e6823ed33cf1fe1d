//! What Swift, Kotlin and Python see, through UniFFI: `Engine` → `Model` → `Session` → `Stream`. It is small and plain; what is
//! idiomatic stands in the layers of `bindings/swift`, `bindings/kotlin` and `bindings/python`.
//!
//! An answer is computed in a thread of its own, which ends with it. A stream is pulled: [`stream::Stream::next`] waits
//! without holding a thread, and [`stream::Stream::cancel`], or that nobody holds the stream any more, stops the thread and the
//! device.

#![allow(
    clippy::needless_update,
    reason = "options that the engine learns stay as is usual until they are here"
)]
#![allow(unreachable_pub, reason = "UniFFI takes what is `pub`, wherever it is")]

mod condense;
mod engine;
mod error;
mod message;
mod model;
mod options;
mod session;
mod stream;
mod tools;
mod wait;

uniffi::setup_scaffolding!();
