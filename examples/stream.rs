//! Streams an answer: `cargo run --release --example stream -- MODEL "a question"`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks")]

use std::io::Write;

use pocketlm::{Engine, EngineOptions, Event, GenerateOptions, LoadOptions, Prompt, Result};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(question)) = (args.next(), args.next()) else {
        eprintln!("usage: stream MODEL QUESTION");
        std::process::exit(2);
    };
    let engine = Engine::new(EngineOptions::default());
    let model = engine.load(path, &LoadOptions::default(), |_| Ok(()))?;
    let mut session = model.session();
    let options = GenerateOptions { max_tokens: Some(200), ..GenerateOptions::default() };
    for event in session.generate(&Prompt::user(question), &options)? {
        match event? {
            Event::Text(text) => {
                print!("{text}");
                // A terminal that went away is found at the next write.
                let _flushed = std::io::stdout().flush();
            }
            Event::Finished(finish) => {
                println!("\n[{}, {:.1} tokens/s]", finish.reason.name(), finish.timings.decode_rate());
            }
            _ => {}
        }
    }
    Ok(())
}
