use super::CalibrateError;
use crate::weights::SplitMix64;
use xxhash_rust::xxh3::xxh3_64;

/// Names a text by its contents.
pub fn text_digest(text: &str) -> String {
    format!("xxh3:{:016x}", xxh3_64(text.as_bytes()))
}

/// Cuts a text into windows of `length` tokens and draws `samples` of them, in the order of the text. The same seed
/// draws the same ones.
///
/// # Errors
/// When the text is too short.
pub fn sequences(tokens: &[u32], samples: usize, length: usize, seed: u64) -> Result<Vec<&[u32]>, CalibrateError> {
    if samples == 0 || length == 0 {
        return Err(CalibrateError::Empty { samples, length });
    }
    let windows: Vec<&[u32]> = tokens.chunks_exact(length).collect();
    if windows.len() < samples {
        return Err(CalibrateError::TextTooShort { tokens: tokens.len(), samples, length });
    }
    let mut order: Vec<usize> = (0..windows.len()).collect();
    let mut random = SplitMix64(seed);
    for at in 0..samples {
        let other = at + (random.next() % (windows.len() - at) as u64) as usize;
        order.swap(at, other);
    }
    order.truncate(samples);
    order.sort_unstable();
    Ok(order.into_iter().map(|window| windows[window]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_whole_windows_by_seed() {
        let tokens: Vec<u32> = (0..1003).collect();
        let drawn = sequences(&tokens, 20, 10, 7).unwrap();
        assert_eq!(drawn.len(), 20);
        assert!(drawn.windows(2).all(|pair| pair[0][0] < pair[1][0]), "they are in order and differ");
        assert!(drawn.iter().all(|window| window.len() == 10 && window[0] % 10 == 0));
        assert_eq!(drawn, sequences(&tokens, 20, 10, 7).unwrap());
        assert_ne!(drawn, sequences(&tokens, 20, 10, 8).unwrap());
    }

    #[test]
    fn takes_the_whole_text_when_all_of_it_is_wanted() {
        let tokens: Vec<u32> = (0..30).collect();
        assert_eq!(sequences(&tokens, 3, 10, 5).unwrap().concat(), tokens);
    }

    #[test]
    fn refuses_a_text_that_is_too_short() {
        let error = sequences(&[1, 2, 3], 2, 2, 0).unwrap_err().to_string();
        assert!(error.contains("has 3 tokens, 2 samples of 2 need 4"), "{error}");
        assert!(sequences(&[1, 2, 3], 0, 2, 0).unwrap_err().to_string().contains("sees nothing"));
    }
}
