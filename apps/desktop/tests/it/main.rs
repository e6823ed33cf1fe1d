//! The window, tested without one, with a picture of one, and as people use it.

mod crash;
mod data;
mod frames;
mod panels;
mod state;
mod window;
mod worker;
