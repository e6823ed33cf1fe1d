//! Asks one question: `cargo run --release --example hello -- MODEL`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks")]

use pocketlm::{Engine, EngineOptions, GenerateOptions, LoadOptions, Result};

fn main() -> Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: hello MODEL");
        std::process::exit(2);
    };
    let engine = Engine::new(EngineOptions::default());
    let model = engine.load(path, &LoadOptions::default(), |_| Ok(()))?;
    let mut session = model.session();
    session.instruct("Answer in one sentence.");
    let options = GenerateOptions { max_tokens: Some(100), ..GenerateOptions::default() };
    for question in ["What is the capital of France?", "And of Italy?"] {
        let mut answer = String::new();
        session.respond(question, &options, |text| answer += text)?;
        println!("{question} {answer}");
    }
    Ok(())
}
