//! The names of blocks: the common part of their branches' names, and no two alike.
//!
//! Knows the graph's names; decides nothing else.

use crate::onnx::graph::Graph;
use crate::onnx::ids::{IdMap, ValueId};
use crate::onnx::names::{self, UniqueNames};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::plan::region::Region;

/// Names for blocks and what is made for them.
pub struct BlockNames {
    /// A text that no name in the model contains: a name that is made of a block's name and
    /// this text is new, whatever follows.
    suffix: String,
    unique: UniqueNames,
    /// The name of each block, by its output: a block keeps its name whatever becomes of
    /// others.
    names: IdMap<ValueId, String>,
}

impl BlockNames {
    /// Returns names that do not occur in a model's main graph or its bodies.
    pub fn of(graph: &Graph) -> Self {
        let suffix = names::fresh(graph, ".fused");
        BlockNames { suffix, unique: UniqueNames::default(), names: IdMap::default() }
    }

    /// Returns what the names begin with of all that is made for the block called `name`.
    pub fn stem(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    /// Forgets which blocks have which names, before the next graph.
    pub fn begin_graph(&mut self) {
        self.names.clear();
    }

    /// Returns the block's base name, or that with `_2`, `_3`, … if another block has it.
    pub fn of_block(&mut self, graph: &Graph, meanings: &Meanings, region: &Region) -> String {
        if let Some(name) = self.names.get(&region.output) {
            return name.clone();
        }
        let name = self.unique.unique(&block_name(graph, meanings, region));
        self.names.insert(region.output, name.clone());
        name
    }
}

/// Returns the common part of the names of the branches' kernels, else of their nodes, else the
/// name of the block's output.
fn block_name(graph: &Graph, meanings: &Meanings, region: &Region) -> String {
    let convolutions = || {
        region.nodes.iter().filter_map(|&id| match meanings.get(id) {
            Some(Meaning::Linear(_, LinearOp::Conv { kernel, .. })) => {
                Some((graph.node(id), *kernel))
            }
            _ => None,
        })
    };
    let kernels = convolutions().map(|(_, kernel)| graph.value(kernel).name);
    let nodes = convolutions().map(|(node, _)| node.label());
    // A name such as "onnx::Conv_28" says nothing.
    let telling = |name: &&str| !name.contains("::");
    common_path(kernels.filter(telling))
        .or_else(|| common_path(nodes))
        .unwrap_or_else(|| graph.value(region.output).name.to_owned())
}

/// Returns the longest common beginning of `names` that ends where a part of a path ends; for a
/// single name, all but its last part.
fn common_path<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<String> {
    let first = names.next()?;
    let parts = |name: &'n str| name.split_inclusive(['.', '/', ':']).collect::<Vec<_>>();
    let mut common = parts(first);
    common.pop();
    for name in names {
        let same = common.iter().zip(parts(name)).take_while(|(a, b)| *a == b).count();
        common.truncate(same);
    }
    let path = common.concat();
    let path = path.trim_matches(['.', '/', ':']);
    (!path.is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_common_part_of_the_branches() {
        for (names, expected) in [
            (
                &["layer1.0.conv1.square.weight", "layer1.0.conv1.hor.weight"][..],
                Some("layer1.0.conv1"),
            ),
            (&["/layer1/conv/square/Conv", "/layer1/conv/ver/Conv"], Some("layer1/conv")),
            (&["conv.weight"], Some("conv")),
            (&["a", "b"], None),
            (&[], None),
        ] {
            assert_eq!(common_path(names.iter().copied()).as_deref(), expected, "{names:?}");
        }
    }
}
