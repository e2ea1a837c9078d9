//! The model that others are compared with. What it says of a text is kept for the next of them.

use super::windows::{Fresh, Predictor};
use crate::device::{Device, DeviceError};

/// A model that others are compared with. Its logits of the first windows of a text are kept, as many as there is memory
/// for: a later comparison on the same windows does not compute them again.
pub struct Reference<'d> {
    model: Box<dyn Predictor + 'd>,
    most_bytes: usize,
    kept: Vec<Group>,
    now: Now,
}

/// Windows that were computed side by side.
struct Group {
    windows: Vec<Vec<u32>>,
    chunk: usize,
    steps: Vec<Vec<f32>>,
}

/// What happens to the group that was begun last.
enum Now {
    Computed,
    /// Computed, and as yet kept.
    Recorded(Group),
    /// Taken from what is kept, from this step on.
    Replayed {
        group: usize,
        step: usize,
    },
}

impl<'d> Reference<'d> {
    /// Keeps logits of up to so many bytes.
    pub fn new(device: &'d mut dyn Device, most_bytes: usize) -> Reference<'d> {
        Reference::of(Box::new(Fresh::new(device)), most_bytes)
    }

    fn of(model: Box<dyn Predictor + 'd>, most_bytes: usize) -> Reference<'d> {
        Reference { model, most_bytes, kept: Vec::new(), now: Now::Computed }
    }

    fn kept_bytes(&self) -> usize {
        self.kept.iter().map(Group::bytes).sum()
    }
}

impl Group {
    fn is_of(&self, windows: &[&[u32]], chunk: usize) -> bool {
        self.windows == windows && self.chunk == chunk
    }

    fn bytes(&self) -> usize {
        self.steps.iter().map(|logits| size_of_val(&logits[..])).sum()
    }
}

impl Predictor for Reference<'_> {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn step_rows(&self) -> usize {
        self.model.step_rows()
    }

    fn begin(&mut self, group: usize, windows: &[&[u32]], chunk: usize) -> Result<(), DeviceError> {
        if self.kept.get(group).is_some_and(|kept| kept.is_of(windows, chunk)) {
            self.now = Now::Replayed { group, step: 0 };
            return Ok(());
        }
        // What comes behind it is of another text, too.
        self.kept.truncate(group);
        let bytes = windows.iter().map(|window| window.len()).sum::<usize>() * self.vocab_size() * size_of::<f32>();
        let fits = self.kept.len() == group && self.kept_bytes() + bytes <= self.most_bytes;
        self.now = if fits {
            let windows = windows.iter().map(|window| window.to_vec()).collect();
            Now::Recorded(Group { windows, chunk, steps: Vec::new() })
        } else {
            Now::Computed
        };
        self.model.begin(group, windows, chunk)
    }

    fn step(&mut self, tokens: &[&[u32]], logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        match &mut self.now {
            Now::Replayed { group, step } => {
                logits.clone_from(&self.kept[*group].steps[*step]);
                *step += 1;
                return Ok(());
            }
            Now::Recorded(group) => {
                self.model.step(tokens, logits)?;
                group.steps.push(logits.clone());
            }
            Now::Computed => self.model.step(tokens, logits)?,
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), DeviceError> {
        match std::mem::replace(&mut self.now, Now::Computed) {
            Now::Replayed { .. } => return Ok(()),
            Now::Recorded(group) => self.kept.push(group),
            Now::Computed => (),
        }
        self.model.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::windows::{Windows, each_step};
    use super::*;
    use std::cell::Cell;

    const VOCAB: usize = 8;
    const WINDOW: usize = 4;
    const WINDOW_BYTES: usize = WINDOW * VOCAB * 4;

    /// Logits that tell the tokens; counts its steps.
    struct Fake<'c>(&'c Cell<usize>);

    impl Predictor for Fake<'_> {
        fn vocab_size(&self) -> usize {
            VOCAB
        }

        fn step_rows(&self) -> usize {
            2
        }

        fn begin(&mut self, _: usize, _: &[&[u32]], _: usize) -> Result<(), DeviceError> {
            Ok(())
        }

        fn step(&mut self, tokens: &[&[u32]], logits: &mut Vec<f32>) -> Result<(), DeviceError> {
            self.0.set(self.0.get() + 1);
            let row = |token: &u32| (0..VOCAB as u32).map(move |i| (token * 10 + i) as f32).collect::<Vec<_>>();
            *logits = tokens.iter().flat_map(|tokens| tokens.iter().flat_map(row)).collect();
            Ok(())
        }

        fn end(&mut self) -> Result<(), DeviceError> {
            Ok(())
        }
    }

    /// First logits of all rows.
    fn run(reference: &mut Reference<'_>, tokens: &[u32]) -> Vec<f32> {
        let (windows, mut seen) = (Windows { size: WINDOW, count: None, batch: 1 }, Vec::new());
        each_step(&mut [reference], tokens, &windows, &mut |_, _| (), &mut |steps| {
            seen.extend((0..steps.targets.len()).map(|row| steps.row(0, row)[0]));
        })
        .unwrap();
        seen
    }

    /// What a text says three times, and the steps that each time took: two windows of two steps.
    fn steps_of_three_runs(most_bytes: usize, texts: [&[u32]; 3]) -> [usize; 3] {
        let count = Cell::new(0);
        let mut reference = Reference::of(Box::new(Fake(&count)), most_bytes);
        texts.map(|text| {
            let before = count.get();
            let expected: Vec<f32> = text.iter().map(|token| (token * 10) as f32).collect();
            assert_eq!(run(&mut reference, text), expected);
            count.get() - before
        })
    }

    const TEXT: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn computes_windows_once_where_there_is_room() {
        assert_eq!(steps_of_three_runs(2 * WINDOW_BYTES, [TEXT; 3]), [4, 0, 0]);
    }

    #[test]
    fn keeps_the_first_windows_where_there_is_room_for_some() {
        assert_eq!(steps_of_three_runs(2 * WINDOW_BYTES - 1, [TEXT; 3]), [4, 2, 2]);
        assert_eq!(steps_of_three_runs(0, [TEXT; 3]), [4, 4, 4]);
    }

    #[test]
    fn forgets_a_text_from_where_another_differs() {
        let other: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 9];
        assert_eq!(steps_of_three_runs(2 * WINDOW_BYTES, [TEXT, other, TEXT]), [4, 2, 2]);
    }
}
