// Units of 32 as f32.

// Outputs of a thread in matvec, in fours.
const SETS = 1u;

// Element by element below: naga takes an alias for another type than what it stands for, and SPIR-V has no such cast.
alias UnitW = array<vec4<f32>, 8>;
alias UnitX = array<vec4<f32>, 8>;

// The unit of row j of the weights from 32 * unit on; rows past the last repeat it.
fn unit_w(j: u32, unit: u32) -> UnitW {
    let row = min(j, HALVES * p.n - 1u);
    let e = decode32(row * p.code_stride, row * p.scale_stride, unit);
    return UnitW(e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]);
}

fn unit_x(e: array<vec4<f32>, 8>) -> UnitX {
    return UnitX(e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]);
}

fn mul(w: UnitW, x: UnitX) -> f32 {
    let wx = w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3]
        + w[4] * x[4] + w[5] * x[5] + w[6] * x[6] + w[7] * x[7];
    return (wx.x + wx.y) + (wx.z + wx.w);
}
