//! The window: state, worker and view put together, and the device that draws.

use std::path::PathBuf;
use std::sync::Arc;

use eframe::egui::{self, Context, Ui};
use eframe::egui_wgpu::{RenderState, WgpuSetup, WgpuSetupCreateNew};
use pocketlm::{Result, SharedDevice, wgpu};

use crate::device::Drawing;
use crate::settings::{Settings, Window};
use crate::state::{Action, State};
use crate::store::Store;
use crate::view::{self, Looks};
use crate::worker::{Command, Wake, Worker};

/// The app.
pub struct App {
    /// What the window knows.
    pub state: State,
    /// How things look.
    pub looks: Looks,
    worker: Worker,
    store: Store,
}

impl App {
    /// With what was kept in `store`; loads nothing.
    ///
    /// # Errors
    /// `Io` where the system gives no thread.
    pub fn new(ctx: &Context, store: Store, settings: Settings, drawing: Option<Drawing>) -> Result<Self> {
        view::theme::dress(ctx);
        ctx.set_zoom_factor(settings.zoom);
        let waker = ctx.clone();
        let wake: Wake = Arc::new(move || waker.request_repaint());
        let worker = Worker::start(store.clone(), drawing.clone(), wake)?;
        let state = State::new(settings, store.conversations(), drawing);
        Ok(Self { state, looks: Looks::default(), worker, store })
    }

    /// One frame: what is new, what is drawn, what is wanted.
    pub fn frame(&mut self, ui: &mut Ui) {
        for news in self.worker.news() {
            self.state.hear(news);
        }
        self.take_files(ui.ctx());
        view::show(ui, &mut self.state, &mut self.looks);
        if let Some(wait) = self.state.settle() {
            ui.ctx().request_repaint_after(wait);
        }
        for command in self.state.orders() {
            self.worker.ask(command);
        }
    }

    /// Opens a model, as if it had been dropped.
    pub fn open(&mut self, path: PathBuf) {
        self.state.act(Action::Load(path));
    }

    fn take_files(&mut self, ctx: &Context) {
        let dropped = ctx.input(|input| input.raw.dropped_files.first().map(|file| file.path().to_owned()));
        if let Some(path) = dropped {
            self.looks.shows_models = false;
            self.open(path);
        }
    }

    fn remember_window(&mut self, ctx: &Context) {
        let (inner, outer) = ctx.input(|input| (input.viewport().inner_rect, input.viewport().outer_rect));
        if let Some(inner) = inner {
            let zoom = ctx.zoom_factor();
            let size = [inner.width() * zoom, inner.height() * zoom];
            let at = outer.map(|outer| [outer.left() * zoom, outer.top() * zoom]);
            self.state.settings.window = Some(Window { size, at });
        }
    }
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.frame(ui);
        self.remember_window(ui.ctx());
    }

    fn on_exit(&mut self) {
        if let Err(error) = self.store.keep_settings(&self.state.settings) {
            log::warn!("the settings are not kept: {error}");
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // What was written until now is kept, and what the worker still has is done first.
        if let Some(conversation) = self.state.conversation().filter(|talk| !talk.nodes.is_empty()) {
            self.worker.ask(Command::Keep(Box::new(conversation.clone())));
        }
    }
}

/// How the window's device is opened: with what the engine makes use of, where there is such.
pub fn setup() -> WgpuSetup {
    let mut setup = WgpuSetupCreateNew::without_display_handle();
    let usual = setup.device_descriptor.clone();
    setup.device_descriptor = Arc::new(move |adapter| {
        let plain = usual(adapter);
        if adapter.get_info().backend == wgpu::Backend::Gl
            || !adapter.features().contains(wgpu::Features::IMMEDIATES)
        {
            return plain;
        }
        wgpu::DeviceDescriptor {
            required_features: SharedDevice::features(adapter),
            required_limits: SharedDevice::limits(plain.required_limits.clone(), adapter),
            ..plain
        }
    });
    setup.into()
}

/// The device that draws the window, and whether the engine can use it.
pub fn drawing(state: &RenderState) -> Drawing {
    let info = state.adapter.get_info();
    let can = state.device.features().contains(wgpu::Features::IMMEDIATES);
    let shared = SharedDevice {
        adapter: state.adapter.clone(),
        device: state.device.clone(),
        queue: state.queue.clone(),
    };
    Drawing {
        name: info.name,
        is_software: info.device_type == wgpu::DeviceType::Cpu,
        shared: if can { Ok(shared) } else { Err(format!("{} has no immediates", info.backend)) },
    }
}

/// The window as it was left, or as it is at first.
pub fn viewport(settings: &Settings) -> egui::ViewportBuilder {
    let window = settings.window.unwrap_or(Window { size: [1180.0, 780.0], at: None });
    let viewport = egui::ViewportBuilder::default()
        .with_title("pocketlm")
        .with_app_id("pocketlm-desktop")
        .with_inner_size(window.size)
        .with_min_inner_size([560.0, 420.0])
        .with_drag_and_drop(true);
    window.at.map_or(viewport.clone(), |at| viewport.with_position(at))
}
