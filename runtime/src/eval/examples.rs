//! Solved examples before a document, drawn as lm-evaluation-harness draws them.

use super::document::{self, Document};
use super::task::Task;
use super::{EvalError, Problem};
use rand_mt::Mt;
use std::path::Path;

/// Which examples.
#[derive(Clone, Debug)]
pub struct Fewshot {
    /// How many before each document; none for a zero-shot run.
    pub count: usize,
    /// Of the drawing; the harness's own is 1234.
    pub seed: u64,
}

/// Draws examples for each document in turn and puts them before its contexts.
///
/// # Errors
/// Where a line of the file cannot be used, since leaving it out would change every draw, and where there are too few.
pub fn put_before(
    documents: &mut [Document],
    task: &Task,
    path: &Path,
    bytes: &[u8],
    how: &Fewshot,
) -> Result<(), EvalError> {
    let (examples, problems) = document::read(task.form, bytes, None);
    if let Some(problem) = problems.into_iter().next() {
        let problem = Problem { message: format!("{}; examples are drawn by line", problem.message), ..problem };
        return Err(EvalError::Document { path: path.to_owned(), problem });
    }
    if examples.len() < how.count {
        return Err(EvalError::FewExamples { path: path.to_owned(), wanted: how.count, found: examples.len() });
    }
    let mut draw = Draw::new(how.seed);
    for document in documents {
        let drawn: Vec<&Document> =
            draw.sample(examples.len(), how.count).into_iter().map(|index| &examples[index]).collect();
        document::with_examples(document, task.form, &drawn);
    }
    Ok(())
}

/// `random.Random(seed)` of Python, as far as `sample` needs it (CPython, Lib/random.py).
struct Draw(Mt);

impl Draw {
    fn new(seed: u64) -> Draw {
        // Python seeds by the 32-bit digits of the number, lowest first, without leading zeros.
        let digits = [seed as u32, (seed >> 32) as u32];
        let used = if digits[1] == 0 { 1 } else { 2 };
        Draw(Mt::new_with_key(digits[..used].iter().copied()))
    }

    /// `count` different numbers below `population`, which is not smaller.
    fn sample(&mut self, population: usize, count: usize) -> Vec<usize> {
        if population <= pool_limit(count) {
            let mut pool: Vec<usize> = (0..population).collect();
            return (0..count).map(|_| pool.swap_remove(self.below(pool.len()))).collect();
        }
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            let index = self.below(population);
            if !drawn.contains(&index) {
                drawn.push(index);
            }
        }
        drawn
    }

    /// A number below `limit`: as many bits as it has, again until they fit.
    fn below(&mut self, limit: usize) -> usize {
        let bits = usize::BITS - limit.leading_zeros();
        loop {
            let number = self.0.next_u32() as usize >> (32 - bits);
            if number < limit {
                return number;
            }
        }
    }
}

/// Up to which population Python makes a list of it, where it else remembers what was drawn.
fn pool_limit(count: usize) -> usize {
    let small = 21;
    if count <= 5 {
        return small;
    }
    small + 4_usize.pow(((count * 3) as f64).log(4.0).ceil() as u32)
}

#[cfg(test)]
mod tests {
    use super::Draw;

    /// Printed by CPython 3.11: `random.Random(seed)`, then `sample(range(population), count)` again and again.
    #[test]
    fn draws_what_python_draws() {
        let cases: [(u64, usize, usize, &[&[usize]]); 5] = [
            (1234, 200, 3, &[&[199, 112, 29], &[1, 23, 149], &[8, 171, 177], &[21, 25, 196]]),
            (1234, 30, 5, &[&[24, 14, 3, 0, 2], &[29, 25, 18, 1, 21], &[22, 2, 3, 24, 11]]),
            (1234, 10, 10, &[&[7, 1, 0, 9, 4, 6, 5, 3, 8, 2], &[0, 9, 8, 2, 5, 4, 3, 6, 1, 7]]),
            (1234, 2000, 8, &[&[1979, 1593, 902, 239, 15, 185, 1865, 1930]]),
            ((1 << 40) + 5, 1000, 4, &[&[516, 529, 275, 679]]),
        ];
        for (seed, population, count, expected) in cases {
            let mut draw = Draw::new(seed);
            for expected in expected {
                assert_eq!(draw.sample(population, count), *expected, "seed {seed}, {count} of {population}");
            }
        }
    }
}
