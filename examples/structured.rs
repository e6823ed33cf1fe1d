//! An answer as a value: `cargo run --release --example structured -- MODEL`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks")]

use pocketlm::{Engine, EngineOptions, GenerateOptions, LoadOptions, Result};

/// A person, as the model has to describe one: with nothing else, of which a small model would find no end.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Person {
    #[schemars(length(max = 20))]
    name: String,
    #[schemars(range(max = 120))]
    age: u8,
    likes_music: bool,
}

fn main() -> Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: structured MODEL");
        std::process::exit(2);
    };
    let engine = Engine::new(EngineOptions::default());
    let model = engine.load(path, &LoadOptions::default(), |_| Ok(()))?;
    let options = GenerateOptions { max_tokens: Some(100), ..GenerateOptions::default() };
    let question = "Describe Alice, who is 31 and plays the piano, as JSON.";
    let person: Person = model.session().respond_as(question, &options)?;
    println!(
        "{} is {}, and {} music",
        person.name,
        person.age,
        if person.likes_music { "likes" } else { "has no" }
    );
    Ok(())
}
