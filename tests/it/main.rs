//! tests
mod data;
mod formats;
mod quants;
