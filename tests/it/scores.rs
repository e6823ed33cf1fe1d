//! Embeddings and scores against the logits of the same rows, which other tests hold against oracles.

use pocketlm::format::Checkpoint;
use pocketlm::{
    Chosen, Constraint, Device, Engine, EngineOptions, Event, Finish, GenerateOptions, Kind, LoadOptions,
    Model, Pooling, Prompt, Sampling, Score, Stream,
};

use crate::data::{fixture, limits, real_model};
use crate::golden::log_softmax;

const STORIES: &str = "stories260k/stories260K-f32.gguf";
const TEXT: &[u32] = &[1, 403, 407, 261, 378, 300, 301, 310, 299, 422, 271];

fn load(device: Device, prefill: u32) -> Model {
    let engine =
        Engine::new(EngineOptions { device, exact: true, limits: limits(), ..EngineOptions::default() });
    let options = LoadOptions { prefill, ..LoadOptions::default() };
    engine.load(fixture(STORIES), &options, |_| Ok(())).expect("the stories model loads")
}

/// The rows of the embedding matrix, which is the head's too.
fn head(width: usize) -> Vec<f32> {
    let checkpoint = Checkpoint::open(fixture(STORIES)).unwrap();
    let tensor = &checkpoint.tensors["token_embd.weight"];
    let words: Vec<f32> =
        tensor.bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words.len() % width, 0);
    words
}

/// What the head was given at each position: the direction by `embed`, the length by the logits.
fn rows(model: &Model) -> Vec<Vec<f32>> {
    let mut lengths = Vec::new();
    let directions: Vec<Vec<f32>> = (1..=TEXT.len())
        .map(|end| model.embed(&Prompt::Tokens(TEXT[..end].to_vec()), Pooling::Last).unwrap())
        .collect();
    let head = head(directions[0].len());
    model
        .logits(TEXT, 0, |at, logits| {
            let direction = &directions[at];
            let dots: Vec<f32> = head
                .chunks_exact(direction.len())
                .map(|row| row.iter().zip(direction).map(|(a, b)| a * b).sum())
                .collect();
            let best =
                (0..logits.len()).max_by(|&a, &b| logits[a].abs().total_cmp(&logits[b].abs())).unwrap();
            let length = logits[best] / dots[best];
            for (logit, dot) in logits.iter().zip(&dots) {
                // Sums of 64 products, rounded to 24 bits each.
                assert!((logit - length * dot).abs() < 1e-4 * logits[best].abs(), "{logit} {}", length * dot);
            }
            lengths.push(length);
            Ok(())
        })
        .unwrap();
    directions
        .into_iter()
        .zip(lengths)
        .map(|(direction, length)| direction.into_iter().map(|value| value * length).collect())
        .collect()
}

fn direction(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter().map(|value| value / length).collect()
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn an_embedding_is_what_the_head_is_given() {
    let model = load(Device::Cpu, 256);
    let rows = rows(&model);
    let sum: Vec<f32> = (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum()).collect();
    let due = [
        (Pooling::Mean, direction(&sum)),
        (Pooling::First, direction(&rows[0])),
        (Pooling::Last, direction(&rows[10])),
    ];
    let mut models = vec![model, load(Device::Cpu, 3)];
    #[cfg(feature = "wgpu")]
    if crate::gpu::gpu().is_some() {
        models.push(load(Device::Gpu, 256));
    }
    for model in models {
        for (pooling, due) in &due {
            let got = model.embed(&Prompt::Tokens(TEXT.to_vec()), *pooling).unwrap();
            assert!(near(&got, due), "{pooling:?} {}", model.info().device.name);
        }
    }
    // One pooling is not another.
    assert!(!near(&due[0].1, &due[2].1) && !near(&due[1].1, &due[2].1));
}

#[test]
fn a_continuation_has_the_probability_of_its_tokens() {
    let model = load(Device::Cpu, 256);
    let prompt = Prompt::Raw("Once upon a time".into());
    let score = model.score(&prompt, " there was a").unwrap();
    let before = model.tokens(&prompt).unwrap();
    let all = [&before[..], &score.tokens].concat();
    let mut due = Vec::new();
    model
        .logits(&all, 0, |at, logits| {
            if at + 1 >= before.len() && at + 1 < all.len() {
                due.push(log_softmax(logits)[all[at + 1] as usize]);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(due.len(), score.tokens.len());
    assert!(due.iter().zip(&score.log_probabilities).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!((score.total() - due.iter().sum::<f64>()).abs() < 1e-5 && score.total() < 0.0);
    // What the model says by itself is the likeliest, and other words are less likely.
    let options = GenerateOptions { max_tokens: Some(6), ..GenerateOptions::default() };
    let said = model.session().generate(&prompt, &options).unwrap().finish().unwrap().text;
    let own: Score = model.score(&prompt, &said).unwrap();
    let told = model.session().generate(&prompt, &options).unwrap().finish().unwrap().tokens;
    assert_eq!((own.tokens == told, own.is_greedy), (true, true));
    let other = model.score(&prompt, " xylophone").unwrap();
    assert!(!other.is_greedy && other.total() < own.total());
    assert_eq!(model.score(&prompt, "").unwrap_err().kind(), Kind::InvalidArgument);
    let long = Prompt::Tokens(vec![5; 600]);
    assert_eq!(model.score(&long, " a").unwrap_err().kind(), Kind::ContextOverflow);
    assert_eq!(model.embed(&long, Pooling::Mean).unwrap_err().kind(), Kind::ContextOverflow);
}

#[test]
fn texts_of_like_meaning_lie_near_each_other() {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() });
    let options = LoadOptions { context: Some(64), outputs: 32, ..LoadOptions::default() };
    let model = engine.load(real_model(), &options, |_| Ok(())).unwrap();
    let [cat, kitten, tax] =
        ["The cat sleeps on the sofa.", "A kitten is sleeping on the couch.", "Income tax is due in April."]
            .map(|text| model.embed(&Prompt::Raw(text.into()), Pooling::Mean).unwrap());
    let like = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((like(&cat, &cat) - 1.0).abs() < 1e-4);
    assert!(like(&cat, &kitten) > like(&cat, &tax) + 0.05, "{} {}", like(&cat, &kitten), like(&cat, &tax));
}

fn chosen(stream: Stream) -> (Vec<Chosen>, Finish) {
    let (mut all, mut texts) = (Vec::new(), 0);
    for event in stream {
        match event.expect("an answer") {
            Event::Chosen(chosen) => all.push(chosen),
            Event::Text(_) => {
                texts += 1;
                assert!(texts <= all.len(), "a text before the tokens that it is of");
            }
            Event::Finished(finish) => return (all, finish),
            _ => {}
        }
    }
    panic!("a stream ended without its last event");
}

#[test]
fn what_was_chosen_is_as_likely_as_its_score() {
    for device in [
        Device::Cpu,
        #[cfg(feature = "wgpu")]
        Device::Gpu,
    ] {
        if device == Device::Gpu && std::env::var_os("POCKETLM_NO_GPU").is_some() {
            continue;
        }
        let model = load(device, 16);
        let drawn = Sampling { temperature: Some(1.3), seed: Some(3), ..Sampling::default() };
        let penalised = Sampling { repeat_penalty: Some(1.4), ..Sampling::default() };
        for sampling in [Sampling::default(), drawn, penalised] {
            let plain = GenerateOptions { max_tokens: Some(20), sampling, ..GenerateOptions::default() };
            let told = GenerateOptions { log_probabilities: Some(3), ..plain.clone() };
            let prompt = Prompt::Tokens(TEXT.to_vec());
            let alone = model.session().generate(&prompt, &plain).unwrap().finish().unwrap();
            let (chosen, finish) = chosen(model.session().generate(&prompt, &told).unwrap());
            assert_eq!(finish.tokens, alone.tokens, "telling changes nothing");
            let tokens: Vec<u32> = chosen.iter().map(|chosen| chosen.token).collect();
            assert_eq!(tokens, finish.tokens);
            let all = [TEXT, &finish.tokens].concat();
            model
                .logits(&all, TEXT.len() - 1, |at, logits| {
                    let Some(chosen) = chosen.get(at + 1 - TEXT.len()) else { return Ok(()) };
                    let due = log_softmax(logits);
                    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
                    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
                    let near = |a: f64, token: u32| (a - due[token as usize]).abs() < 1e-4;
                    assert!(near(chosen.log_probability, chosen.token), "{chosen:?}");
                    assert_eq!(chosen.likeliest.len(), 3);
                    for (&(token, log), &expected) in chosen.likeliest.iter().zip(&order) {
                        assert!(near(log, expected) && near(log, token), "{chosen:?}");
                    }
                    Ok(())
                })
                .unwrap();
        }
    }
}

#[test]
fn a_constraint_does_not_change_what_is_told() {
    let model = load(Device::Cpu, 16);
    let constraint = Some(Constraint::Choice(vec![" zebra".into()]));
    let options = GenerateOptions { constraint, log_probabilities: Some(1), ..GenerateOptions::default() };
    let (chosen, finish) =
        chosen(model.session().generate(&Prompt::Tokens(TEXT.to_vec()), &options).unwrap());
    assert_eq!(finish.text, " zebra");
    // Held to what the model would not have said, and told so.
    assert!(
        chosen.iter().any(|chosen| chosen.log_probability < -2.0 && chosen.likeliest[0].0 != chosen.token)
    );
    let many = GenerateOptions { log_probabilities: Some(101), ..GenerateOptions::default() };
    let error = model.session().generate(&Prompt::Tokens(TEXT.to_vec()), &many).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
}
