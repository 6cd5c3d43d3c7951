//! What happened: once, as data; then as text.

use std::fmt;

use crate::plan::{Count, Plan};
use crate::region::NearMiss;
use crate::region::read::NEWEST_OPSET;
use crate::verify::model::Outcome;

/// Everything that a conversion did.
#[derive(Debug, Clone)]
pub struct Report {
    /// The input.
    pub file: String,
    /// What was, or would be, fused.
    pub blocks: Vec<BlockReport>,
    /// What was left alone, and why.
    pub near_misses: Vec<NearMiss>,
    /// Nodes of the main graph and of bodies, before and after.
    pub nodes: (usize, usize),
    /// The model's operator set, if it is newer than what is known here.
    pub newer_opset: Option<i64>,
    /// Shapes of inputs that the user gave and blocks rely on: the result is right for
    /// these only.
    pub fixed_shapes: Vec<String>,
    /// Nodes in training mode that became, or went into, their inference form.
    pub inferred: usize,
    /// Graph inputs that went because they only named folded weights.
    pub removed_inputs: usize,
    /// Bytes of the model file, before and after.
    pub bytes: (usize, usize),
    /// The side file that was made for the new model's weights.
    pub side_file: Option<String>,
    /// The run of both models; `None` if nothing was run.
    pub run: Option<Outcome>,
    /// What was asked for.
    pub mode: Mode,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only look.
    Look,
    /// Rewrite and verify.
    Verified,
    /// Rewrite without verification.
    Unverified,
}

/// One fused block.
#[derive(Debug, Clone)]
pub struct BlockReport {
    /// Its name.
    pub name: String,
    /// Its branches, as in `3×3 + 1×3 + 3×1`.
    pub branches: String,
    /// Batch norms that were folded.
    pub norms: usize,
    /// Cost of the old nodes.
    pub before: Count,
    /// Cost of the new ones.
    pub after: Count,
    /// Largest relative error of the float64 proof.
    pub proof: Option<f64>,
}

impl BlockReport {
    /// Reports of all planned blocks, none proved yet.
    pub fn of(plan: &Plan) -> Vec<Self> {
        let report = |block: &crate::plan::Block| BlockReport {
            name: block.name.clone(),
            branches: block.branches.clone(),
            norms: block.norms,
            before: block.before,
            after: block.after,
            proof: None,
        };
        plan.blocks.iter().map(report).collect()
    }

    /// Branches and norms in words.
    fn found(&self) -> String {
        match self.norms {
            0 => self.branches.clone(),
            1 => format!("{}, 1 batch norm", self.branches),
            count => format!("{}, {count} batch norms", self.branches),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_blocks(f)?;
        self.write_near_misses(f)?;
        if let Some(opset) = self.newer_opset {
            writeln!(
                f,
                "\noperator set {opset} is newer than {NEWEST_OPSET}: operators are read as they \
                 were then"
            )?;
        }
        self.write_totals(f)
    }
}

impl Report {
    fn write_blocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blocks.is_empty() {
            return writeln!(f, "{}: nothing to fuse", self.file);
        }
        let rows: Vec<[String; 5]> = self.blocks.iter().map(row).collect();
        let head = ["block", "branches", "nodes", "parameters", "multiply-adds/position"];
        let width = |column: usize| {
            let cells =
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(head.get(column).map(|head| head.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut line = |cells: &[String; 5]| {
            let padded: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())
        };
        line(&head.map(str::to_owned))?;
        rows.iter().try_for_each(line)
    }

    fn write_near_misses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.near_misses.is_empty() {
            writeln!(f, "\nleft alone:")?;
        }
        for NearMiss { node, reason } in &self.near_misses {
            writeln!(f, "  {node}: {reason}")?;
        }
        Ok(())
    }

    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blocks.is_empty() && self.inferred == 0 {
            return Ok(());
        }
        let would = if self.mode == Mode::Look { "would be " } else { "" };
        writeln!(f)?;
        if !self.blocks.is_empty() {
            let (count, s) = (self.blocks.len(), if self.blocks.len() == 1 { "" } else { "s" });
            writeln!(
                f,
                "{count} block{s} {would}fused, {} → {} nodes",
                self.nodes.0, self.nodes.1
            )?;
        }
        if !self.fixed_shapes.is_empty() {
            writeln!(f, "right for inputs of shape {} only", self.fixed_shapes.join(", "))?;
        }
        if self.inferred > 0 {
            let (count, s) = (self.inferred, if self.inferred == 1 { "" } else { "s" });
            writeln!(f, "{count} node{s} in training mode {would}converted to inference")?;
        }
        if self.removed_inputs > 0 {
            writeln!(
                f,
                "{} graph inputs that only named folded weights went",
                self.removed_inputs
            )?;
        }
        if let Some(side_file) = &self.side_file {
            writeln!(f, "weights are in `{side_file}`, which belongs beside the model")?;
        }
        if self.mode == Mode::Unverified {
            return writeln!(f, "NOT VERIFIED: --no-verify was given");
        }
        let proofs = self.blocks.iter().filter_map(|block| block.proof);
        if let Some(error) = proofs.reduce(f64::max) {
            writeln!(f, "proof: every block agrees in float64 within {error:.1e}")?;
        }
        match &self.run {
            None => Ok(()),
            Some(Outcome::Agreed(errors)) => {
                let (count, worst) = (errors.len(), worst(errors));
                writeln!(f, "run: {count} outputs of the whole model agree within {worst:.1e}")
            }
            Some(Outcome::WithinRounding { errors, rounding }) => {
                let (count, worst) = (errors.len(), worst(errors));
                writeln!(
                    f,
                    "run: {count} outputs of the whole model agree within {worst:.1e}, and the last \
                     bit of its weights alone moves them by {rounding:.1e}"
                )
            }
            Some(Outcome::NotRun(reason)) => writeln!(f, "run: not run: {reason}"),
            Some(Outcome::Broken(reason)) => writeln!(f, "run: the result does not run: {reason}"),
            Some(Outcome::Differs { output, error, .. }) => {
                writeln!(f, "run: output `{output}` differs by {error:.1e}")
            }
        }
    }
}

fn worst(errors: &[(String, f64)]) -> f64 {
    errors.iter().fold(0.0, |worst, (_, error)| worst.max(*error))
}

fn row(block: &BlockReport) -> [String; 5] {
    let change = |before: f64, after: f64| format!("{before} → {after}");
    [
        block.name.clone(),
        block.found(),
        format!("{} → {}", block.before.nodes, block.after.nodes),
        change(block.before.parameters, block.after.parameters),
        change(block.before.work.each, block.after.work.each),
    ]
}
