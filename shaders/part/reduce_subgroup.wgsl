// The sum over a workgroup, known to each of its threads: within subgroups, of any size, then over them.
override WG: u32 = 64u;

struct Place {
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

// At most 256 threads in subgroups of at least 4.
var<workgroup> parts: array<vec4<f32>, 64>;

// Once per shader: nothing keeps a second call from overwriting what is still being read.
fn sum_of_group(place: Place, value: vec4<f32>) -> vec4<f32> {
    let part = subgroupAdd(value);
    if (place.lane == 0u) {
        parts[place.subgroup] = part;
    }
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < place.subgroups; i++) {
        sum += parts[i];
    }
    return sum;
}
