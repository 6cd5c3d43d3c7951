//! The average magnitudes of the fused kernels (paper, Fig. 6) as matrices on a terminal, which
//! a verbose summary adds.
//!
//! Knows what fits a terminal, and its colours; the numbers are the report's.

use acb_fuse::report::words::counted;
use acb_fuse::report::{Average, Report};

/// Upper bound on the columns of a matrix, and its square on the cells: wider matrices do not
/// fit a terminal, and taller ones do not help.
const MOST: usize = 31;

/// Returns one matrix for each size of kernel, as plain numbers.
pub fn averages(report: &Report) -> String {
    matrices(report, plain)
}

/// Returns the same matrices with a background for each number, lighter for larger numbers.
pub fn averages_in_colours(report: &Report) -> String {
    matrices(report, coloured)
}

fn matrices(report: &Report, cell: fn(f64) -> String) -> String {
    let averages = report.averages();
    let matrix = |average: &Average| {
        let kernels = counted(average.layers, &format!("fused {} kernel", average.size()));
        let rows = rows(&average.kernel, &average.after, cell);
        format!("\naverage magnitude of {kernels}, largest 1:\n{rows}")
    };
    averages.iter().map(matrix).collect()
}

/// Formats the `values` of a kernel with the sizes `kernel` as lines of `cell`s.
fn rows(kernel: &[usize], values: &[f64], cell: fn(f64) -> String) -> String {
    let columns = kernel.last().copied().unwrap_or(1);
    if columns > MOST || values.len() > MOST.saturating_mul(MOST) {
        return "  too large to be shown\n".to_owned();
    }
    let line = |row: &[f64]| {
        let cells: String = row.iter().map(|&value| cell(value)).collect();
        format!(" {cells}\n")
    };
    values.chunks(columns.max(1)).map(line).collect()
}

/// Formats a number without colours.
fn plain(value: f64) -> String {
    format!(" {value:.3}")
}

/// Formats a number on one of the 24 greys of a terminal with 256 colours.
fn coloured(value: f64) -> String {
    let grey = (value * 23.0).round().clamp(0.0, 23.0) as u8;
    let ink = if grey < 12 { 255 } else { 232 };
    format!("\x1b[48;5;{}m\x1b[38;5;{ink}m {value:.3} \x1b[0m", grey.saturating_add(232))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_numbers_or_colours() {
        let (kernel, values) = ([1, 3], [0.25, 1.0, 0.0]);
        assert_eq!(rows(&kernel, &values, plain), "  0.250 1.000 0.000\n");
        let shown = rows(&kernel, &values, coloured);
        assert!(shown.contains("\x1b[48;5;255m\x1b[38;5;232m 1.000 \x1b[0m"));
        assert_eq!(rows(&[1, 32], &[0.0; 32], plain), "  too large to be shown\n");
    }
}
