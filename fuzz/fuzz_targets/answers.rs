#![no_main]

#[global_allocator]
static MEMORY: pocketlm_fuzz::memory::Capped = pocketlm_fuzz::memory::Capped;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pocketlm_fuzz::answers(data));
