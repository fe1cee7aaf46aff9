//! A seeded random generator.
//!
//! Not from a library: a seed must give the same run after an upgrade of any library.

/// xoshiro256++, seeded through SplitMix64.
///
/// Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator of one purpose. Purposes are independent of each other, so that leaving out a fault
    /// does not change the fleet.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut mix = purpose.bytes().fold(seed ^ 0x6e69_7866, |mix, byte| {
            split_mix(mix ^ u64::from(byte))
        });
        let state = std::array::from_fn(|_| {
            mix = mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            split_mix(mix)
        });
        Self { state }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// An index into something of that length; 0 when it is empty.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True in `permille` of 1,000 cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.below(1_000) < u64::from(permille)
    }

    /// One of the items.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        assert!(!items.is_empty(), "nothing to pick from");
        &items[self.index(items.len())]
    }
}

fn split_mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_give_the_same_choices_for_ever() {
        let mut rng = Rng::new(7, "net");
        let found: Vec<u64> = (0..4).map(|_| rng.below(1_000)).collect();
        let mut again = Rng::new(7, "net");
        let repeated: Vec<u64> = (0..4).map(|_| again.below(1_000)).collect();
        assert_eq!(found, repeated);
        let mut other = Rng::new(7, "fleet");
        let different: Vec<u64> = (0..4).map(|_| other.below(1_000)).collect();
        assert_ne!(found, different);
    }

    #[test]
    fn choices_stay_in_their_bounds_and_reach_them() {
        let mut rng = Rng::new(1, "bounds");
        let mut seen = [false; 5];
        for _ in 0..1_000 {
            let value = rng.range(3, 7);
            assert!((3..=7).contains(&value));
            seen[(value - 3) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0));
        assert!(rng.chance(1_000));
    }
}
