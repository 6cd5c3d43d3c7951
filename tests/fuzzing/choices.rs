//! A stream of decisions: the bytes of a fuzzer, or a seed. The same stream makes the
//! same decisions on every machine.

/// See the module's documentation.
pub enum Choices<'b> {
    /// Takes the bytes one by one; yields zeros when they have run out.
    Bytes(&'b [u8]),
    /// The state of a SplitMix64 generator.
    Seed(u64),
}

impl Choices<'_> {
    pub fn byte(&mut self) -> u8 {
        match self {
            Choices::Bytes(bytes) => match bytes.split_first() {
                Some((&first, rest)) => {
                    *bytes = rest;
                    first
                }
                None => 0,
            },
            Choices::Seed(_) => self.number() as u8,
        }
    }

    pub fn number(&mut self) -> u64 {
        match self {
            Choices::Bytes(_) => (0..8).fold(0, |all, _| all << 8 | u64::from(self.byte())),
            Choices::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
        }
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        match self {
            Choices::Bytes(_) if end <= 256 => usize::from(self.byte()) % end.max(1),
            _ => (self.number() % end.max(1) as u64) as usize,
        }
    }

    /// Returns true once in `times` on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn one_of<'t, T>(&mut self, these: &'t [T]) -> Option<&'t T> {
        these.get(self.below(these.len()))
    }

    pub fn one_of_mut<'t, T>(&mut self, these: &'t mut [T]) -> Option<&'t mut T> {
        let at = self.below(these.len());
        these.get_mut(at)
    }

    /// Returns one of `these`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }

    /// Returns up to `most` bytes; their number is drawn first.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.byte()).collect()
    }

    /// Returns a string of up to four pieces, each from `parts` (text that was trouble before) or
    /// of arbitrary bytes.
    pub fn text(&mut self, parts: &[&str]) -> String {
        let count = self.below(5);
        let part = |choices: &mut Self| {
            if choices.once_in(4) {
                String::from_utf8_lossy(&choices.bytes(6)).into_owned()
            } else {
                choices.one_of(parts).map_or(String::new(), |part| (*part).to_owned())
            }
        };
        (0..count).map(|_| part(self)).collect()
    }
}
