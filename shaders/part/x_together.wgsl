// Units of x behind `x_vector`, where a subgroup has at least 8 threads: each loads one vector and tells the others,
// which costs a CPU, whose drivers load for each thread apart, an eighth.

// The same as `x32`. All threads of the subgroup ask for the same unit of the same row.
fn x32_together(row: u32, unit: u32, lane: u32) -> array<vec4<f32>, 8> {
    let i = 8u * unit + lane % 8u;
    var e = vec4<f32>(0.0);
    if (!RAGGED || i < p.k / 4u) {
        e = x[row * (p.x_stride / 4u) + i];
    }
    return array<vec4<f32>, 8>(
        subgroupBroadcast(e, 0u), subgroupBroadcast(e, 1u), subgroupBroadcast(e, 2u), subgroupBroadcast(e, 3u),
        subgroupBroadcast(e, 4u), subgroupBroadcast(e, 5u), subgroupBroadcast(e, 6u), subgroupBroadcast(e, 7u),
    );
}
