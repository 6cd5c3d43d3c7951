//! The blocks of a summary as a table: after a look in the order of the model, after a
//! conversion with those first that save most.
//!
//! Knows the report's data, and how many columns a line may have; does not know where it is
//! shown.

use std::collections::HashMap;

use crate::report::escape::escaped;
use crate::report::words::{self, amount};
use crate::report::{BlockCost, BlockReport, Mode, Report};

/// Largest number of blocks with a row each; if there are more, those that are alike share one.
const MOST_ROWS: usize = 20;

/// The width below which names and branches are not cut.
const SHORTEST: usize = 12;

/// The widths of names and of branches below which a column of numbers is left out before they
/// are cut further. At 30, the branches of the paper, `3×3 + 1×3 + 3×1, 3 batch norms`, are
/// whole.
const LEGIBLE: [usize; 2] = [16, 30];

/// The indices of the columns that may be left out, in this order: parameters, whose sum the
/// summary says as well, and nodes.
const LEFT_OUT: [usize; 2] = [3, 2];

/// The text between two columns.
const GAP: &str = "  ";

/// The cells of a row.
type Row = Vec<String>;

/// Returns the lines of the table, at most `width` columns wide if its names can be cut that
/// far.
pub(crate) fn table(report: &Report, width: Option<usize>) -> Vec<String> {
    let mut rows = match report.mode {
        Mode::Look => looked(&report.blocks),
        Mode::Verified | Mode::Unverified => converted(&report.blocks),
    };
    for column in LEFT_OUT {
        if fits(&widths(&rows), width) {
            break;
        }
        rows.iter_mut().filter(|row| column < row.len()).for_each(|row| drop(row.remove(column)));
    }
    for (column, most) in shortened(&widths(&rows), width).into_iter().enumerate() {
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            *cell = cut(cell, most);
        }
    }
    let widths = widths(&rows);
    let line = |row: &Row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let padding = width.saturating_sub(cell.chars().count());
            [cell.as_str(), &" ".repeat(padding)].concat()
        });
        cells.collect::<Vec<String>>().join(GAP).trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Returns the width of each column.
fn widths(rows: &[Row]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    (0..columns)
        .map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect()
}

/// Returns the width of the table.
fn total(widths: &[usize]) -> usize {
    let gaps = GAP.len().saturating_mul(widths.len().saturating_sub(1));
    widths.iter().sum::<usize>().saturating_add(gaps)
}

/// Whether columns of these `widths` fit into `width` if names and branches are cut no further
/// than [`LEGIBLE`].
fn fits(widths: &[usize], width: Option<usize>) -> bool {
    let legible = widths.iter().enumerate();
    let legible = legible
        .map(|(column, &own)| LEGIBLE.get(column).map_or(own, |&legible| own.min(legible)))
        .collect::<Vec<usize>>();
    width.is_none_or(|width| total(&legible) <= width)
}

/// Returns a cell in at most `most` characters. A number of norms after the last comma stays,
/// because with a digit less it would be another number; only what is before it is cut.
fn cut(cell: &str, most: usize) -> String {
    let counts_norms = |norms: &str| norms.ends_with(" norm") || norms.ends_with(" norms");
    let parts = cell.rsplit_once(", ").filter(|(_, norms)| counts_norms(norms));
    let Some((branches, norms)) = parts else { return words::cut_in_the_middle(cell, most) };
    let norms = format!(", {norms}");
    let left = most.saturating_sub(norms.chars().count());
    words::cut_in_the_middle(branches, left) + &norms
}

/// Returns the widths of columns that together fit into `width`. Only the first two columns,
/// with names and branches, become narrower: names first, as long as they are legible.
fn shortened(widths: &[usize], width: Option<usize>) -> Vec<usize> {
    let mut excess = width.map_or(0, |width| total(widths).saturating_sub(width));
    let mut shortened = widths.to_vec();
    for shortest in [LEGIBLE, [SHORTEST; 2]] {
        for (own, shortest) in shortened.iter_mut().zip(shortest) {
            let spare = own.saturating_sub(shortest).min(excess);
            excess = excess.saturating_sub(spare);
            *own = own.saturating_sub(spare);
        }
    }
    shortened
}

/// Returns a row for each block, or for each kind of blocks if there are many, in the order of
/// the model.
fn looked(blocks: &[BlockReport]) -> Vec<Row> {
    per_position(&kinds(blocks))
}

/// Returns a row for each block, or for each kind of blocks if there are many, with its share of
/// the savings.
fn converted(blocks: &[BlockReport]) -> Vec<Row> {
    let mut kinds = kinds(blocks);
    let sum = kinds.iter().map(AlikeBlocks::saved).try_fold(0.0, |sum, saved| Some(sum + saved?));
    match sum.filter(|&sum| sum > 0.0) {
        Some(sum) => {
            let saved = |kind: &AlikeBlocks| kind.saved().unwrap_or_default();
            kinds.sort_by(|a, b| saved(b).total_cmp(&saved(a)));
            let head = ["block", "branches", "nodes", "parameters", "multiply-adds", "saves"];
            let row = |kind: &AlikeBlocks| {
                let here = kind.first.positions.unwrap_or_default();
                let macs =
                    change(kind.first, |cost| amount(cost.multiply_adds_per_position * here));
                let share = format!("{:.0} %", 100.0 * saved(kind) / sum);
                kind.row([macs, share])
            };
            let rows = kinds.iter().map(row);
            std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
        }
        // Costs per position cannot be added without the numbers of positions, so there are no
        // shares.
        None => {
            kinds.sort_by_key(|kind| std::cmp::Reverse(kind.parameters_saved()));
            per_position(&kinds)
        }
    }
}

/// Returns a row for each kind of blocks, with multiply-adds per position.
fn per_position(kinds: &[AlikeBlocks]) -> Vec<Row> {
    let head = ["block", "branches", "nodes", "parameters", "multiply-adds/position"];
    let row = |kind: &AlikeBlocks| {
        kind.row([change(kind.first, |cost| amount(cost.multiply_adds_per_position))])
    };
    std::iter::once(head.map(str::to_owned).to_vec()).chain(kinds.iter().map(row)).collect()
}

/// Returns the blocks one by one, or, if they are too many for a row each, those together that
/// are alike.
fn kinds(blocks: &[BlockReport]) -> Vec<AlikeBlocks<'_>> {
    if blocks.len() > MOST_ROWS {
        return AlikeBlocks::of_all(blocks);
    }
    blocks.iter().map(|block| AlikeBlocks { first: block, count: 1 }).collect()
}

/// Blocks with the same branches, number of norms, number of positions and costs.
struct AlikeBlocks<'r> {
    first: &'r BlockReport,
    count: usize,
}

impl<'r> AlikeBlocks<'r> {
    fn of_all(blocks: &'r [BlockReport]) -> Vec<Self> {
        let mut kinds: Vec<AlikeBlocks> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for block in blocks {
            let BlockReport { branches, norms, before, after, positions, .. } = block;
            let alike = format!("{:?}", (branches, norms, before, after, positions));
            let place = *places.entry(alike).or_insert(kinds.len());
            match kinds.get_mut(place) {
                Some(kind) => kind.count = kind.count.saturating_add(1),
                None => kinds.push(AlikeBlocks { first: block, count: 1 }),
            }
        }
        kinds
    }

    /// Returns the multiply-adds that these blocks save together; `None` if that is not known.
    fn saved(&self) -> Option<f64> {
        Some(self.first.saved_multiply_adds()? * self.count as f64)
    }

    fn parameters_saved(&self) -> u64 {
        let BlockReport { before, after, .. } = self.first;
        before.parameters.saturating_sub(after.parameters).saturating_mul(self.count as u64)
    }

    /// Returns a row with what all these blocks have in common, followed by `rest`.
    fn row<const N: usize>(&self, rest: [String; N]) -> Row {
        let branches = words::branches_and_norms(self.first);
        let (name, branches) = match self.count {
            1 => (self.first.name.clone(), branches),
            count => (format!("{}, …", self.first.name), format!("{count} × {branches}")),
        };
        let cells = [
            escaped(&name, |_| false).into_owned(),
            escaped(&branches, |_| false).into_owned(),
            change(self.first, |cost| cost.nodes.to_string()),
            change(self.first, |cost| amount(cost.parameters as f64)),
        ];
        cells.into_iter().chain(rest).collect()
    }
}

/// Formats a quantity of a block before and after.
fn change(block: &BlockReport, of: impl Fn(&BlockCost) -> String) -> String {
    let [before, after] = [&block.before, &block.after].map(of);
    format!("{before} → {after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::BlockSteps;

    fn block(name: &str, branches: &str, before: f64, positions: Option<f64>) -> BlockReport {
        let cost = |each| BlockCost { nodes: 2, parameters: 9, multiply_adds_per_position: each };
        BlockReport {
            name: name.to_owned(),
            branches: branches.to_owned(),
            steps: BlockSteps::default(),
            norms: 0,
            removed_nodes: vec![],
            new_nodes: vec![],
            new_tensors: vec![],
            reads: vec![],
            output: String::new(),
            geometry: vec![],
            positions,
            conditions: vec![],
            before: cost(before),
            after: cost(9.0),
            proof: None,
            weights: None,
            kept_apart: vec![],
            hint: None,
            hint_setting: None,
        }
    }

    fn lines(blocks: Vec<BlockReport>, width: Option<usize>) -> Vec<String> {
        let mut report = Report::new("model.onnx".to_owned(), Mode::Verified);
        report.blocks = blocks;
        table(&report, width)
    }

    #[test]
    fn what_saves_most_comes_first() {
        let blocks = vec![
            block("small", "3×3 + 1×3", 12.0, Some(100.0)),
            block("large", "3×3 + 1×1", 10.0, Some(900.0)),
        ];
        let expected = [
            "block  branches   nodes  parameters  multiply-adds  saves",
            "large  3×3 + 1×1  2 → 2  9 → 9       9000 → 8100    75 %",
            "small  3×3 + 1×3  2 → 2  9 → 9       1200 → 900     25 %",
        ];
        assert_eq!(lines(blocks, None), expected);
    }

    /// Without the numbers of positions, there are no shares.
    #[test]
    fn nothing_is_said_of_shares_that_are_not_known() {
        let blocks = vec![block("a", "3×3 + 1×3", 12.0, None)];
        let expected = [
            "block  branches   nodes  parameters  multiply-adds/position",
            "a      3×3 + 1×3  2 → 2  9 → 9       12 → 9",
        ];
        assert_eq!(lines(blocks, None), expected);
    }

    #[test]
    fn many_blocks_that_are_alike_are_one_row() {
        let alike = |count: usize| {
            let block =
                |number| block(&format!("conv{number}"), "3×3 + 1×3 + 3×1", 15.0, Some(10.0));
            lines((0..count).map(block).collect(), None)
        };
        assert_eq!(alike(MOST_ROWS).len(), 1 + MOST_ROWS);
        let expected = [
            "block     branches               nodes  parameters  multiply-adds  saves",
            "conv0, …  500 × 3×3 + 1×3 + 3×1  2 → 2  9 → 9       150 → 90       100 %",
        ];
        assert_eq!(alike(500), expected);
    }

    #[test]
    fn numbers_of_norms_are_not_cut() {
        for (cell, most, expected) in [
            ("3×3 + 1×3 + 3×1, 16 batch norms", 40, "3×3 + 1×3 + 3×1, 16 batch norms"),
            ("3×3 + 1×3 + 3×1, 16 batch norms", 24, "3×3 …3×1, 16 batch norms"),
            ("3×3 + 1×3 + 3×1, 16 batch norms", 12, "…, 16 batch norms"),
            ("features.0.conv", 8, "feat…onv"),
        ] {
            assert_eq!(cut(cell, most), expected);
        }
    }

    /// Names are as long as there is room for; numbers are never cut, but left out.
    #[test]
    fn names_are_cut_in_the_middle() {
        let name = "features.stages.0.blocks.1.token_mixer";
        let branches = "3×3 + 1×3 + 3×1 + identity, 4 batch norms";
        for (branches, width, expected) in [
            (
                "3×3 + 1×3",
                Some(200),
                "features.stages.0.blocks.1.token_mixer  3×3 + 1×3  2 → 2  9 → 9       1200 → 900     100 %",
            ),
            (
                "3×3 + 1×3",
                Some(80),
                "features.stage…1.token_mixer  3×3 + 1×3  2 → 2  9 → 9       1200 → 900     100 %",
            ),
            (
                branches,
                Some(80),
                "features…n_mixer  3×3 + 1×3…identity, 4 batch norms  2 → 2  1200 → 900     100 %",
            ),
            (branches, Some(60), "featur…mixer  3×3 …tity, 4 batch norms  1200 → 900     100 %"),
            ("3×3 + 1×3", Some(10), "featur…mixer  3×3 + 1×3  1200 → 900     100 %"),
        ] {
            let found = lines(vec![block(name, branches, 12.0, Some(100.0))], width);
            assert_eq!(found.last().unwrap(), expected);
            let longest = found.iter().map(|line| line.chars().count()).max();
            assert!(width == Some(10) || longest <= width, "{longest:?}");
        }
    }
}
