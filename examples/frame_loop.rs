//! Draws and answers on one device: `cargo run --release --example frame_loop -- MODEL`. What would be an app's window is a
//! texture here, cleared to another colour 60 times a second; the engine computes in between, and no frame waits for it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks")]

use std::time::{Duration, Instant};

use pocketlm::wgpu;
use pocketlm::{Engine, EngineOptions, Event, GenerateOptions, LoadOptions, Pace, Prompt, SharedDevice};

const FRAME: Duration = Duration::from_micros(16_667);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: frame_loop MODEL");
        std::process::exit(2);
    };

    // The app's own device, with what the engine makes use of.
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: SharedDevice::features(&adapter),
        required_limits: SharedDevice::limits(wgpu::Limits::default(), &adapter),
        ..wgpu::DeviceDescriptor::default()
    }))?;
    let screen = device.create_texture(&wgpu::TextureDescriptor {
        label: Some("screen"),
        size: wgpu::Extent3d { width: 640, height: 360, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba8Unorm,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
        view_formats: &[],
    });
    let view = screen.create_view(&wgpu::TextureViewDescriptor::default());

    let shared = Some(SharedDevice { adapter, device: device.clone(), queue: queue.clone() });
    let engine = Engine::new(EngineOptions { shared, ..EngineOptions::default() });
    let model = engine.load(path, &LoadOptions::default(), |_| Ok(()))?;
    engine.set_pace(Pace::Frame(Duration::from_millis(4)));
    let options = GenerateOptions { max_tokens: Some(40), ..GenerateOptions::default() };
    let mut answer = model.session().generate(&Prompt::user("Why is the sky blue?"), &options)?;

    let (mut frames, mut late, mut due) = (0, 0, Instant::now() + FRAME);
    loop {
        draw(&device, &queue, &view, frames);
        engine.tick(due.saturating_duration_since(Instant::now()))?;
        while let Some(event) = answer.try_next() {
            match event? {
                Event::Text(text) => print!("{text}"),
                Event::Finished(_) => {
                    println!("\n[{frames} frames, {late} of them late]");
                    return Ok(());
                }
                _ => {}
            }
        }
        frames += 1;
        late += u32::from(Instant::now() > due + FRAME / 2);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = (due + FRAME).max(Instant::now());
    }
}

fn draw(device: &wgpu::Device, queue: &wgpu::Queue, view: &wgpu::TextureView, frame: u32) {
    let red = f64::from(frame % 60) / 60.0;
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        color_attachments: &[Some(wgpu::RenderPassColorAttachment {
            view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations {
                load: wgpu::LoadOp::Clear(wgpu::Color { r: red, g: 0.2, b: 0.4, a: 1.0 }),
                store: wgpu::StoreOp::Store,
            },
        })],
        ..wgpu::RenderPassDescriptor::default()
    });
    queue.submit([encoder.finish()]);
}
