//! Bad days: what befalls one answer befalls no other.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pocketlm::backend::fault::{Fault, Faults, Harm, Point};
use pocketlm::{Device, Engine, EngineOptions, Event, GenerateOptions, LoadOptions, Pooling, Worker};
use tokio::runtime::{Builder, Runtime};

use super::answering::Answering;
use super::guard::{Client, Keys};
use super::slots::{Ask, News, Work};
use super::{Limits, Server, Settings};

struct Stand {
    server: Arc<Server>,
    runtime: Runtime,
    _worker: Worker,
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.server.slots.close();
    }
}

fn stand(faults: &[(Fault, u64)]) -> Stand {
    let options = EngineOptions {
        device: Device::Cpu,
        threads: Some(1),
        faults: Some(Faults::planned(faults)),
        pinned: true,
        ..EngineOptions::default()
    };
    let engine = Engine::new(options);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");
    let model = engine.load(path, &LoadOptions::default(), |_| Ok(())).unwrap();
    let long = Duration::from_secs(60);
    let limits =
        Limits { connections: 4, body: 1024, head: long, read: long, write: long, answer: long, grace: long };
    let settings = Settings {
        addresses: Vec::new(),
        names: vec!["stories".into()],
        keys: Keys::default(),
        origins: Vec::new(),
        slots: 2,
        queue: 8,
        defaults: GenerateOptions::default(),
        pooling: Pooling::Mean,
        limits,
    };
    let server = Arc::new(Server::new(model, &settings, true));
    for _ in 0..settings.slots {
        let server = server.clone();
        thread::spawn(move || server.slots.work());
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    Stand { server, runtime, _worker: Worker::start(&engine).unwrap() }
}

impl Stand {
    /// How a job ends: what it says of itself, or how many tokens it has told.
    fn run(&self, work: Work) -> Result<usize, (u16, String)> {
        let client = Client::of(IpAddr::from([127, 0, 0, 1]), 1);
        self.runtime.block_on(async {
            let mut answering = Answering::queue(&self.server, client, work);
            let mut told = 0;
            while let Some(news) = answering.next().await {
                match news {
                    News::Event(_, Event::Finished(finish)) => told += finish.tokens.len(),
                    News::Embedding(embedding) => told += embedding.len(),
                    News::Failed(refusal) => return Err((refusal.status.as_u16(), refusal.message)),
                    News::Begun | News::Event(..) | News::Done => {}
                }
            }
            Ok(told)
        })
    }
}

fn story() -> Work {
    let options = GenerateOptions { max_tokens: Some(20), ignore_end: true, ..GenerateOptions::default() };
    Work::Answers(vec![Ask { tokens: vec![1, 403, 407], options }])
}

#[test]
fn a_panic_ends_one_answer_and_nothing_else() {
    // In the worker while it computes, then in a slot while it reads an embedding.
    let stand =
        stand(&[(Fault::new(Point::Submit, Harm::Panic), 8), (Fault::new(Point::Read, Harm::Panic), 2)]);
    let (status, message) = stand.run(story()).unwrap_err();
    assert!(status == 500 && message.contains("asked for"), "{message}");
    assert_eq!(stand.run(story()), Ok(20));
    let embed = || Work::Embeddings(vec![vec![1, 2, 3]; 40], Pooling::Mean);
    assert_eq!(stand.run(embed()).unwrap_err().0, 500);
    assert_eq!(stand.run(story()), Ok(20));
    assert_eq!(stand.run(embed()), Ok(40 * 64));
    assert_eq!(stand.server.now().answering, 0);
}

#[test]
fn a_device_that_is_lost_for_good_is_an_error_of_the_server() {
    let lost = Fault::new(Point::Submit, Harm::Lost);
    let open = Fault::new(Point::Open, Harm::Lost);
    let stand = stand(&[(lost, 8), (open, 1), (open, 2), (open, 3), (open, 4)]);
    match stand.run(story()) {
        // It came back in time, and nobody noticed.
        Ok(told) => assert_eq!(told, 20),
        Err((status, message)) => assert!(status == 500, "{message}"),
    }
    assert_eq!(stand.run(story()), Ok(20));
}
