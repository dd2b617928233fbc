//! The little arithmetic that the figures need: medians, percentiles, numbers as people read them.

use std::time::Duration;

/// The value below which the given share (0 to 1) of a sorted list lies.
pub fn quantile<T: Copy>(sorted: &[T], share: f64) -> T {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// The middle of an unsorted list, if there is anything in it.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        1 => Some(values[half]),
        _ => Some((values.get(half.checked_sub(1)?)? + values[half]) / 2.0),
    }
}

/// Three significant digits, and no exponent.
pub fn short(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    format!("{value:.*}", usize::try_from(2 - digits).unwrap_or(0))
}

/// Microseconds, as text.
pub fn micros(time: Duration) -> String {
    short(time.as_secs_f64() * 1e6)
}
