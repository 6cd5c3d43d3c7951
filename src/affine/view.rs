//! Views: the elements of a tensor in their order, with other axes around them.
//!
//! A view cuts the axes of both tensors into runs that hold the same elements: of
//! `[N, C, H, W]` as `[N, C·H·W]`, N is N, and C, H and W in a row are the other axis. What
//! works on one axis works on the axis that the view makes of it, if it makes one of it.
//!
//! Knows sizes of axes; no weights, and no operator.

/// The axes of two tensors that hold the same elements in the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    runs: Vec<AxisRun>,
}

/// Neighbouring axes of one tensor that hold what those of the other hold, by their sizes;
/// `None` is one that is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct AxisRun {
    input: Vec<Option<usize>>,
    output: Vec<Option<usize>>,
}

/// Where a view takes an axis: into `axis`, of which number `(o·n + c)·inner + i` is number
/// `c` of the `n` that the axis has, for each `o` below `outer` and `i` below `inner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewedAxis {
    /// The axis of the other tensor.
    pub axis: usize,
    /// Elements of the axes before it that are in `axis`, too.
    pub outer: usize,
    /// Elements of the axes behind it that are in `axis`, too.
    pub inner: usize,
}

impl View {
    /// Of a tensor with these sizes, what is left without the axes of size 1 that `is_dropped`
    /// holds for.
    pub fn squeeze(sizes: &[Option<usize>], is_dropped: impl Fn(usize) -> bool) -> Self {
        let run = |(axis, &size): (usize, &Option<usize>)| {
            if is_dropped(axis) {
                AxisRun { input: vec![Some(1)], output: vec![] }
            } else {
                AxisRun { input: vec![size], output: vec![size] }
            }
        };
        View { runs: sizes.iter().enumerate().map(run).collect() }
    }

    /// The view back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let turned =
            |run: &AxisRun| AxisRun { input: run.output.clone(), output: run.input.clone() };
        View { runs: self.runs.iter().map(turned).collect() }
    }

    /// The axes before `axis` as one, and the others as one.
    pub fn flatten(sizes: &[Option<usize>], axis: usize) -> Self {
        let (before, behind) = sizes.split_at(axis.min(sizes.len()));
        let joined = |sizes: &[Option<usize>]| {
            let size = sizes.iter().try_fold(1usize, |all, size| all.checked_mul((*size)?));
            AxisRun { input: sizes.to_vec(), output: vec![size] }
        };
        View { runs: vec![joined(before), joined(behind)] }
    }

    /// A tensor of sizes `input` as one of sizes `output`, whose first `kept` axes are the
    /// same: runs as short as known sizes allow, from both ends, and one for what is left
    /// between them.
    pub fn reshape(input: &[Option<usize>], output: &[Option<usize>], kept: usize) -> Self {
        let kept = kept.min(input.len()).min(output.len());
        let mut runs = Vec::new();
        let (mut input, mut output) = (input.to_vec(), output.to_vec());
        for (one, other) in input.drain(..kept).zip(output.drain(..kept)) {
            runs.push(AxisRun { input: vec![one.or(other)], output: vec![one.or(other)] });
        }
        while let Some(run) = first_run(input.iter(), output.iter()) {
            input.drain(..run.input.len());
            output.drain(..run.output.len());
            runs.push(run);
        }
        let mut last = Vec::new();
        while let Some(mut run) = first_run(input.iter().rev(), output.iter().rev()) {
            input.truncate(input.len() - run.input.len());
            output.truncate(output.len() - run.output.len());
            run.input.reverse();
            run.output.reverse();
            last.push(run);
        }
        if !(input.is_empty() && output.is_empty()) {
            runs.push(AxisRun { input, output });
        }
        runs.extend(last.into_iter().rev());
        View { runs }
    }

    /// How many axes at the front of the input are in runs before the first one that joins
    /// axes or splits one.
    pub fn apart(&self) -> usize {
        self.runs.iter().take_while(|run| run.input.len() == 1 && run.output.len() == 1).count()
    }

    /// What the view makes of `axis` of its input; `None` if that is not part of one axis, or
    /// the sizes of what goes into that with it are not known.
    pub fn outward(&self, axis: usize) -> Option<ViewedAxis> {
        let (mut inputs, mut outputs) = (0, 0);
        for run in &self.runs {
            if axis < inputs + run.input.len() {
                let (before, behind) = run.input.split_at(axis - inputs);
                let behind = behind.get(1..)?;
                // More axes than one that are not 1 share what the axis holds.
                let mut wide = (outputs..).zip(&run.output).filter(|(_, size)| **size != Some(1));
                let is_single = run.output.len() == 1;
                let to = wide.next().map(|(axis, _)| axis).or(is_single.then_some(outputs))?;
                if wide.next().is_some() {
                    return None;
                }
                let all = |sizes: &[Option<usize>]| {
                    sizes.iter().try_fold(1usize, |all, size| all.checked_mul((*size)?))
                };
                return Some(ViewedAxis { axis: to, outer: all(before)?, inner: all(behind)? });
            }
            inputs += run.input.len();
            outputs += run.output.len();
        }
        None
    }
}

/// The shortest axes from the front on that hold as many elements in both tensors.
fn first_run<'s>(
    mut input: impl Iterator<Item = &'s Option<usize>>,
    mut output: impl Iterator<Item = &'s Option<usize>>,
) -> Option<AxisRun> {
    let mut run = AxisRun::default();
    let (mut read, mut made) = (1usize, 1usize);
    loop {
        let (side, all, sizes): (&mut dyn Iterator<Item = &Option<usize>>, _, _) =
            if run.input.is_empty() || read < made {
                (&mut input, &mut read, &mut run.input)
            } else {
                (&mut output, &mut made, &mut run.output)
            };
        let size = (*side.next()?)?;
        *all = all.checked_mul(size).filter(|&all| all > 0)?;
        sizes.push(Some(size));
        if read == made && !run.output.is_empty() {
            return Some(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: usize = 0;

    fn sizes(sizes: &[usize]) -> Vec<Option<usize>> {
        sizes.iter().map(|&size| (size != UNKNOWN).then_some(size)).collect()
    }

    /// Two shapes, how many axes are kept; an axis, and where it goes, with what is beside it
    /// there.
    #[test]
    fn axes_go_where_their_elements_go() {
        for (input, output, kept, axis, expected) in [
            (&[0, 4, 6, 6][..], &[0, 4, 36][..], 1, 1, Some((1, 1, 1))),
            (&[0, 4, 0, 0], &[0, 4, 0], 1, 1, Some((1, 1, 1))),
            (&[0, 4, 6, 6], &[0, 144], 1, 1, Some((1, 1, 36))),
            (&[0, 4, 0, 6], &[0, 0], 1, 1, None),
            (&[2, 4, 6, 6], &[8, 36], 0, 1, Some((0, 2, 1))),
            // Half of the channels each: they are apart, but not along one axis.
            (&[0, 4, 6], &[0, 2, 2, 6], 1, 1, None),
            (&[0, 0, 8], &[0, 8], 0, 2, Some((1, 1, 1))),
            (&[0, 0, 8], &[0, 8], 0, 0, None),
            (&[0, 8], &[0, 8, 1, 1], 1, 1, Some((1, 1, 1))),
            (&[1, 8, 1, 1], &[8], 0, 1, Some((0, 1, 1))),
            // Of a batch that is not known, nobody can tell what becomes of the channels.
            (&[0, 4, 6, 6], &[1, 4, 0], 0, 1, None),
        ] {
            let view = View::reshape(&sizes(input), &sizes(output), kept);
            let expected = expected.map(|(axis, outer, inner)| ViewedAxis { axis, outer, inner });
            assert_eq!(view.outward(axis), expected, "{input:?} as {output:?}, axis {axis}");
        }
        let squeezed = View::squeeze(&sizes(&[0, 4, 1, 0]), |axis| axis == 2);
        let at = |axis| Some(ViewedAxis { axis, outer: 1, inner: 1 });
        assert_eq!((squeezed.outward(3), squeezed.inverse().outward(2)), (at(2), at(3)));
    }
}
