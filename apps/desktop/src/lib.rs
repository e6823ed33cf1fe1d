//! A window over pocketlm: pick a model, talk to it, and see what the device does. It sees the library's front door alone.
//!
//! [`state`] is what the window knows and what becomes of it, without a pixel; [`worker`] does what takes time and tells of it;
//! [`view`] draws. [`app`] puts them together.

pub mod app;
pub mod conversation;
pub mod device;
mod energy;
pub mod markdown;
pub mod meters;
pub mod settings;
pub mod state;
pub mod store;
pub mod view;
pub mod worker;
