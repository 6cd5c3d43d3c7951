#![no_main]

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;
mod models;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::reader(data));
models::mutated_by_structure!();
