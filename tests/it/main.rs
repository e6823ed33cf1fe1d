//! tests
mod quants;
