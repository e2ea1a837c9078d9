//! What many timings say.

/// The one in the middle, the later of two; NaN of none.
pub(crate) fn median<T: Copy + Into<f64>>(times: Vec<T>) -> f64 {
    let mut times: Vec<f64> = times.into_iter().map(Into::into).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn takes_the_middle_of_any_order_and_nothing_of_none() {
        assert_eq!(median(vec![3.0f32, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0f64, 1.0, 2.0, 3.0]), 3.0);
        assert!(median(Vec::<f64>::new()).is_nan());
    }
}
