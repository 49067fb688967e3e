//! Keys of the shape `task-0000123456`, and numbers drawn from a seed.
//!
//! Ours and the peers look up the same keys in the same order: both programs
//! compile this file.

/// A small generator (splitmix64), the same in every run.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, uniform but for a bias below 2^-40 for the
    /// bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// The key of row `row` of a table of tasks.
pub fn task(row: u64) -> String {
    format!("task-{row:010}")
}

/// Bytes of a key as [`task`] writes it.
const LEN: usize = 15;

/// Many keys in the order they will be asked for, side by side, so that
/// fetching the question costs little beside the answer.
#[derive(Clone, Debug)]
pub struct Questions {
    text: String,
    next: usize,
}

impl Questions {
    /// `count` uniform random keys of a table of `rows` tasks.
    pub fn uniform(rows: u64, count: usize, seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let text = (0..count).map(|_| task(draw.below(rows))).collect();
        Self { text, next: 0 }
    }

    /// The next key; after the last, the first again.
    pub fn ask(&mut self) -> &str {
        if self.next + LEN > self.text.len() {
            self.next = 0;
        }
        let key = &self.text[self.next..self.next + LEN];
        self.next += LEN;
        key
    }
}

/// A count for people: `1000000` as `1,000,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
