// matmul: cooperative matrices of 16 by 16, f16 factors and f32 sums.
@compute @workgroup_size(128)
fn main(place: Place) {
    let at_once = bands_at_once(place);
    for (var turn = 0u; turn < BANDS; turn += at_once) {
        let band = turn + place.subgroup;
        let x_at = X + 16u * LINE * min(band, BANDS - 1u);
        var s0: coop_mat16x16<f32, C>;
        var s1: coop_mat16x16<f32, C>;
        var s2: coop_mat16x16<f32, C>;
        var s3: coop_mat16x16<f32, C>;
        for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
            fill(place, unit);
            for (var k = 0u; k < 32u; k += 16u) {
                let x0 = coopLoadT<coop_mat16x16<f16, A>>(&tile[x_at + k], LINE);
                let w0 = coopLoad<coop_mat16x16<f16, B>>(&tile[k], LINE);
                s0 = coopMultiplyAdd(x0, w0, s0);
                let w1 = coopLoad<coop_mat16x16<f16, B>>(&tile[16u * LINE + k], LINE);
                s1 = coopMultiplyAdd(x0, w1, s1);
                let w2 = coopLoad<coop_mat16x16<f16, B>>(&tile[32u * LINE + k], LINE);
                s2 = coopMultiplyAdd(x0, w2, s2);
                let w3 = coopLoad<coop_mat16x16<f16, B>>(&tile[48u * LINE + k], LINE);
                s3 = coopMultiplyAdd(x0, w3, s3);
            }
        }
        let at = 256u * min(band, BANDS);
        coopStoreT(s0, &done[at], 16u);
        finish_band(place, band, 0u);
        coopStoreT(s1, &done[at], 16u);
        finish_band(place, band, 1u);
        coopStoreT(s2, &done[at], 16u);
        finish_band(place, band, 2u);
        coopStoreT(s3, &done[at], 16u);
        finish_band(place, band, 3u);
    }
}
