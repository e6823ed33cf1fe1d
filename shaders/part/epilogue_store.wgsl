// A result replaces the element.
fn finish(at: u32, value: f32) {
    y[at] = value;
}
