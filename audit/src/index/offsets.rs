//! A set of offsets while an index is built: they only ascend, so that adding one is a push or a bit.

use roaring::RoaringBitmap;

/// Beyond so many offsets a bit for each possible one takes less memory than a number for each.
const MAX_NUMBERS: usize = 4096;
/// 64-bit words of a bit for each offset of a segment.
const WORDS: usize = 1024;

/// Offsets within a segment, at most 8 KiB.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    numbers: Vec<u16>,
    /// In their place, once they are many.
    bits: Option<Box<[u64; WORDS]>>,
    last: Option<u16>,
}

impl Offsets {
    /// Adds an offset that is not below the last one. Nothing happens if it is the last one.
    pub(super) fn add(&mut self, offset: u16) {
        if self.last == Some(offset) {
            return;
        }
        self.last = Some(offset);
        if let Some(bits) = &mut self.bits {
            set(bits, offset);
        } else if self.numbers.len() < MAX_NUMBERS {
            self.numbers.push(offset);
        } else {
            let mut bits = Box::new([0; WORDS]);
            for number in std::mem::take(&mut self.numbers) {
                set(&mut bits, number);
            }
            set(&mut bits, offset);
            self.bits = Some(bits);
        }
    }

    /// The same set in its smallest form.
    pub(super) fn finish(self) -> RoaringBitmap {
        let mut set = match self.bits {
            None => {
                let numbers = || self.numbers.iter().copied().map(u32::from);
                // They ascend, which makes this faster than adding them one by one.
                RoaringBitmap::from_sorted_iter(numbers()).unwrap_or_else(|_| numbers().collect())
            }
            Some(bits) => {
                let bytes: Vec<u8> = bits.iter().flat_map(|word| word.to_le_bytes()).collect();
                RoaringBitmap::from_lsb0_bytes(0, &bytes)
            }
        };
        set.optimize();
        set
    }
}

fn set(bits: &mut [u64; WORDS], offset: u16) {
    if let Some(word) = bits.get_mut(usize::from(offset) / 64) {
        *word |= 1 << (offset % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_offsets_are_all_in_the_set() {
        for step in [1, 2, 3, 15, 16, 17, 1000, 65_535] {
            let all = (0..=u16::MAX).step_by(step);
            let mut offsets = Offsets::default();
            for offset in all.clone() {
                offsets.add(offset);
                offsets.add(offset);
            }
            let expected: RoaringBitmap = all.map(u32::from).collect();
            assert_eq!(offsets.finish(), expected, "each {step}");
        }
        assert!(Offsets::default().finish().is_empty());
    }
}
