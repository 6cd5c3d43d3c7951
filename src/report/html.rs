//! stub
use super::Report;
/// The page.
pub fn page(report: &Report) -> String { report.to_string() }
