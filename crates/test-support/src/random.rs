/// Pseudorandom numbers that depend on the seed only.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers of similar seeds are similar.
        for _ in 0..4 {
            random.below(1);
        }
        random
    }

    /// A number from 0 to `end` - 1 (xorshift64*).
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % end
    }

    pub fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    /// A number from `first` to `last`.
    pub fn between(&mut self, first: i64, last: i64) -> i64 {
        let numbers = usize::try_from(last - first + 1).unwrap();
        first + i64::try_from(self.below(numbers)).unwrap()
    }
}
