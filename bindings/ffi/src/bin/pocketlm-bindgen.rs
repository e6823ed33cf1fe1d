//! Writes the Python, Kotlin and Swift of the library: `pocketlm-bindgen generate --language python --out-dir OUT LIBRARY`.

fn main() {
    uniffi::uniffi_bindgen_main();
}
