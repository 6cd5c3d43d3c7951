//! Makes the blocks of a plan. If some of them cannot be proved, plans the model again without
//! them, so that smaller blocks inside them are found. *Counter-example to leaving them alone as
//! a whole*: a mean that the engine cannot run stands before a norm, which by itself could be
//! folded into the kernel behind it.
//!
//! Knows plans and what is made of them; does not know why a block cannot be proved.

use crate::engine::Limits;
use crate::error::Error;
use crate::options::Options;
use crate::pipeline::fate::Fate;
use crate::pipeline::make::Made;
use crate::pipeline::planned::Planned;
use crate::plan::UnprovedBlock;

/// Upper bound on the number of further plans: blocks nest only a few levels deep. Only blocks
/// that change are made again.
const MAX_PLANS: usize = 8;

/// Makes all `planned` blocks, and plans again as long as some are not proved. Returns the last
/// plan, or `None` if that is `planned`, and what was made of it.
///
/// # Errors
/// Returns an error under the conditions of [`Made::of`].
pub fn made<'r, 'g, 'm>(
    planned: &Planned<'r, 'g, 'm>,
    file: &str,
    options: &Options,
    limits: Limits,
) -> Result<(Option<Planned<'r, 'g, 'm>>, Made), Error> {
    let mut made = Made::of(planned, None, file, options, limits)?;
    let mut last: Option<Planned> = None;
    let mut unproved: Vec<Vec<UnprovedBlock>> = vec![Vec::new(); planned.analyses.len()];
    for _ in 0..MAX_PLANS {
        let current = last.as_ref().unwrap_or(planned);
        let found = unproved_blocks(current, &made);
        if found.iter().all(Vec::is_empty) {
            break;
        }
        unproved.iter_mut().zip(found).for_each(|(all, found)| all.extend(found));
        let next = current.without(&unproved, options).map_err(Error::invalid(file))?;
        made = Made::of(&next, Some((current, &made)), file, options, limits)?;
        last = Some(next);
    }
    Ok((last, made))
}

/// Returns, for each graph, the blocks that were left alone.
fn unproved_blocks(planned: &Planned, made: &Made) -> Vec<Vec<UnprovedBlock>> {
    let graphs = planned.analyses.iter().zip(&made.fates);
    let of_graph = graphs.map(|(analysis, fates)| {
        let blocks = analysis.plan.blocks.iter().zip(fates);
        let unproved = blocks.filter_map(|(block, fate)| match fate {
            Fate::Made(_) => None,
            Fate::LeftAlone(reason) => {
                let (region, name, reason) =
                    (block.region.clone(), block.name.clone(), reason.clone());
                Some(UnprovedBlock { region, name, reason })
            }
        });
        unproved.collect()
    });
    of_graph.collect()
}
