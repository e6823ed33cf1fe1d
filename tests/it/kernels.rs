//! The twins of kernels against numbers worked out by hand, and the judge of backends against planted faults.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::{Backend, Caps, Program, Progress, Status, Ticket, probe};
use pocketlm::base::chance::{Stage, Stages};
use pocketlm::kernel::{
    Call, Case, Data, Epilogue, Form, Home, KernelId, KvType, PAGE, ROW_WORDS, Tolerance, argmax, attend,
    bias, draw, embed, geglu, gelu, head_norm, kv_blocks, kv_write, layer_norm, matvec, pick, positions,
    rms_norm, rope, soft_cap, swiglu, top_k,
};
use pocketlm::plan::{Inputs, ItemId, Plan, Store};
use pocketlm::quant::Matrix;
use pocketlm::{Format, Kind, Result};

#[test]
fn every_kernel_has_cases_in_every_form_and_the_first_is_small() {
    for kernel in KernelId::ALL.iter().map(|id| id.kernel()) {
        let cases = kernel.cases();
        let size = |case: &Case| -> usize {
            let words = |data: &Data| match data {
                Data::Matrix(matrix) => matrix.rows() * matrix.cols(),
                Data::F32(values) => values.len(),
                Data::U32(values) => values.len(),
            };
            case.args.iter().map(words).sum()
        };
        assert!(size(&cases[0]) < 20_000, "{}: the probe has {} words", kernel.name, size(&cases[0]));
        let names: BTreeSet<_> = cases.iter().map(probe::describe).collect();
        assert_eq!(names.len(), cases.len(), "{}: two cases of one name", kernel.name);
        for variant in kernel.variants {
            let suits = cases.iter().filter(|case| kernel.suits(&case.params, case.form, variant));
            let forms: BTreeSet<_> = suits.map(|case| format!("{:?}", case.form)).collect();
            let expected: BTreeSet<_> =
                crate::shaders::forms(variant).iter().map(|form| format!("{form:?}")).collect();
            assert_eq!(forms, expected, "{} {}", kernel.name, variant.name);
        }
    }
}

fn twin<H: Home>(params: H::Params, rows: u32, form: Form, args: Vec<Data>) -> Vec<Data> {
    let call = Call { rows, kv_len: 1 };
    Case::of::<H>("by hand", params, call, form, args, Tolerance::EXACT).expected()
}

fn f32s(data: &Data) -> &[f32] {
    match data {
        Data::F32(values) => values,
        other => panic!("{other:?}"),
    }
}

fn u32s(data: &Data) -> &[u32] {
    match data {
        Data::U32(values) => values,
        other => panic!("{other:?}"),
    }
}

fn matrix(rows: usize, values: &[f32]) -> Data {
    let bytes = Format::F32.encode(values).into();
    Data::Matrix(Matrix::new("w", Format::F32, rows, values.len() / rows, bytes).unwrap())
}

/// A probe stands for each step that the cases stand for: it is compiled to the same.
#[test]
fn a_probe_is_small_and_compiled_as_the_step_is() {
    for &id in KernelId::ALL {
        let kernel = id.kernel();
        for case in kernel.cases() {
            let what = probe::describe(&case);
            let probe = kernel.probe(&case.params, case.form).unwrap_or_else(|| panic!("{what} has none"));
            assert_eq!((probe.kernel, probe.form), (id, case.form), "{what}");
            for variant in kernel.variants {
                let compiled = |case: &Case| {
                    let suits = kernel.suits(&case.params, case.form, variant);
                    suits.then(|| kernel.overrides(&case.params, variant))
                };
                assert_eq!(compiled(&probe), compiled(&case), "{what}, {}", variant.name);
            }
            let words = |data: &Data| match data {
                Data::Matrix(matrix) => matrix.bytes() as usize / 4,
                Data::F32(values) => values.len(),
                Data::U32(values) => values.len(),
            };
            assert!(probe.args.iter().map(words).sum::<usize>() < 1 << 19, "{what}");
        }
    }
}

#[test]
fn twins_of_products_and_rows_by_hand() {
    let form = |epilogue| Form { format: Some(Format::F32), kv: None, epilogue };
    let w = matrix(2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let params =
        matvec::Params { k: 3, n: 2, x_stride: 4, y_stride: 3, y_offset: 1, code_stride: 8, scale_stride: 0 };
    let x = Data::F32(vec![1.0, 0.0, -1.0, 9.0, 2.0, 1.0, 0.0, 9.0]);
    let y = Data::F32(vec![10.0; 6]);
    let args = || vec![x.clone(), w.clone(), y.clone()];
    let stored = twin::<matvec::Matvec>(params, 2, form(Some(Epilogue::Store)), args());
    assert_eq!(f32s(&stored[2]), [10.0, -2.0, -2.0, 10.0, 4.0, 13.0]);
    let added = twin::<matvec::Matvec>(params, 2, form(Some(Epilogue::Add)), args());
    assert_eq!(f32s(&added[2]), [10.0, 8.0, 8.0, 10.0, 14.0, 23.0]);

    let params =
        embed::Params { width: 3, first_token: 5, tokens: 2, code_stride: 8, scale_stride: 0, scale: 2.0 };
    let rows = Data::U32(vec![6, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0]);
    let got = twin::<embed::Embed>(params, 3, form(None), vec![rows, w, Data::F32(vec![0.0; 9])]);
    assert_eq!(f32s(&got[2]), [8.0, 10.0, 12.0, 0.0, 0.0, 0.0, 2.0, 4.0, 6.0]);

    // The mean square of 3 and 4 is 12.5, and a root of 12.5 + 12.5 is 5.
    let params = rms_norm::Params { width: 2, epsilon: 12.5 };
    let args = vec![Data::F32(vec![3.0, 4.0]), Data::F32(vec![5.0, 10.0]), Data::F32(vec![1.0; 2])];
    assert_eq!(f32s(&twin::<rms_norm::RmsNorm>(params, 1, form(None), args.clone())[2]), [3.0, 8.0]);
    let added = twin::<rms_norm::RmsNorm>(params, 1, form(Some(Epilogue::Add)), args);
    assert_eq!(f32s(&added[2]), [4.0, 9.0]);
    // Mean 2, variance 1: −1 and 1 over a root of 1 + 3, times a gain, plus a bias.
    let params = layer_norm::Params { width: 2, epsilon: 3.0 };
    let args = [[1.0, 3.0], [4.0, 8.0], [1.0, 0.5], [0.0; 2]].map(|values| Data::F32(values.to_vec()));
    assert_eq!(f32s(&twin::<layer_norm::LayerNorm>(params, 1, form(None), args.to_vec())[3]), [-1.0, 4.5]);

    let params = positions::Params { width: 2 };
    let table = Data::F32(vec![1.0, 2.0, 3.0, 4.0]);
    let args = vec![Data::U32(vec![9, 1, 0, 0]), table, Data::F32(vec![10.0, 20.0])];
    assert_eq!(f32s(&twin::<positions::Positions>(params, 1, form(None), args)[2]), [13.0, 24.0]);

    // gelu(1) = ½ · (1 + tanh(√(2/π) · 1.044715)) = 0.841192, of the gate 1 and times 2.
    let args = vec![Data::F32(vec![1.0, 2.0]), Data::F32(vec![0.0])];
    let got = twin::<geglu::Geglu>(geglu::Params { width: 1 }, 1, form(None), args);
    assert!((f32s(&got[1])[0] - 1.682384).abs() < 1e-5, "{got:?}");
    let args = vec![Data::F32(vec![1.0]), Data::F32(vec![0.0])];
    let got = twin::<gelu::Gelu>(gelu::Params { width: 1 }, 1, form(None), args);
    assert!((f32s(&got[1])[0] - 0.841192).abs() < 1e-5, "{got:?}");
    let args = vec![Data::F32(vec![3f32.ln(), -1e9])];
    let got = twin::<soft_cap::SoftCap>(soft_cap::Params { width: 2, cap: 0.5 }, 1, form(None), args);
    assert!((f32s(&got[0])[0] - 0.4878).abs() < 1e-4 && f32s(&got[0])[1] == -0.5, "{got:?}");

    let params = bias::Params { width: 2, y_stride: 3, y_offset: 1 };
    let args = vec![Data::F32(vec![1.0, 2.0]), Data::F32(vec![0.0, 10.0, 20.0, 0.0, 30.0, 40.0])];
    let got = twin::<bias::Bias>(params, 2, Form::default(), args);
    assert_eq!(f32s(&got[1]), [0.0, 11.0, 22.0, 0.0, 31.0, 42.0]);

    // silu(0) = 0, and silu(ln 3) = ln 3 · 3/4.
    let x = vec![0.0, 3f32.ln(), 7.0, 4.0];
    let args = vec![Data::F32(x), Data::F32(vec![1.0; 2])];
    let got = twin::<swiglu::Swiglu>(swiglu::Params { width: 2 }, 1, Form::default(), args);
    let expected = 3f32.ln() * 0.75 * 4.0;
    assert!(f32s(&got[1])[0] == 0.0 && (f32s(&got[1])[1] - expected).abs() < 1e-6, "{got:?}");

    let x = Data::F32(vec![1.0, 2.0, 3.0, 4.0]);
    let args = vec![Data::U32(vec![1, 0]), x, Data::F32(vec![0.0; 4])];
    let got = twin::<pick::Pick>(pick::Params { width: 2 }, 2, Form::default(), args);
    assert_eq!(f32s(&got[2]), [3.0, 4.0, 1.0, 2.0]);
}

#[test]
fn twins_of_attention_by_hand() {
    // A quarter turn for pair 0, none for pair 1, at position 1.
    let table = Data::F32(vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    let rows = Data::U32(vec![0, 1, 0, 0]);
    let turn = |interleaved| {
        let params = rope::Params { stride: 5, offset: 1, heads: 1, head_dim: 4, dims: 4, interleaved };
        let x = Data::F32(vec![9.0, 1.0, 2.0, 3.0, 4.0]);
        twin::<rope::Rope>(params, 1, Form::default(), vec![rows.clone(), table.clone(), x]).remove(2)
    };
    assert_eq!(f32s(&turn(1)), [9.0, -2.0, 1.0, 3.0, 4.0]);
    assert_eq!(f32s(&turn(0)), [9.0, -3.0, 2.0, 1.0, 4.0]);

    // Position 1 of sequence 1, whose page is 0, in head 1: slot (0·2 + 1)·32 + 1.
    let pages = Data::U32(vec![1, 0]);
    let rows = Data::U32(vec![0, 1, 1, 0]);
    let params = kv_write::Params {
        stride: 8,
        k_offset: 0,
        v_offset: 4,
        kv_heads: 2,
        head_dim: 2,
        pages_per_sequence: 1,
    };
    let x = Data::F32((1..=8).map(|v| v as f32).collect());
    let empty = Data::U32(vec![0; 2 * 2 * 32]);
    let form = Form { kv: Some(KvType::F16), ..Form::default() };
    let got = twin::<kv_write::KvWrite>(
        params,
        1,
        form,
        vec![rows.clone(), pages.clone(), x, empty.clone(), empty],
    );
    // 3 and 4, 7 and 8 as halves.
    assert_eq!((u32s(&got[3])[33], u32s(&got[4])[33]), (0x4400_4200, 0x4800_4700));
    assert_eq!(u32s(&got[3]).iter().filter(|&&word| word != 0).count(), 2);

    // Keys 0 and ln 3 against a query of 1 weigh 1/4 and 3/4; a third key is not yet visible.
    let at = |values: [f32; 3]| {
        let mut words = vec![0u32; 2 * 32 * 2];
        for (t, value) in values.into_iter().enumerate() {
            words[2 * t] = value.to_bits();
        }
        Data::U32(words)
    };
    let params = attend::Params {
        q_stride: 4,
        q_offset: 0,
        heads: 2,
        kv_heads: 1,
        head_dim: 2,
        pages_per_sequence: 1,
        scale: 1.0,
        window: 32,
        cap: 0.0,
        block: 1,
    };
    let q = Data::F32(vec![1.0, 0.0, 0.0, 5.0]);
    let args = vec![rows, pages, q, at([0.0, 3f32.ln(), 99.0]), at([4.0, 8.0, 1e9]), Data::F32(vec![1.0; 4])];
    let form = Form { kv: Some(KvType::F32), ..Form::default() };
    // Bent below 0.5, ln 3 is 0.5 · tanh(2 · ln 3) = 0.4878. A window of one key leaves the last.
    let bent = 1.0 / (1.0 + (-0.4878f32).exp());
    assert!((0.5 * (2.0 * 3f32.ln()).tanh() - 0.4878).abs() < 1e-4);
    let meanings = [
        (params, [7.0, 0.0, 6.0, 0.0], 1e-6),
        (attend::Params { cap: 0.5, ..params }, [4.0 + 4.0 * bent, 0.0, 6.0, 0.0], 1e-3),
        (attend::Params { window: 1, ..params }, [8.0, 0.0, 8.0, 0.0], 1e-6),
    ];
    for (params, expected, tolerance) in meanings {
        let got = twin::<attend::Attend>(params, 1, form, args.clone());
        let is_near = |(got, expected): (&f32, f32)| (got - expected).abs() < tolerance;
        assert!(f32s(&got[5]).iter().zip(expected).all(is_near), "{params:?}: {got:?}");
    }

    // Squares of 3 and 4 have a mean of 12.5; a head of queries, then one of keys, then values.
    let params = head_norm::Params { stride: 6, heads: 1, kv_heads: 1, head_dim: 2, epsilon: 12.5 };
    let args = vec![Data::F32(vec![5.0, 10.0, 1.0, 2.0]), Data::F32(vec![3.0, 4.0, 3.0, 4.0, 9.0, 9.0])];
    let got = twin::<head_norm::HeadNorm>(params, 1, Form::default(), args);
    assert_eq!(f32s(&got[1]), [3.0, 8.0, 0.6, 1.6, 9.0, 9.0]);
}

#[test]
fn twins_of_logits_by_hand() {
    let logits = [1.0, 3.0, -0.0, 3.0, 0.0, f32::NAN, 9.0, 0.0, 0.0, 0.0];
    let rows = Data::U32(vec![5, 8, 1, 0, 6, 3, 0, 0, 7, 9, 2, 0]);
    let args = vec![Data::F32(logits.into()), Data::U32(vec![2, 0]), rows, Data::U32(vec![7; 2])];
    let got = twin::<argmax::Argmax>(argmax::Params { width: 5 }, 2, Form::default(), args);
    assert_eq!(u32s(&got[3]), [1, argmax::NOT_A_TOKEN]);
    assert_eq!(u32s(&got[2]), [argmax::NOT_A_TOKEN, 9, 1, 0, 6, 3, 0, 0, 1, 10, 2, 0]);

    let args = vec![Data::F32(logits.into()), Data::U32(vec![7; 14])];
    let got = twin::<top_k::TopK>(top_k::Params { width: 5, k: 3 }, 2, Form::default(), args);
    let sum = (2.0 * 3f64.exp() + 1f64.exp() + 2.0).ln() as f32;
    let numbers = [3.0, 3.0, 1.0, sum].map(f32::to_bits);
    assert_eq!(u32s(&got[1])[..7], [&[1, 3, 0], &numbers[..]].concat());
    let nan = f32::NAN.to_bits();
    assert_eq!(u32s(&got[1])[7..], [u32::MAX, u32::MAX, u32::MAX, nan, nan, nan, nan]);

    // The only candidate within a half of the largest, whatever is drawn; and no chain.
    let found = [[40, 41, 0, 0, 0], [42, 43, 0, 0, 0]].map(|mut found| {
        found[2..4].copy_from_slice(&[2f32, 1.0].map(f32::to_bits));
        found
    });
    let mut chains = [Stages::default(); 2];
    chains[1].count = 2;
    chains[1].list[..2].copy_from_slice(&[Stage::near(0.5, 1.0), Stage::draw(1.0)]);
    let chains = bytemuck::cast_slice(&chains).to_vec();
    let rows = vec![5, 8, 1, 0, 6, 3, 0, 0];
    let args = [found.concat(), vec![0, 1], chains, rows, vec![7, 7]].map(Data::U32).to_vec();
    let got = twin::<draw::Draw>(draw::Params { k: 2 }, 2, Form::default(), args);
    assert_eq!((u32s(&got[3]), u32s(&got[4])), (&[5, 8, 1, 0, 42, 3, 0, 0][..], &[7, 42][..]));
}

/// What the judge says to the twin's result for `case` with `fault` in its arguments.
fn judged(case: &Case, fault: impl FnOnce(&mut Case)) -> Option<Kind> {
    let mut faulty = case.clone();
    fault(&mut faulty);
    probe::judge(case, &case.expected(), &faulty.expected()).err().map(|error| error.kind())
}

fn params_of<P: bytemuck::Pod>(case: &Case) -> P {
    bytemuck::pod_read_unaligned(&case.params)
}

fn a_case(id: KernelId, wanted: impl Fn(&Case) -> bool) -> Case {
    id.kernel().cases().into_iter().find(wanted).expect("a case")
}

/// The weights of a case in q4_0 with the nibbles of each byte exchanged.
fn swapped_nibbles(case: &mut Case) {
    let Data::Matrix(matrix) = &mut case.args[1] else { panic!("a matrix") };
    let mut bytes: Vec<u8> = (0..matrix.rows()).flat_map(|row| matrix.row(row).to_vec()).collect();
    for block in bytes.chunks_exact_mut(18) {
        block[2..].iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
    }
    *matrix = Matrix::new("w", Format::Q4_0, matrix.rows(), matrix.cols(), bytes.into()).unwrap();
}

/// The first row of x.
fn x_of(case: &mut Case) -> &mut [f32] {
    let k = params_of::<matvec::Params>(case).k as usize;
    let Data::F32(x) = &mut case.args[0] else { panic!("x") };
    &mut x[..k]
}

/// What a missing barrier or a wrong stride does: the 32 products of one thread are not in the sum, of which those of the
/// largest x show in sums of any length.
fn lost_part(case: &mut Case) {
    let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
    let parts = x_of(case).chunks_mut(32);
    parts.max_by(|a, b| norm(a).total_cmp(&norm(b))).expect("a part").fill(0.0);
}

/// What the other order of bytes in a word does.
fn swapped_bytes(case: &mut Case) {
    x_of(case).chunks_mut(4).for_each(<[f32]>::reverse);
}

/// What eight bits of activations are where sixteen were meant.
fn lost_low_bytes(case: &mut Case) {
    for x in x_of(case).chunks_mut(32) {
        let step = x.iter().fold(0.0, |most: f32, x| most.max(x.abs())) / 127.0;
        x.iter_mut().for_each(|x| *x = (*x / step).round() * step);
    }
}

#[test]
fn the_judge_of_variants_that_round_says_no_to_planted_faults() {
    let wrong = Some(Kind::WrongNumbers);
    for kernel in [KernelId::Matvec, KernelId::Matmul].map(KernelId::kernel) {
        let cases = kernel.cases();
        let cases: Vec<_> =
            cases.iter().filter(|case| case.form.format == Some(Format::Q4_0)).take(6).collect();
        for variant in kernel.variants.iter().filter(|variant| variant.needs.rounding) {
            for case in cases.iter().map(|case| case.as_judged(variant)) {
                let name = format!("{}, {}", variant.name, probe::describe(&case));
                assert_eq!(judged(&case, |_| {}), None, "{name}");
                assert_eq!(judged(&case, swapped_nibbles), wrong, "swapped nibbles, {name}");
                assert_eq!(judged(&case, swapped_bytes), wrong, "swapped bytes, {name}");
                assert_eq!(judged(&case, lost_part), wrong, "a lost part, {name}");
                if variant.name.ends_with("_i8") {
                    assert_eq!(judged(&case, lost_low_bytes), wrong, "lost low bytes, {name}");
                }
            }
        }
    }
}

#[test]
fn the_judge_says_no_to_planted_faults() {
    let wrong = Some(Kind::WrongNumbers);
    for id in KernelId::ALL {
        for case in id.kernel().cases().iter().take(3) {
            assert_eq!(judged(case, |_| {}), None, "{}", probe::describe(case));
        }
    }

    for id in [KernelId::Matvec, KernelId::Matmul, KernelId::Embed] {
        for case in id.kernel().cases().iter().filter(|case| case.form.format == Some(Format::Q4_0)).take(6) {
            assert_eq!(judged(case, swapped_nibbles), wrong, "swapped nibbles, {}", probe::describe(case));
        }
    }

    let lost_scale = |case: &mut Case| {
        let Data::Matrix(matrix) = &mut case.args[1] else { panic!("a matrix") };
        let mut bytes = matrix.row(0).to_vec();
        bytes[..2].copy_from_slice(&half::f16::ONE.to_le_bytes());
        (1..matrix.rows()).for_each(|row| bytes.extend_from_slice(&matrix.row(row)));
        *matrix = Matrix::new("w", Format::Q4_0, matrix.rows(), matrix.cols(), bytes.into()).unwrap();
    };
    for id in [KernelId::Matvec, KernelId::Matmul] {
        for case in id.kernel().cases().iter().filter(|case| case.form.format == Some(Format::Q4_0)).take(6) {
            assert_eq!(judged(case, lost_part), wrong, "a lost part, {}", probe::describe(case));
            assert_eq!(judged(case, lost_scale), wrong, "a lost scale, {}", probe::describe(case));
        }
    }

    let next_position = |case: &mut Case| {
        let Data::U32(rows) = &mut case.args[0] else { panic!("rows") };
        rows[1] = if rows[1] == 0 { 1 } else { rows[1] - 1 };
    };
    for &kv in KvType::ALL {
        let grouped =
            |case: &Case| case.form.kv == Some(kv) && params_of::<attend::Params>(case).kv_heads == 3;
        let case = a_case(KernelId::Attend, grouped);
        assert_eq!(judged(&case, next_position), wrong, "position, {}", probe::describe(&case));
        let wrong_head = |case: &mut Case| {
            let head_dim = params_of::<attend::Params>(case).head_dim as usize;
            let Data::F32(q) = &mut case.args[2] else { panic!("q") };
            q[..2 * head_dim].rotate_left(head_dim);
        };
        assert_eq!(judged(&case, wrong_head), wrong, "head, {}", probe::describe(&case));
        let lost_scale = |case: &mut Case| {
            let params = attend::Params { scale: 1.0, ..params_of(case) };
            case.params = bytemuck::bytes_of(&params).to_vec();
        };
        assert_eq!(judged(&case, lost_scale), wrong, "scale, {}", probe::describe(&case));
        let stale = |case: &mut Case| {
            let p = params_of::<attend::Params>(case);
            let Data::U32(pages) = &case.args[1] else { panic!("pages") };
            let at = pocketlm::kernel::kv_at(pages, p.pages_per_sequence, 1, 50, 1, p.kv_heads);
            let Data::U32(keys) = &mut case.args[3] else { panic!("keys") };
            kv.put(keys, at, &vec![0.25; p.head_dim as usize]);
        };
        assert_eq!(judged(&case, stale), wrong, "a stale slot, {}", probe::describe(&case));
        let is_of = |p: attend::Params| {
            move |case: &Case| {
                let (of, pages) = (params_of::<attend::Params>(case), PAGE * p.pages_per_sequence);
                case.form.kv == Some(kv)
                    && (of.window < pages) == (p.window < pages)
                    && (of.cap > 0.0) == (p.cap > 0.0)
            }
        };
        let plain = params_of::<attend::Params>(&case);
        let case = a_case(KernelId::Attend, is_of(attend::Params { window: 1, ..plain }));
        let wider = |case: &mut Case| {
            let params: attend::Params = params_of(case);
            case.params =
                bytemuck::bytes_of(&attend::Params { window: params.window + 1, ..params }).to_vec();
        };
        assert_eq!(judged(&case, wider), wrong, "window, {}", probe::describe(&case));
        let case = a_case(KernelId::Attend, is_of(attend::Params { cap: 1.0, ..plain }));
        let not_bent = |case: &mut Case| {
            let params = attend::Params { cap: 0.0, ..params_of(case) };
            case.params = bytemuck::bytes_of(&params).to_vec();
        };
        assert_eq!(judged(&case, not_bent), wrong, "cap, {}", probe::describe(&case));
        let case = a_case(if kv.is_blocks() { KernelId::KvBlocks } else { KernelId::KvWrite }, |case| {
            case.form.kv == Some(kv)
        });
        assert_eq!(judged(&case, next_position), wrong, "position, {}", probe::describe(&case));
    }
    for &kv in KvType::BLOCKS {
        let is_turned = |case: &Case| params_of::<kv_blocks::Params>(case).block > 1;
        let case = a_case(KernelId::KvBlocks, |case| case.form.kv == Some(kv) && is_turned(case));
        let not_turned = |case: &mut Case| {
            let params = kv_blocks::Params { block: 1, ..params_of(case) };
            case.params = bytemuck::bytes_of(&params).to_vec();
        };
        assert_eq!(judged(&case, not_turned), wrong, "not turned, {}", probe::describe(&case));
        let is_turned = |case: &Case| params_of::<attend::Params>(case).block > 1;
        let case = a_case(KernelId::Attend, |case| case.form.kv == Some(kv) && is_turned(case));
        let not_back = |case: &mut Case| {
            let params = attend::Params { block: 1, ..params_of(case) };
            case.params = bytemuck::bytes_of(&params).to_vec();
        };
        assert_eq!(judged(&case, not_back), wrong, "not turned back, {}", probe::describe(&case));
    }
    let case = a_case(KernelId::HeadNorm, |_| true);
    let other_gain = |case: &mut Case| {
        let Data::F32(gains) = &mut case.args[0] else { panic!("gains") };
        let half = gains.len() / 2;
        gains.rotate_left(half);
    };
    assert_eq!(judged(&case, other_gain), wrong, "gain, {}", probe::describe(&case));
    let case = a_case(KernelId::Rope, |case| params_of::<rope::Params>(case).head_dim == 8);
    assert_eq!(judged(&case, next_position), wrong, "position, {}", probe::describe(&case));
    let other_pairs = |case: &mut Case| {
        let mut params = params_of::<rope::Params>(case);
        params.interleaved ^= 1;
        case.params = bytemuck::bytes_of(&params).to_vec();
    };
    assert_eq!(judged(&case, other_pairs), wrong, "pairs, {}", probe::describe(&case));

    let case = &KernelId::TopK.kernel().cases()[0];
    let (expected, mut got) = (case.expected(), case.expected());
    let Data::U32(found) = &mut got[1] else { panic!("found") };
    let sum = found.len() - 1;
    found[sum] = (f32::from_bits(found[sum]) + 0.01).to_bits();
    assert!(probe::judge(case, &expected, &got).is_err(), "a wrong sum");

    let cases = KernelId::Draw.kernel().cases();
    let many = cases.iter().find(|case| case.call.rows == 40).expect("a case of 40 draws");
    let planted = [("a seed", 2, 2), ("a first position", 2, 3), ("a position", 3, 1)];
    for (what, arg, at) in planted {
        let fault = |case: &mut Case| {
            let Data::U32(words) = &mut case.args[arg] else { panic!("words") };
            let stride = if arg == 2 { draw::CHAIN_WORDS } else { ROW_WORDS };
            words.chunks_exact_mut(stride).for_each(|words| words[at] ^= 1);
        };
        assert_eq!(judged(many, fault), wrong, "{what}");
    }
}

/// A backend that writes past the end of what it was given: the last byte read back is another.
struct Careless(Cpu);

impl Backend for Careless {
    fn caps(&self) -> &Caps {
        self.0.caps()
    }
    fn load(&mut self, store: &Store, progress: Progress<'_>) -> Result<()> {
        self.0.load(store, progress)
    }
    fn prepare(&mut self, plan: Arc<Plan>) -> Result<Program> {
        self.0.prepare(plan)
    }
    fn submit(&mut self, program: &Program, steps: Range<usize>, inputs: Inputs) -> Result<Ticket> {
        self.0.submit(program, steps, inputs)
    }
    fn poll(&mut self, ticket: Ticket, wait: Duration) -> Result<Status> {
        self.0.poll(ticket, wait)
    }
    fn read(&mut self, state: ItemId, at: usize, out: &mut [u8]) -> Result<()> {
        self.0.read(state, at, out)?;
        if let Some(byte) = out.last_mut() {
            *byte ^= 1;
        }
        Ok(())
    }
    fn write(&mut self, state: ItemId, at: usize, bytes: &[u8]) -> Result<()> {
        self.0.write(state, at, bytes)
    }
}

#[test]
fn an_overwritten_guard_band_is_caught() {
    let case = &KernelId::Bias.kernel().cases()[0];
    let mut cpu = Cpu::new(CpuOptions::default()).unwrap();
    probe::check(&mut cpu, case).unwrap();
    let error = probe::check(&mut Careless(cpu), case).unwrap_err();
    assert!(error.to_string().contains("overwritten"), "{error}");
}
