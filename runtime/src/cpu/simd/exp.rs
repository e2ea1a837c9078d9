/// `e^x` to about 2 ulp, in operations that vectorize. Underflows to zero, overflows to infinity.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; a polynomial gives `e^r` (coefficients of Cephes `expf`), the exponent bits
/// give `2^n`.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "constants as published")]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693359375;
    const LN2_LOW: f32 = -2.12194440e-4;
    let clamped = x.clamp(-104.0, 89.0);
    let n = (clamped * std::f32::consts::LOG2_E).round_ties_even();
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.9875691500e-4;
    for c in [1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1] {
        p = p * r + c;
    }
    let mantissa = p * r * r + r + 1.0;
    // Two factors, because 2^n alone leaves the range of normal numbers at both ends.
    let half = n as i32 >> 1;
    let rest = n as i32 - half;
    mantissa * power_of_two(half) * power_of_two(rest)
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn agrees_with_f64_to_two_ulp() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "exp({x}): relative error {error:e}");
        }
    }

    #[test]
    fn saturates_at_both_ends() {
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(200.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
