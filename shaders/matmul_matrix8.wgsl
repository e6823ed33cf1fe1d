// matmul: cooperative matrices of 8 by 8, f16 factors and f32 sums.
@compute @workgroup_size(128)
fn main(place: Place) {
    let at_once = bands_at_once(place);
    for (var turn = 0u; turn < BANDS; turn += at_once) {
        let band = turn + place.subgroup;
        let x_at = X + 16u * LINE * min(band, BANDS - 1u);
        var s00: coop_mat8x8<f32, C>;
        var s01: coop_mat8x8<f32, C>;
        var s02: coop_mat8x8<f32, C>;
        var s03: coop_mat8x8<f32, C>;
        var s04: coop_mat8x8<f32, C>;
        var s05: coop_mat8x8<f32, C>;
        var s06: coop_mat8x8<f32, C>;
        var s07: coop_mat8x8<f32, C>;
        var s10: coop_mat8x8<f32, C>;
        var s11: coop_mat8x8<f32, C>;
        var s12: coop_mat8x8<f32, C>;
        var s13: coop_mat8x8<f32, C>;
        var s14: coop_mat8x8<f32, C>;
        var s15: coop_mat8x8<f32, C>;
        var s16: coop_mat8x8<f32, C>;
        var s17: coop_mat8x8<f32, C>;
        for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
            fill(place, unit);
            for (var k = 0u; k < 32u; k += 8u) {
                let x0 = coopLoadT<coop_mat8x8<f16, A>>(&tile[x_at + k], LINE);
                let x1 = coopLoadT<coop_mat8x8<f16, A>>(&tile[x_at + 8u * LINE + k], LINE);
                let w0 = coopLoad<coop_mat8x8<f16, B>>(&tile[k], LINE);
                s00 = coopMultiplyAdd(x0, w0, s00);
                s10 = coopMultiplyAdd(x1, w0, s10);
                let w1 = coopLoad<coop_mat8x8<f16, B>>(&tile[8u * LINE + k], LINE);
                s01 = coopMultiplyAdd(x0, w1, s01);
                s11 = coopMultiplyAdd(x1, w1, s11);
                let w2 = coopLoad<coop_mat8x8<f16, B>>(&tile[16u * LINE + k], LINE);
                s02 = coopMultiplyAdd(x0, w2, s02);
                s12 = coopMultiplyAdd(x1, w2, s12);
                let w3 = coopLoad<coop_mat8x8<f16, B>>(&tile[24u * LINE + k], LINE);
                s03 = coopMultiplyAdd(x0, w3, s03);
                s13 = coopMultiplyAdd(x1, w3, s13);
                let w4 = coopLoad<coop_mat8x8<f16, B>>(&tile[32u * LINE + k], LINE);
                s04 = coopMultiplyAdd(x0, w4, s04);
                s14 = coopMultiplyAdd(x1, w4, s14);
                let w5 = coopLoad<coop_mat8x8<f16, B>>(&tile[40u * LINE + k], LINE);
                s05 = coopMultiplyAdd(x0, w5, s05);
                s15 = coopMultiplyAdd(x1, w5, s15);
                let w6 = coopLoad<coop_mat8x8<f16, B>>(&tile[48u * LINE + k], LINE);
                s06 = coopMultiplyAdd(x0, w6, s06);
                s16 = coopMultiplyAdd(x1, w6, s16);
                let w7 = coopLoad<coop_mat8x8<f16, B>>(&tile[56u * LINE + k], LINE);
                s07 = coopMultiplyAdd(x0, w7, s07);
                s17 = coopMultiplyAdd(x1, w7, s17);
            }
        }
        let at = 256u * min(band, BANDS);
        coopStoreT(s00, &done[at], 16u);
        coopStoreT(s01, &done[at + 8u], 16u);
        coopStoreT(s10, &done[at + 128u], 16u);
        coopStoreT(s11, &done[at + 136u], 16u);
        finish_band(place, band, 0u);
        coopStoreT(s02, &done[at], 16u);
        coopStoreT(s03, &done[at + 8u], 16u);
        coopStoreT(s12, &done[at + 128u], 16u);
        coopStoreT(s13, &done[at + 136u], 16u);
        finish_band(place, band, 1u);
        coopStoreT(s04, &done[at], 16u);
        coopStoreT(s05, &done[at + 8u], 16u);
        coopStoreT(s14, &done[at + 128u], 16u);
        coopStoreT(s15, &done[at + 136u], 16u);
        finish_band(place, band, 2u);
        coopStoreT(s06, &done[at], 16u);
        coopStoreT(s07, &done[at + 8u], 16u);
        coopStoreT(s16, &done[at + 128u], 16u);
        coopStoreT(s17, &done[at + 136u], 16u);
        finish_band(place, band, 3u);
    }
}
