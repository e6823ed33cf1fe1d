//! Drivers that are known to be bad, as data: whom it befalls, what is left out for it, the case that failed, and the
//! public thread that says so. What the [check](super::prove) of numbers sees needs no line here; a line is for what it may
//! not see in time: a driver that crashes while it compiles, a phone that starts anew, numbers that are wrong at times.
//!
//! None of the threads names a version that is sound, so none is a bound here.

use super::device::DeviceInfo;
use super::pipelines::Excluded;
use crate::kernel::KernelId;

/// A bad driver.
#[derive(Debug, PartialEq)]
pub struct Quirk {
    backend: &'static str,
    /// One of them stands in the name of the device.
    names: &'static [&'static str],
    /// It stands in the name or the version of the driver.
    driver: &'static str,
    /// It does not.
    but: &'static str,
    /// What is left out.
    pub leaves_out: &'static [Part],
    /// The case that failed.
    pub case: &'static str,
    /// The thread that says so.
    pub source: &'static str,
}

/// What can be left out on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All that subgroups compute together.
    Subgroups,
    /// Arithmetic in f16.
    F16,
    /// Cooperative matrices.
    Matrices,
    /// Products of packed whole numbers.
    Packed,
    /// This variant of a kernel.
    Variant(KernelId, &'static str),
    /// The device.
    Device,
}

/// The drivers.
pub const QUIRKS: &[Quirk] = &[
    Quirk {
        backend: "vulkan",
        names: &["PowerVR C-Series CXTP"],
        driver: "",
        but: "",
        leaves_out: &[Part::Device],
        case: "the GPU's firmware crashes while a prompt is read, and the phone usually starts anew (Pixel 11 Pro, Tensor G6)",
        source: "https://github.com/ggml-org/llama.cpp/issues/28214",
    },
    Quirk {
        backend: "vulkan",
        names: &["PowerVR D-Series DXT"],
        driver: "",
        but: "",
        leaves_out: &[Part::Matrices, Part::Packed],
        case: "every token is 0 with cooperative matrices and packed integer products, and right without (Pixel 10 Pro, Tensor G5)",
        source: "https://github.com/ggml-org/llama.cpp/issues/28502",
    },
    Quirk {
        backend: "vulkan",
        names: &["Mali"],
        driver: "",
        but: "panvk",
        leaves_out: &[Part::Variant(KernelId::TopK, "select")],
        case: "16 threads that each add 1 to an atomic in workgroup memory leave 1 there",
        source: "https://github.com/gfx-rs/wgpu/issues/8643",
    },
    Quirk {
        backend: "vulkan",
        names: &["Adreno (TM) 640", "Adreno (TM) 840"],
        driver: "Qualcomm",
        but: "",
        leaves_out: &[Part::Subgroups],
        case: "matrix products that share by subgroup shuffles are garbage (system drivers 512.502.0 and 512.842.19)",
        source: "https://github.com/Tencent/ncnn/issues/6778",
    },
    Quirk {
        backend: "vulkan",
        names: &["Adreno (TM) 750"],
        driver: "Qualcomm",
        but: "",
        leaves_out: &[Part::Subgroups],
        case: "the driver crashes while it compiles a matrix-vector product summed by a subgroup",
        source: "https://github.com/ggml-org/llama.cpp/pull/29165",
    },
    Quirk {
        backend: "vulkan",
        names: &["Intel"],
        driver: "Mesa",
        but: "",
        leaves_out: &[Part::F16],
        case: "matrix products in f16 are garbage (integrated and discrete, Mesa's ANV)",
        source: "https://github.com/ggml-org/llama.cpp/pull/18814",
    },
    Quirk {
        backend: "vulkan",
        names: &["Radeon RX 5", "Radeon RX 6", "Radeon RX Vega", "Radeon(TM) RX 5", "Radeon(TM) RX 6"],
        driver: "AMD proprietary",
        but: "",
        leaves_out: &[Part::F16],
        case: "sums in f16 across a subgroup are wrong on RDNA 2 and older",
        source: "https://github.com/ggml-org/llama.cpp/pull/19921",
    },
    Quirk {
        backend: "dx12",
        names: &["Microsoft Basic Render Driver"],
        driver: "",
        but: "",
        leaves_out: &[Part::Device],
        case: "barriers of a workgroup do not hold: a sum over 64 threads is one over 2",
        source: "https://github.com/gfx-rs/wgpu/issues/7904",
    },
];

impl Quirk {
    fn befalls(&self, info: &DeviceInfo) -> bool {
        self.backend == info.backend
            && self.names.iter().any(|name| info.name.contains(name))
            && info.driver.contains(self.driver)
            && (self.but.is_empty() || !info.driver.contains(self.but))
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Subgroups => f.write_str("subgroups"),
            Self::F16 => f.write_str("f16"),
            Self::Matrices => f.write_str("cooperative matrices"),
            Self::Packed => f.write_str("products of packed whole numbers"),
            Self::Variant(kernel, variant) => write!(f, "{} as {variant}", kernel.kernel().name),
            Self::Device => f.write_str("the device"),
        }
    }
}

/// Takes what quirks leave out from what a device can.
pub(super) fn apply(info: &mut DeviceInfo) {
    info.quirks = QUIRKS.iter().filter(|quirk| quirk.befalls(info)).collect();
    for (quirk, part) in
        info.quirks.clone().iter().flat_map(|quirk| quirk.leaves_out.iter().map(move |p| (quirk, p)))
    {
        match part {
            // Cooperative matrices belong to a subgroup, and are of f16.
            Part::Subgroups => (info.has.subgroup, info.has.matrix) = (0, 0),
            Part::F16 => (info.has.f16, info.has.matrix) = (false, 0),
            Part::Matrices => info.has.matrix = 0,
            Part::Device => {
                info.refused.get_or_insert_with(|| format!("{} ({})", quirk.case, quirk.source));
            }
            Part::Packed | Part::Variant(..) => {}
        }
    }
}

/// The variants that quirks leave out.
pub(super) fn excluded(info: &DeviceInfo) -> Excluded {
    let packed = || {
        let each =
            KernelId::ALL.iter().flat_map(|&id| id.kernel().variants.iter().map(move |it| (id, it.name)));
        each.filter(|(_, variant)| variant.ends_with("_i8"))
    };
    let of = |part: &Part| -> Excluded {
        match *part {
            Part::Variant(kernel, variant) => Excluded::from([(kernel, variant)]),
            Part::Packed => packed().collect(),
            Part::Subgroups | Part::F16 | Part::Matrices | Part::Device => Excluded::new(),
        }
    };
    info.quirks.iter().flat_map(|quirk| quirk.leaves_out).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Needs;

    const QUALCOMM: &str =
        "Qualcomm Technologies Inc. Adreno Vulkan Driver Driver Build: 8ec50e6f8d, I1b5d4f5c2e";
    const TURNIP: &str = "turnip Mesa driver Mesa 26.1.2";
    const IMG: &str = "PowerVR D-Series Vulkan Driver 25.3@6908880";
    const AMD: &str = "AMD proprietary driver 26.3.1 (AMD proprietary shader compiler)";
    const ANV: &str = "Intel open-source Mesa driver Mesa 25.2.6";

    /// Device and driver as wgpu names them, and the thread whose quirk befalls it.
    const KNOWN: &[(&str, &str, &str, Option<&str>)] = &[
        (
            "vulkan",
            "PowerVR C-Series CXTP-48-1536 MC1",
            "PowerVR C-Series Vulkan Driver 1.662.3024",
            Some("28214"),
        ),
        ("vulkan", "PowerVR B-Series BXE-2-32", "PowerVR B-Series Vulkan Driver 1.17", None),
        ("vulkan", "PowerVR D-Series DXT-48-1536 MC1", IMG, Some("28502")),
        ("vulkan", "Mali-G78", "Mali-G78 v1.r38p1-01eac0", Some("8643")),
        ("vulkan", "Mali-G610", "panvk Mesa 25.1.0", None),
        ("vulkan", "Adreno (TM) 840", QUALCOMM, Some("6778")),
        ("vulkan", "Turnip Adreno (TM) 840", TURNIP, None),
        ("vulkan", "Adreno (TM) 830", QUALCOMM, None),
        ("vulkan", "Adreno (TM) 750", QUALCOMM, Some("29165")),
        ("vulkan", "Turnip Adreno (TM) 750", TURNIP, None),
        ("vulkan", "Intel(R) Iris(R) Xe Graphics (TGL GT2)", ANV, Some("18814")),
        ("vulkan", "Intel(R) Arc(TM) 140V GPU (16GB)", "Intel Corporation Intel driver 32.0.101.8247", None),
        ("vulkan", "AMD Radeon RX 6800 XT", AMD, Some("19921")),
        ("vulkan", "AMD Radeon RX 7900 XTX", AMD, None),
        ("vulkan", "AMD Radeon RX 6900 XT (RADV NAVI21)", "radv Mesa 25.0.7", None),
        ("dx12", "AMD Radeon RX 6800 XT", "32.0.21", None),
        ("dx12", "Microsoft Basic Render Driver", "10.0.26100", Some("7904")),
        ("dx12", "NVIDIA GeForce RTX 4080", "32.0.15.6590", None),
        ("vulkan", "NVIDIA H100 80GB HBM3", "NVIDIA 570.86.15", None),
        ("vulkan", "llvmpipe (LLVM 15.0.6, 256 bits)", "llvmpipe Mesa 25.0.7 (LLVM 15.0.6)", None),
        ("metal", "Apple M3", "", None),
    ];

    fn device(backend: &'static str, name: &str, driver: &str) -> DeviceInfo {
        let has = Needs { subgroup: 32, f16: true, matrix: 24, rounding: true };
        let mut info =
            DeviceInfo { backend, name: name.into(), driver: driver.into(), has, ..DeviceInfo::default() };
        apply(&mut info);
        info
    }

    #[test]
    fn each_quirk_befalls_its_devices_and_not_their_neighbours() {
        let mut met = Vec::new();
        for &(backend, name, driver, due) in KNOWN {
            let info = device(backend, name, driver);
            let sources: Vec<_> =
                info.quirks.iter().map(|quirk| quirk.source.rsplit('/').next().unwrap()).collect();
            assert_eq!(sources, Vec::from_iter(due), "{name}, {driver}");
            met.extend(sources);
        }
        for quirk in QUIRKS {
            assert!(met.contains(&quirk.source.rsplit('/').next().unwrap()), "{} befalls none", quirk.source);
            assert!(!quirk.leaves_out.is_empty() && !quirk.case.is_empty());
        }
    }

    #[test]
    fn what_is_left_out_is_not_taken_and_all_else_is() {
        let of = |number: &str| {
            let &(backend, name, driver, _) = KNOWN.iter().find(|known| known.3 == Some(number)).unwrap();
            device(backend, name, driver)
        };
        let every = Needs { subgroup: 32, f16: true, matrix: 24, rounding: true };
        assert_eq!(of("6778").has, Needs { subgroup: 0, matrix: 0, ..every });
        assert_eq!(of("18814").has, Needs { f16: false, matrix: 0, ..every });
        assert_eq!(of("28502").has, Needs { matrix: 0, ..every });
        assert_eq!(excluded(&of("8643")), Excluded::from([(KernelId::TopK, "select")]));
        let packed = excluded(&of("28502"));
        assert!(
            packed.contains(&(KernelId::Matmul, "tile_i8")) && !packed.contains(&(KernelId::Matmul, "tile"))
        );
        assert!(of("28214").refused.unwrap().contains("starts anew"));
        assert!(device("metal", "Apple M3", "").refused.is_none());
        // A variant that is left out exists, and is not the last.
        for part in QUIRKS.iter().flat_map(|quirk| quirk.leaves_out) {
            if let Part::Variant(kernel, variant) = part {
                let variants = kernel.kernel().variants;
                let place = variants.iter().position(|it| it.name == *variant);
                assert!(place.is_some_and(|place| place + 1 < variants.len()), "{part}");
            }
        }
    }
}
