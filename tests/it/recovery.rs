//! A lost device is a hiccup: whatever befalls it, at whatever point, the answers are those of a device that was never lost,
//! or end with an error that says what befell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pocketlm::backend::fault::{Fault, Faults, Harm, Point};
use pocketlm::{
    Constraint, Device, Engine, EngineOptions, Event, Finish, FinishReason, GenerateOptions, Kind,
    LoadOptions, Mirostat, Model, Pace, Prompt, Result, Sampling, Session, Stream, Suspend, Worker,
};

use crate::data::{fixture, limits};

const STORY: &str = "Once upon a time";
const TOKENS: u32 = 40;
/// Longer than any submission of the small model takes, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn options(device: Device, faults: Option<Arc<Faults>>) -> EngineOptions {
    EngineOptions {
        device,
        exact: true,
        patience: Some(PATIENCE),
        faults,
        limits: limits(),
        ..EngineOptions::default()
    }
}

fn load(engine: &Engine) -> Result<Model> {
    let path = fixture("stories260k/stories260K-f32.gguf");
    engine.load(path, &LoadOptions { prefill: 16, ..LoadOptions::default() }, |_| Ok(()))
}

/// A greedy answer, one that the device draws, two that the host picks, one of them by what the
/// tokens before were like, and one that is held to a constraint.
fn requests() -> [GenerateOptions; 5] {
    let of = |sampling| GenerateOptions { max_tokens: Some(TOKENS), sampling, ..GenerateOptions::default() };
    let drawn = Sampling { temperature: Some(1.1), top_k: Some(30), seed: Some(5), ..Sampling::default() };
    let penalised = Sampling { repeat_penalty: Some(1.2), ..Sampling::default() };
    let constraint = Some(Constraint::Regex("( [a-z]+){3,12}, [A-Z][a-z ]+\\.".into()));
    let held = GenerateOptions { constraint, ..of(drawn.clone()) };
    let mirostat = Some(Mirostat { tau: 3.0, eta: 0.3 });
    let followed = Sampling { mirostat, seed: Some(6), ..Sampling::default() };
    [of(Sampling::default()), of(drawn), of(penalised), of(followed), held]
}

/// What an answer ended with, and how often it went on elsewhere.
fn follow(stream: Stream) -> (Result<Finish>, Vec<String>) {
    let mut devices = Vec::new();
    for event in stream {
        match event {
            Ok(Event::Finished(finish)) => return (Ok(finish), devices),
            Ok(Event::Recovered { why, device }) => devices.push(format!("{device} after {why}")),
            Ok(_) => {}
            Err(error) => return (Err(error), devices),
        }
    }
    panic!("a stream ended without its last event");
}

/// The tokens of each request, one after the other, and the devices on which they went on.
fn tell(model: &Model) -> (Vec<Result<Vec<u32>>>, Vec<String>) {
    let mut devices = Vec::new();
    let requests = requests();
    let told = requests.iter().map(|options| {
        let mut session = model.session();
        let stream = session.generate(&Prompt::Raw(STORY.into()), options)?;
        let (finish, others) = follow(stream);
        devices.extend(others);
        finish.map(|finish| finish.tokens)
    });
    let told = told.collect();
    (told, devices)
}

fn reference() -> Vec<Vec<u32>> {
    let model = load(&Engine::new(options(Device::Cpu, None))).expect("the model loads");
    tell(&model).0.into_iter().map(|tokens| tokens.expect("a story")).collect()
}

/// Loads and tells with faults: each answer is the reference, or ends with numbers that were wrong.
fn survive(device: Device, faults: &Arc<Faults>, reference: &[Vec<u32>], what: &str) -> Vec<String> {
    let model = load(&Engine::new(options(device, Some(faults.clone()))))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let (told, devices) = tell(&model);
    for (told, reference) in told.iter().zip(reference) {
        match told {
            Ok(tokens) => assert_eq!(tokens, reference, "{what}"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::WrongNumbers, "{what}: {error}");
                assert!(faults.hits().keys().any(|fault| fault.harm == Harm::NotANumber), "{what}");
            }
        }
    }
    devices
}

/// Whoever asks for it loses the device in the middle of an answer, and the answer is what it would have been.
#[test]
fn a_drill_is_a_loss() {
    let reference = reference();
    for device in devices() {
        let model = load(&Engine::new(options(device, None))).unwrap();
        let mut session = model.session();
        let mut stream = session.generate(&Prompt::Raw(STORY.into()), &requests()[0]).unwrap();
        let (mut drills, mut losses) = (0, 0);
        let finish = loop {
            match stream.next().expect("a last event").unwrap() {
                Event::Finished(finish) => break finish,
                Event::Text(_) if drills < 2 => {
                    model.lose_device().unwrap();
                    drills += 1;
                }
                Event::Recovered { why, .. } => {
                    assert_eq!(why.kind(), Kind::DeviceLost);
                    assert!(why.to_string().contains("drill"), "{why}");
                    losses += 1;
                }
                _ => {}
            }
        };
        assert_eq!(finish.tokens, reference[0], "{device:?}");
        assert_eq!((losses, model.health().recoveries), (2, 2), "{device:?}");
    }
}

/// Every fault that `device` can have, at the first passages of its point: while the model is loaded, read and continued.
fn each_fault_at_each_point(device: Device, passages: &[u64]) {
    let reference = reference();
    let mut hit = Vec::new();
    for &fault in Fault::ALL {
        for &passage in passages {
            let faults = Faults::planned(&[(fault, passage)]);
            let devices = survive(device, &faults, &reference, &format!("{fault:?} at passage {passage}"));
            if faults.hits().contains_key(&fault) {
                hit.push(fault);
                let on_the_way =
                    !matches!(fault.point, Point::Open | Point::Load | Point::Upload | Point::Prepare);
                let harmless = matches!(fault.harm, Harm::Slow | Harm::NotANumber);
                assert_eq!(
                    devices.len(),
                    usize::from(on_the_way && !harmless),
                    "{fault:?} {passage}: {devices:?}"
                );
            }
        }
    }
    let missed: Vec<&Fault> = Fault::ALL.iter().filter(|fault| !hit.contains(fault)).collect();
    let is_silent = |fault: &&&Fault| device == Device::Cpu && fault.harm == Harm::Dropped;
    let missed: Vec<_> = missed.iter().filter(|fault| !is_silent(fault)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
}

#[test]
fn every_fault_at_every_point_on_the_cpu() {
    each_fault_at_each_point(Device::Cpu, &[0, 1, 5, 23]);
}

#[cfg(feature = "wgpu")]
#[test]
fn every_fault_at_every_point_on_the_gpu() {
    if crate::gpu::gpu().is_none() {
        return;
    }
    each_fault_at_each_point(Device::Gpu, &[0, 7]);
}

/// The device is lost, and is lost or without memory again at each stage of coming back.
#[test]
fn a_device_that_falls_again_while_it_comes_back() {
    let reference = reference();
    for point in [Point::Open, Point::Load, Point::Upload, Point::Prepare] {
        for harm in [Harm::Lost, Harm::OutOfMemory] {
            let faults =
                Faults::planned(&[(Fault::new(Point::Submit, Harm::Lost), 9), (Fault::new(point, harm), 2)]);
            let devices = survive(Device::Cpu, &faults, &reference, &format!("{point:?} {harm:?}"));
            assert_eq!(devices.len(), 1);
            assert!(faults.hits().len() <= 2);
        }
    }
}

#[test]
fn one_that_does_not_come_back_leaves_the_cpu() {
    let reference = reference();
    let lost = [(Fault::new(Point::Submit, Harm::Lost), 12)];
    for (lasting, from) in [
        (Fault::new(Point::Open, Harm::Lost), 1),
        (Fault::new(Point::Load, Harm::OutOfMemory), 1),
        (Fault::new(Point::Submit, Harm::Lost), 13),
        (Fault::new(Point::Wait, Harm::Hang), 13),
    ] {
        let faults = Faults::lasting(&lost, lasting, from);
        let engine = Engine::new(EngineOptions {
            patience: Some(Duration::from_millis(300)),
            ..options(Device::Cpu, Some(faults.clone()))
        });
        let model = load(&engine).unwrap();
        let (told, devices) = tell(&model);
        let told: Vec<_> = told.into_iter().map(|told| told.unwrap()).collect();
        assert!(told == reference && !devices.is_empty(), "{lasting:?}");
        let health = model.health();
        assert!(health.reason.contains("lost") && health.recoveries as usize == devices.len(), "{health:?}");
        // It is not tried for ever.
        let hits = faults.hits()[&lasting];
        assert!(hits <= 12, "{lasting:?}: {hits} times");
    }
}

#[test]
fn a_pinned_engine_says_what_befell() {
    let fault = Fault::new(Point::Open, Harm::Lost);
    let faults = Faults::lasting(&[(Fault::new(Point::Submit, Harm::Lost), 12)], fault, 1);
    let engine = Engine::new(EngineOptions { pinned: true, ..options(Device::Cpu, Some(faults)) });
    let model = load(&engine).unwrap();
    let (told, _) = tell(&model);
    assert!(told.iter().all(|told| told.as_ref().unwrap_err().kind() == Kind::DeviceLost), "{told:?}");
}

#[test]
fn wrong_numbers_end_an_answer_and_the_next_is_right() {
    let reference = reference();
    let faults = Faults::planned(&[(Fault::new(Point::Submit, Harm::NotANumber), 12)]);
    let model = load(&Engine::new(options(Device::Cpu, Some(faults)))).unwrap();
    let mut session = model.session();
    let [greedy, ..] = requests();
    let mut tell = || session.generate(&Prompt::Raw(STORY.into()), &greedy).unwrap().finish();
    assert_eq!(tell().unwrap_err().kind(), Kind::WrongNumbers);
    assert_eq!(tell().unwrap().tokens, reference[0], "nothing of it is left in the cache");
}

#[test]
fn scores_survive_and_show_each_position_once() {
    let tokens: Vec<u32> = (1..90).collect();
    let logits = |faults| {
        let model = load(&Engine::new(options(Device::Cpu, faults))).unwrap();
        let mut seen = Vec::new();
        model.logits(&tokens, 3, |at, logits| {
            seen.push((at, logits.to_vec()));
            Ok(())
        })?;
        Ok::<_, pocketlm::Error>(seen)
    };
    let whole = logits(None).unwrap();
    for point in [Point::Submit, Point::Read, Point::Wait, Point::Write] {
        let faults = Faults::planned(&[(Fault::new(point, Harm::Lost), 7)]);
        let again = logits(Some(faults.clone())).unwrap();
        assert_eq!(again.len(), whole.len());
        for ((at, logits), (due_at, due)) in again.iter().zip(&whole) {
            // Computed again in other chunks, sums are taken in another order.
            let off = logits.iter().zip(due).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(at == due_at && off < 1e-3, "{point:?}, position {at}: {off}");
        }
        assert_eq!(faults.hits().len(), 1);
    }
}

fn begin(session: &mut Session, tokens: u32) -> Stream {
    let options = GenerateOptions { max_tokens: Some(tokens), ..GenerateOptions::default() };
    session.generate(&Prompt::Raw(STORY.into()), &options).expect("an answer begins")
}

fn suspended_and_resumed(device: Device, release: bool) {
    let engine = Engine::new(options(device, None));
    let model = load(&engine).unwrap();
    let whole = begin(&mut model.session(), 120).finish().unwrap().tokens;
    let worker = Worker::start(&engine).unwrap();
    let mut session = model.session();
    let mut stream = begin(&mut session, 120);
    // Somewhere in the middle.
    let mut texts = 0;
    while texts < 10 {
        texts += usize::from(matches!(stream.next().unwrap().unwrap(), Event::Text(_)));
    }
    let how = Suspend { release, ..Suspend::default() };
    let begun = Instant::now();
    let stands = engine.suspend(how);
    let took = begun.elapsed();
    // The machine may be busy; what is abandoned is not waited for.
    assert!(took < how.within + Duration::from_millis(200), "{took:?}");
    assert!(stands || engine.suspend(how));
    let meter = model.info().device.meter.clone();
    let (done, bytes) = (meter.submissions(), meter.bytes());
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(meter.submissions(), done, "nothing is submitted");
    if release && device == Device::Gpu {
        assert_eq!(meter.bytes(), 0, "of {bytes} bytes");
    }
    let heard: Vec<Event> = std::iter::from_fn(|| stream.try_next()).map(|event| event.unwrap()).collect();
    assert!(matches!(heard.last(), Some(Event::Suspended)), "{heard:?}");
    assert_eq!(model.logits(&[1, 2], 0, |_, _| Ok(())).unwrap_err().kind(), Kind::Suspended);
    engine.resume();
    let (finish, devices) = follow(stream);
    assert_eq!(finish.unwrap().tokens, whole);
    assert!(devices.is_empty(), "it was no loss: {devices:?}");
    drop(worker);
}

#[test]
fn a_suspended_engine_submits_nothing_and_goes_on() {
    suspended_and_resumed(Device::Cpu, false);
    suspended_and_resumed(Device::Cpu, true);
}

#[cfg(feature = "wgpu")]
#[test]
fn a_suspended_gpu_gives_its_memory_back_and_goes_on() {
    if crate::gpu::gpu().is_some() {
        suspended_and_resumed(Device::Gpu, false);
        suspended_and_resumed(Device::Gpu, true);
    }
}

#[test]
fn an_answer_can_be_cancelled_while_all_stands_still() {
    let engine = Engine::new(options(Device::Cpu, None));
    let model = load(&engine).unwrap();
    let mut session = model.session();
    let mut stream = begin(&mut session, 200);
    stream.next().unwrap().unwrap();
    assert!(engine.suspend(Suspend::default()));
    stream.cancel_handle().cancel();
    assert_eq!(stream.finish().unwrap().reason, FinishReason::Cancelled);
}

/// A device that does not answer is abandoned in time.
#[test]
fn a_hanging_slice_does_not_hold_a_suspend_up() {
    let faults = Faults::planned(&[(Fault::new(Point::Wait, Harm::Hang), 12)]);
    let engine = Engine::new(options(Device::Cpu, Some(faults.clone())));
    let model = load(&engine).unwrap();
    let worker = Worker::start(&engine).unwrap();
    let mut session = model.session();
    let stream = begin(&mut session, TOKENS);
    while faults.hits().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let begun = Instant::now();
    assert!(engine.suspend(Suspend::default()));
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    engine.resume();
    let (finish, devices) = follow(stream);
    assert_eq!((finish.unwrap().tokens, devices.len()), (reference()[0].clone(), 1));
    drop(worker);
}

#[test]
fn a_pace_changes_no_token() {
    let reference = reference();
    for pace in [Pace::Frame(Duration::from_micros(300)), Pace::Background] {
        for device in devices() {
            let engine = Engine::new(options(device, None));
            let model = load(&engine).unwrap();
            engine.set_pace(pace);
            let (told, _) = tell(&model);
            let told: Vec<_> = told.into_iter().map(|told| told.unwrap()).collect();
            assert_eq!(told, reference, "{pace:?} on {device:?}");
            assert!(model.health().slices.count > u64::from(3 * TOKENS), "slices are cut");
        }
    }
}

#[test]
fn what_is_sustained_is_not_exceeded() {
    let engine = Engine::new(options(Device::Cpu, None));
    let model = load(&engine).unwrap();
    for absurd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(engine.sustain(Some(absurd)).unwrap_err().kind(), Kind::InvalidArgument);
    }
    engine.sustain(Some(100.0)).unwrap();
    let finish = begin(&mut model.session(), 30).finish().unwrap();
    let paced = finish.timings.total;
    assert!(paced >= Duration::from_millis(280), "30 tokens in {paced:?}");
    engine.sustain(None).unwrap();
    assert_eq!(begin(&mut model.session(), 30).finish().unwrap().tokens, finish.tokens);
}

fn devices() -> Vec<Device> {
    #[cfg(feature = "wgpu")]
    if crate::gpu::gpu().is_some() {
        return vec![Device::Cpu, Device::Gpu];
    }
    vec![Device::Cpu]
}

/// The host draws (here: computes) with the device that it lends, before, between and after.
#[cfg(feature = "wgpu")]
#[test]
fn a_device_of_the_hosts_own_is_shared() {
    use pocketlm::{SharedDevice, wgpu};
    if crate::gpu::gpu().is_none() {
        return;
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    let open = |features, limits| {
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: limits,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
        SharedDevice { adapter: adapter.clone(), device, queue }
    };
    let engine = |shared: &SharedDevice| {
        Engine::new(EngineOptions { shared: Some(shared.clone()), ..options(Device::Auto, None) })
    };
    let plain = open(wgpu::Features::empty(), wgpu::Limits::default());
    let refused = load(&engine(&plain)).unwrap_err();
    assert_eq!(refused.kind(), Kind::DeviceUnavailable);
    assert!(refused.to_string().contains("SharedDevice"), "{refused}");

    let limits = SharedDevice::limits(wgpu::Limits::default(), &adapter);
    let host = open(SharedDevice::features(&adapter), limits);
    let frames = |count: usize| {
        for _ in 0..count {
            let descriptor = wgpu::BufferDescriptor {
                label: None,
                size: 1 << 12,
                usage: wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            };
            let buffer = host.device.create_buffer(&descriptor);
            let mut encoder = host.device.create_command_encoder(&Default::default());
            encoder.clear_buffer(&buffer, 0, None);
            host.queue.submit([encoder.finish()]);
        }
    };
    frames(3);
    let engine = engine(&host);
    let model = load(&engine).unwrap();
    assert!(model.info().reason.contains("host"), "{}", model.info().reason);
    engine.set_pace(Pace::Frame(Duration::from_millis(4)));
    let [greedy, ..] = requests();
    let mut session = model.session();
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &greedy).unwrap();
    let finish = loop {
        frames(1);
        engine.tick(Duration::from_millis(4)).unwrap();
        match stream.try_next() {
            Some(Ok(Event::Finished(finish))) => break finish,
            Some(event) => drop(event.unwrap()),
            None => {}
        }
    };
    assert_eq!(finish.tokens, reference()[0]);
    // A drill takes nothing of the host's: the device is there again at once, and was there all along.
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &greedy).unwrap();
    assert!(matches!(stream.next(), Some(Ok(_))));
    model.lose_device().unwrap();
    frames(3);
    let (finish, devices) = follow(stream);
    assert_eq!((finish.unwrap().tokens, devices.len()), (reference()[0].clone(), 1));
    assert_ne!(model.health().device.backend, "cpu");
    // The host closes it: the answers go on elsewhere, and the host hears of it as it asked to.
    host.device.destroy();
    let (told, devices) = tell(&model);
    let told: Vec<_> = told.into_iter().map(|told| told.unwrap()).collect();
    assert_eq!((told, devices.len()), (reference(), 1));
    assert_eq!(model.health().device.backend, "cpu");
}

#[test]
fn a_panic_ends_answers_and_not_the_worker() {
    let fault = Fault::new(Point::Submit, Harm::Panic);
    let engine = Engine::new(options(Device::Cpu, Some(Faults::planned(&[(fault, 12)]))));
    let model = load(&engine).unwrap();
    let worker = Worker::start(&engine).unwrap();
    let [greedy, ..] = requests();
    let mut session = model.session();
    let error = session.generate(&Prompt::Raw(STORY.into()), &greedy).unwrap().finish().unwrap_err();
    assert!(error.kind() == Kind::Internal && error.to_string().contains("asked for"), "{error}");
    let again = session.generate(&Prompt::Raw(STORY.into()), &greedy).unwrap().finish().unwrap();
    assert_eq!(again.tokens, reference()[0]);
    drop(worker);
}
