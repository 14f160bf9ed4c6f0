//! Medians and percentiles of a handful of figures.

/// The value at `part` (0 to 1) of the sorted figures, the nearest one; `None` without figures.
pub fn percentile(figures: impl IntoIterator<Item = f64>, part: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}
