// seal: one thread.
struct Params {
    rows: u32,
    kv_len: u32,
    nonce: u32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> seal: array<u32>;

@compute @workgroup_size(1)
fn main() {
    seal[0] = p.nonce;
}
