//! Calls that the CPU backend's own shape choices make worth testing: row counts around its tiles, strides and
//! offsets, heads that are no multiple of a vector, long contexts.

use pocketlm::Format;
use pocketlm::base::Seed;
use pocketlm::kernel::{
    Call, Case, Data, Epilogue, Form, KvType, PAGE, Tolerance, argmax, attend, embed, geglu, head_norm,
    kv_write, matmul, matvec, rms_norm, rope, soft_cap, swiglu, top_k,
};
use pocketlm::quant::Matrix;

pub(super) fn all() -> Vec<Case> {
    let products = Format::ALL.iter().flat_map(|&format| products(format));
    products.chain(attends()).chain(rows()).chain(bests()).collect()
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| v * v).sum::<f32>().sqrt()
}

fn call(rows: usize) -> Call {
    Call { rows: rows as u32, kv_len: 1 }
}

pub(super) fn matrix(seed: &mut Seed, format: Format, rows: usize, cols: usize) -> Matrix {
    let bytes = format.encode(&seed.vector(rows * cols, 0.5));
    Matrix::new("w", format, rows, cols, bytes.into()).unwrap()
}

/// A product of `rows` rows with the matrix, in the middle columns of a wider y.
pub(super) fn product(seed: &mut Seed, matrix: &Matrix, rows: usize, epilogue: Epilogue) -> Case {
    let (n, k, format) = (matrix.rows(), matrix.cols(), matrix.format());
    let (x_stride, y_stride, y_offset) = (k + 3, n + 5, 2);
    let x = seed.vector(rows * x_stride, 1.0);
    let norms = (0..n).map(|row| {
        let mut weights = vec![0.0; k];
        matrix.decode_row(row, &mut weights);
        norm(&weights)
    });
    let tolerance = Tolerance::dot(norms.fold(0.0, f32::max) + 1.0, norm(&x[..x_stride]).max(1.0) * 1.5);
    let params = matvec::Params {
        k: k as u32,
        n: n as u32,
        x_stride: x_stride as u32,
        y_stride: y_stride as u32,
        y_offset,
        code_stride: (format.code_words(k) / 4) as u32,
        scale_stride: format.scale_words(k) as u32,
    };
    let args = vec![Data::F32(x), Data::Matrix(matrix.clone()), Data::F32(seed.vector(rows * y_stride, 1.0))];
    let form = Form { format: Some(format), kv: None, epilogue: Some(epilogue) };
    let name = format!("{rows} rows, {n} × {k}, {epilogue:?}");
    match rows {
        1..8 => Case::of::<matvec::Matvec>(name, params, call(rows), form, args, tolerance),
        _ => Case::of::<matmul::Matmul>(name, params, call(rows), form, args, tolerance),
    }
}

/// Allows what rounding activations to 16 bits may change: each by half of max |x| / 32639, so a product by that
/// times Σ|w|.
pub(super) fn allow_rounding(case: &mut Case, matrix: &Matrix) {
    let Data::F32(x) = &case.args[0] else { panic!("a product's first argument is x") };
    let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let mut weights = vec![0.0; matrix.cols()];
    let sums = (0..matrix.rows()).map(|row| {
        matrix.decode_row(row, &mut weights);
        weights.iter().map(|w| w.abs()).sum::<f32>()
    });
    case.tolerance.0 += sums.fold(0.0, f32::max) * most / 65278.0;
}

fn products(format: Format) -> Vec<Case> {
    let mut seed = Seed::new(21);
    let block = format.block_len();
    let (odd, long) =
        if block == 1 { (77, 611) } else { (block, (3 * block).max(544).next_multiple_of(block)) };
    let (small, large) = (matrix(&mut seed, format, 7, odd), matrix(&mut seed, format, 61, long));
    let joined = Matrix::join(&large, &[&matrix(&mut seed, format, 24, long)]).unwrap();
    let mut cases = vec![product(&mut seed, &small, 1, Epilogue::Store)];
    for (rows, epilogue) in
        [(1, Epilogue::Add), (2, Epilogue::Store), (3, Epilogue::Add), (6, Epilogue::Store)]
    {
        cases.push(product(&mut seed, &joined, rows, epilogue));
    }
    for (rows, epilogue) in
        [(8, Epilogue::Store), (9, Epilogue::Add), (17, Epilogue::Store), (40, Epilogue::Add)]
    {
        cases.push(product(&mut seed, &joined, rows, epilogue));
        cases.push(product(&mut seed, &small, rows, epilogue));
    }
    cases
}

/// `[token, position, sequence, 0]` for rows of two sequences, the second upside down in the page table.
fn sequences(positions: &[[u32; 2]], pages_per_sequence: u32) -> (Vec<u32>, Vec<u32>) {
    let rows = positions.iter().flat_map(|&[position, sequence]| [5, position, sequence, 0]).collect();
    let pages = (0..pages_per_sequence).chain((pages_per_sequence..2 * pages_per_sequence).rev()).collect();
    (rows, pages)
}

fn cache(seed: &mut Seed, kv: KvType, vectors: u32, head_dim: u32) -> Vec<u32> {
    let mut words = vec![0; kv.words(vectors as usize, head_dim as usize)];
    for vector in 0..vectors as usize {
        kv.put(&mut words, vector, &seed.vector(head_dim as usize, 1.0));
    }
    words
}

pub(super) fn attends() -> Vec<Case> {
    let mut cases = Vec::new();
    let mixed = [[0, 0], [31, 1], [32, 0], [63, 1], [95, 0], [40, 1]];
    for shape in [(1, 1, 2), (4, 2, 6), (9, 3, 64), (8, 4, 8), (2, 1, 100)] {
        cases.extend(KvType::ALL.iter().map(|&kv| attend_case(shape, kv, &mixed, 3)));
    }
    // A slice of a prompt beside another sequence's; and a long context beside a short one.
    let mut slice: Vec<[u32; 2]> = (25..38).map(|position| [position, 1]).collect();
    slice.extend([[70, 0], [71, 0]]);
    for (&kv, shape) in KvType::BLOCKS.iter().zip([(9, 3, 64), (4, 2, 80)]) {
        for places in [&*slice, &[[600, 0], [5, 1]]] {
            let case = attend_case(shape, kv, places, 20);
            let params: attend::Params = bytemuck::pod_read_unaligned(&case.params);
            let block = pocketlm::kernel::kv_blocks::block_of(shape.2);
            let params = bytemuck::bytes_of(&attend::Params { block, ..params }).to_vec();
            // A sum of the elements of a block, over the root of their number.
            let tolerance = Tolerance(case.tolerance.0 * (block as f32).sqrt());
            cases.push(Case { params, tolerance, name: format!("{}, turned back", case.name), ..case });
        }
    }
    for &kv in KvType::ALL {
        cases.push(attend_case((9, 3, 64), kv, &slice, 3));
        cases.push(attend_case((9, 3, 64), kv, &[[600, 0], [5, 1], [256, 0]], 20));
        // Windows over a slice, over parts of which the first ones are before it, and inside a page; bent scores.
        for (window, cap, places) in [(9, 0.0, &*slice), (300, 0.0, &[[600, 0], [5, 1]]), (3, 0.5, &mixed)] {
            let case = attend_case((9, 3, 64), kv, places, 20);
            let params: attend::Params = bytemuck::pod_read_unaligned(&case.params);
            let params = bytemuck::bytes_of(&attend::Params { window, cap, ..params }).to_vec();
            cases.push(Case { params, name: format!("{}, window {window}, cap {cap}", case.name), ..case });
        }
    }
    cases
}

fn attend_case(
    (heads, kv_heads, head_dim): (u32, u32, u32),
    kv: KvType,
    positions: &[[u32; 2]],
    pages_per_sequence: u32,
) -> Case {
    let mut seed = Seed::new(22);
    let (rows, pages) = sequences(positions, pages_per_sequence);
    let (q_stride, q_offset) = (heads * head_dim + 7, 3);
    let vectors = 2 * pages_per_sequence * kv_heads * PAGE;
    let q = seed.vector(positions.len() * q_stride as usize, 2.0);
    let y = seed.vector(positions.len() * (heads * head_dim) as usize, 1.0);
    let args = vec![
        Data::U32(rows),
        Data::U32(pages),
        Data::F32(q),
        Data::U32(cache(&mut seed, kv, vectors, head_dim)),
        Data::U32(cache(&mut seed, kv, vectors, head_dim)),
        Data::F32(y),
    ];
    let scale = 1.0 / (head_dim as f32).sqrt();
    let window = PAGE * pages_per_sequence;
    let params = attend::Params {
        q_stride,
        q_offset,
        heads,
        kv_heads,
        head_dim,
        pages_per_sequence,
        scale,
        window,
        cap: 0.0,
        block: 1,
    };
    let form = Form { format: None, kv: Some(kv), epilogue: None };
    let call = Call { rows: positions.len() as u32, kv_len: PAGE * pages_per_sequence };
    // A score is off by its dot's roundings, which its exponential keeps; then a mean of values.
    let score = Tolerance::dot(2.0 * scale * (head_dim as f32).sqrt(), (head_dim as f32).sqrt()).0;
    let tolerance = Tolerance(2.0 * score + Tolerance::roundings(24, 1.0).0);
    let name = format!("{heads} heads of {head_dim}, {kv_heads} of K and V, {kv:?}, {positions:?}");
    Case::of::<attend::Attend>(name, params, call, form, args, tolerance)
}

fn rows() -> Vec<Case> {
    let mut seed = Seed::new(23);
    let mut cases = Vec::new();
    for width in [1u32, 31, 64, 577] {
        let len = width as usize;
        let params = rms_norm::Params { width, epsilon: 1e-5 };
        let args = [3 * len, len, 3 * len].map(|len| Data::F32(seed.vector(len, 1.0))).to_vec();
        // Sums of squares have no cancellation; no x is beyond 1, and the scale is at most √width / ‖x‖.
        let tolerance = Tolerance::roundings(8 + width / 16, (len as f32).sqrt() * 4.0);
        let name = format!("width {width}");
        cases.push(Case::of::<rms_norm::RmsNorm>(
            name.clone(),
            params,
            call(3),
            Form::default(),
            args,
            tolerance,
        ));
        let args = [6 * len, 3 * len].map(|len| Data::F32(seed.vector(len, 9.0))).to_vec();
        let (params, tolerance) = (swiglu::Params { width }, Tolerance::roundings(8, 81.0));
        let (form, gated) = (Form::default(), args.clone());
        cases.push(Case::of::<swiglu::Swiglu>(name.clone(), params, call(3), form, args, tolerance));
        let tolerance = Tolerance::roundings(12, 81.0);
        cases.push(Case::of::<geglu::Geglu>(name.clone(), params, call(3), form, gated, tolerance));
        let (params, x) = (soft_cap::Params { width, cap: 2.0 }, Data::F32(seed.vector(3 * len, 9.0)));
        let tolerance = Tolerance::roundings(4, 2.0);
        cases.push(Case::of::<soft_cap::SoftCap>(name.clone(), params, call(3), form, vec![x], tolerance));
        // Two heads of queries and one of keys, as wide as the row.
        let params = head_norm::Params {
            stride: 3 * width + 1,
            heads: 2,
            kv_heads: 1,
            head_dim: width,
            epsilon: 1e-5,
        };
        let args = [2 * len, 3 * (3 * len + 1)].map(|len| Data::F32(seed.vector(len, 1.0))).to_vec();
        let tolerance = Tolerance::roundings(8 + width / 16, (len as f32).sqrt());
        cases.push(Case::of::<head_norm::HeadNorm>(name, params, call(3), form, args, tolerance));
    }
    for (interleaved, dims) in [(0, 64), (1, 64), (0, 16), (1, 2)] {
        let table: Vec<f32> = (0..40 * dims / 2)
            .flat_map(|i| {
                let (sin, cos) = (f64::from(i) * 0.37).sin_cos();
                [cos as f32, sin as f32]
            })
            .collect();
        let params =
            rope::Params { stride: 3 * 64 + 5, offset: 2, heads: 3, head_dim: 64, dims, interleaved };
        let (rows, _) = sequences(&[[0, 0], [39, 1], [7, 0]], 2);
        let args = vec![Data::U32(rows), Data::F32(table), Data::F32(seed.vector(3 * (3 * 64 + 5), 2.0))];
        let name = format!("{dims} of 64, interleaved {interleaved}");
        let tolerance = Tolerance::roundings(2, 4.0);
        cases.push(Case::of::<rope::Rope>(name, params, call(3), Form::default(), args, tolerance));
    }
    for &kv in KvType::FLOATS {
        for head_dim in [2, 6, 64, 130] {
            let (rows, pages) = sequences(&[[0, 0], [33, 0], [33, 1], [63, 1]], 2);
            let (kv_heads, stride) = (3, 6 * head_dim + 4);
            let params = kv_write::Params {
                stride,
                k_offset: 1,
                v_offset: 3 * head_dim + 2,
                kv_heads,
                head_dim,
                pages_per_sequence: 2,
            };
            let vectors = 4 * kv_heads * PAGE;
            let args = vec![
                Data::U32(rows),
                Data::U32(pages),
                Data::F32(seed.vector(4 * stride as usize, 100.0)),
                Data::U32(cache(&mut seed, kv, vectors, head_dim)),
                Data::U32(cache(&mut seed, kv, vectors, head_dim)),
            ];
            let form = Form { format: None, kv: Some(kv), epilogue: None };
            let name = format!("heads of {head_dim}, {kv:?}");
            cases.push(Case::of::<kv_write::KvWrite>(name, params, call(4), form, args, Tolerance::EXACT));
        }
    }
    for &format in Format::ALL {
        let width = 256;
        let matrix = matrix(&mut seed, format, 7, width as usize);
        let params = embed::Params {
            width,
            first_token: 3,
            tokens: 7,
            code_stride: (format.code_words(width as usize) / 4) as u32,
            scale_stride: format.scale_words(width as usize) as u32,
            scale: 1.0,
        };
        let rows = vec![3, 0, 0, 0, 2, 1, 0, 0, 9, 2, 0, 0, 10, 3, 0, 0, 4, 4, 0, 0];
        let args =
            vec![Data::U32(rows), Data::Matrix(matrix), Data::F32(seed.vector(5 * width as usize, 1.0))];
        let form = Form { format: Some(format), kv: None, epilogue: None };
        cases.push(Case::of::<embed::Embed>("a piece", params, call(5), form, args, Tolerance::EXACT));
    }
    cases
}

fn bests() -> Vec<Case> {
    let mut seed = Seed::new(24);
    let mut cases = Vec::new();
    let mut special: Vec<Vec<f32>> = [1usize, 5, 255, 257, 5000].map(|len| seed.vector(len, 5.0)).to_vec();
    let coarse = seed.vector(3000, 5.0).iter().map(|v| v.round()).collect();
    special.extend([coarse, vec![f32::NEG_INFINITY; 300], vec![1.5; 700]]);
    let mut holes = seed.vector(600, 2.0);
    holes.iter_mut().step_by(3).for_each(|v| *v = f32::NEG_INFINITY);
    special.push(holes);
    for logits in &special {
        let width = logits.len() as u32;
        let args = argmax_args(logits.clone());
        let params = argmax::Params { width };
        let name = format!("width {width}");
        cases.push(Case::of::<argmax::Argmax>(
            name,
            params,
            call(1),
            Form::default(),
            args,
            Tolerance::EXACT,
        ));
    }
    for (at, bad) in [(0, f32::NAN), (299, f32::NAN), (150, f32::INFINITY)] {
        let mut logits = seed.vector(300, 1.0);
        logits[at] = bad;
        let args = argmax_args(logits);
        let params = argmax::Params { width: 300 };
        let name = format!("{bad} at {at}");
        cases.push(Case::of::<argmax::Argmax>(
            name,
            params,
            call(1),
            Form::default(),
            args,
            Tolerance::EXACT,
        ));
    }
    cases
}

fn argmax_args(logits: Vec<f32>) -> Vec<Data> {
    vec![Data::F32(logits), Data::U32(vec![0]), Data::U32(vec![1, 2, 3, 0]), Data::U32(vec![7])]
}

/// Rows for `top_k`: their last word, a sum, is not judged bit by bit.
pub(super) fn top_ks() -> Vec<(Vec<f32>, top_k::Params)> {
    let mut seed = Seed::new(25);
    let mut rows = Vec::new();
    for (width, k) in [(1, 1), (5, 5), (300, 128), (49152, 40), (5000, 1)] {
        rows.push((seed.vector(width, 5.0), top_k::Params { width: width as u32, k }));
        let coarse = seed.vector(width, 2.0).iter().map(|v| v.round()).collect();
        rows.push((coarse, top_k::Params { width: width as u32, k }));
        let rising = (0..width).map(|i| i as f32 * 1e-3).collect();
        rows.push((rising, top_k::Params { width: width as u32, k }));
    }
    rows
}
