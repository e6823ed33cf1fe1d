// swift-tools-version: 5.10
// `./build-xcframework` on a Mac, or `./build-linux` on Linux, writes what the targets below are made of.
import PackageDescription

#if os(Linux)
let library = Target.systemLibrary(name: "pocketlm_ffiFFI", path: "Sources/pocketlm_ffiFFI")
#else
let library = Target.binaryTarget(name: "pocketlm_ffiFFI", path: "pocketlm_ffiFFI.xcframework")
#endif

let package = Package(
    name: "Pocketlm",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "Pocketlm", targets: ["Pocketlm"])],
    targets: [
        library,
        // What UniFFI wrote; not committed.
        .target(
            name: "PocketlmFFI", dependencies: ["pocketlm_ffiFFI"],
            linkerSettings: [
                .linkedFramework("Metal", .when(platforms: [.iOS, .macOS])),
                .linkedFramework("QuartzCore", .when(platforms: [.iOS, .macOS])),
            ]),
        .target(name: "Pocketlm", dependencies: ["PocketlmFFI"]),
        .testTarget(name: "PocketlmTests", dependencies: ["Pocketlm"]),
    ]
)
