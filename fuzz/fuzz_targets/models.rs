//! libFuzzer changes bytes; half of the time a model is decoded instead, changed, and
//! encoded again.

macro_rules! mutated_by_structure {
    () => {
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
            let mut choices = fuzzing::choices::Choices::Seed(u64::from(seed));
            let changed = match choices.once_in(2) {
                true => None,
                false => fuzzing::mutate::mutated(&data[..size], &data[..size], &mut choices),
            };
            match changed.filter(|changed| changed.len() <= most.min(data.len())) {
                None => libfuzzer_sys::fuzzer_mutate(data, size, most),
                Some(changed) => {
                    data[..changed.len()].copy_from_slice(&changed);
                    changed.len()
                }
            }
        });
    };
}

pub(crate) use mutated_by_structure;
