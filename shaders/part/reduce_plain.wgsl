// The sum over a workgroup of 64 threads, known to each of them: one barrier, then all read all.
const WG = 64u;

struct Place {
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) group: vec3<u32>,
}

var<workgroup> parts: array<vec4<f32>, WG>;

// Once per shader: nothing keeps a second call from overwriting what is still being read.
fn sum_of_group(place: Place, value: vec4<f32>) -> vec4<f32> {
    parts[place.thread] = value;
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < WG; i++) {
        sum += parts[i];
    }
    return sum;
}
