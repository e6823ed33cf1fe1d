//! tests
mod cpu;
mod data;
mod formats;
mod quants;
