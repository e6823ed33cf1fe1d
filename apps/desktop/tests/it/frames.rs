//! The window keeps drawing while the model reads a long prompt on the same device. In software Vulkan that device is the processor,
//! and what draws and what reads share its cores: frames take longer than alone, and they go on; what a real GPU brings is in
//! `docs/desktop.md` where somebody has measured it.

#![allow(clippy::print_stdout, reason = "it is there to be read")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use eframe::egui_wgpu::{RenderState, RendererOptions};
use egui_kittest::Harness;
use egui_kittest::wgpu::{WgpuTestRenderer, create_render_state};
use pocketlm_desktop::app::{drawing, setup};
use pocketlm_desktop::settings::{Load, Place, Settings};
use pocketlm_desktop::state::{Action, State};
use pocketlm_desktop::view::{self, Looks};
use pocketlm_desktop::worker::{Command, Worker};

use crate::data::{Scratch, real_model};

/// Milliseconds that a frame may wait.
const BUDGET: f64 = 4.0;
const FRAME: Duration = Duration::from_micros(16_667);

struct Window {
    state: State,
    looks: Looks,
    worker: Worker,
}

fn frame(harness: &mut Harness<'_, Window>) -> Duration {
    let begun = Instant::now();
    harness.step();
    harness.render().expect("a frame");
    begun.elapsed()
}

/// Frames until `is_over`, at most sixty a second.
fn frames(
    harness: &mut Harness<'_, Window>,
    mut is_over: impl FnMut(&State, usize) -> bool,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while !is_over(&harness.state().state, times.len()) {
        let time = frame(harness);
        times.push(time);
        assert!(times.len() < 20_000, "it does not end");
        std::thread::sleep(FRAME.saturating_sub(time));
    }
    times
}

fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1].as_secs_f64() * 1e3
}

#[test]
fn frames_go_on_while_a_long_prompt_is_read_on_the_same_device() {
    let scratch = Scratch::new();
    let render: RenderState = create_render_state(setup(), RendererOptions::PREDICTABLE);
    let drawing = drawing(&render);
    assert!(drawing.shared.is_ok(), "{drawing:?}");
    let worker = Worker::start(scratch.store(), Some(drawing.clone()), Arc::new(|| {})).unwrap();
    let settings = Settings {
        place: Place::Window,
        budget_ms: BUDGET,
        load: Load { context: Some(1024), ..Load::default() },
        ..Settings::default()
    };
    let state = State::new(settings, Vec::new(), Some(drawing));
    let window = Window { state, looks: Looks::default(), worker };
    let mut harness = Harness::builder()
        .with_size([900.0, 640.0])
        .with_context_setup(view::theme::dress)
        .renderer(WgpuTestRenderer::from_render_state(render))
        .build_ui_state(
            |ui, window: &mut Window| {
                for news in window.worker.news() {
                    window.state.hear(news);
                }
                view::show(ui, &mut window.state, &mut window.looks);
                window.state.orders().into_iter().for_each(|command| window.worker.ask(command));
            },
            window,
        );
    harness.state_mut().state.act(Action::Load(real_model()));
    frames(&mut harness, |state, _| {
        state.loaded.is_some() || state.notices.iter().any(|notice| notice.is_error)
    });
    let loaded =
        harness.state().state.loaded.clone().unwrap_or_else(|| panic!("{:?}", harness.state().state.notices));
    assert!(loaded.is_shared && loaded.info.device.backend != "cpu");
    let idle = frames(&mut harness, |_, count| count == 60);

    let asked = &mut harness.state_mut().state.settings.asked;
    (asked.max_tokens, asked.temperature) = (4, 0.0);
    harness.state_mut().state.draft =
        "The quick brown fox jumps over the lazy dog, and the dog sleeps on. ".repeat(20);
    let slices_before = harness.state().state.meters.slices.len();
    harness.state_mut().state.act(Action::Send);
    let begun = Instant::now();
    let reading = frames(&mut harness, |state, _| {
        state.answering.as_ref().is_none_or(|answering| answering.first.is_some())
    });
    let read_in = begun.elapsed();
    frames(&mut harness, |state, _| state.answering.is_none());

    let state = &harness.state().state;
    let conversation = state.conversation().unwrap();
    let facts = conversation.nodes[1].facts.unwrap_or_else(|| panic!("{:?}", conversation.nodes[1].end));
    let p95 = f64::from(state.meters.device.p95);
    println!(
        "{}: {} tokens read in {:.1} s, {} frames meanwhile; a frame took {:.1} ms (p50) and {:.1} (p95), idle {:.1} and {:.1}; slices p95 {p95:.1} ms of {}",
        loaded.info.device.name,
        facts.prompt_tokens,
        read_in.as_secs_f64(),
        reading.len(),
        quantile(&reading, 0.5),
        quantile(&reading, 0.95),
        quantile(&idle, 0.5),
        quantile(&idle, 0.95),
        BUDGET / 2.0,
    );
    assert_eq!(state.meters.device.recoveries, 0, "the device was never lost, whoever waited for it");
    assert!(facts.prompt_tokens > 250, "{facts:?}");
    assert!(state.meters.slices.len() > slices_before, "slices are shown");
    // Many frames, evenly: in no part of the reading did the window stand still.
    let longest = quantile(&reading, 1.0) / 1e3;
    assert!(reading.len() >= 10, "{} frames in {read_in:?}", reading.len());
    assert!(longest < read_in.as_secs_f64() / 4.0, "a frame took {longest:.2} s of {read_in:?}");

    // Without the budget the same frames wait for whole submissions: the measure tells them apart.
    harness.state_mut().state.order(Command::Pace(None));
    harness.state_mut().state.draft =
        "A lazy dog, a quick fox, and a long day in the sun by the river bank. ".repeat(20);
    harness.state_mut().state.act(Action::New);
    harness.state_mut().state.act(Action::Send);
    let unpaced = frames(&mut harness, |state, _| {
        state.answering.as_ref().is_none_or(|answering| answering.first.is_some())
    });
    println!(
        "without the budget: {} frames, p50 {:.1} ms, p95 {:.1}",
        unpaced.len(),
        quantile(&unpaced, 0.5),
        quantile(&unpaced, 0.95)
    );
    assert!(quantile(&unpaced, 1.0) > quantile(&reading, 0.95), "the budget makes no difference");
}
