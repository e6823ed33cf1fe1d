//! Structured answers: what a guide lets through and what not, and what a model's answer is then.

mod engine;
mod grammars;
mod masks;
mod sampling;
mod schemas;
mod tools;
