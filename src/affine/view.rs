//! Views: the elements of a tensor in the same order, under other axes.
//!
//! A view divides the axes of both tensors into runs that hold the same elements: where
//! `[N, C, H, W]` is viewed as `[N, C·H·W]`, N is one run, and C, H and W together are the other
//! one. An operation along one axis works on the axis that the view makes of it, if that is a
//! single axis.
//!
//! A transposition is a view, too. So is a resampling, in every respect that matters here: it is
//! linear, has no weights, maps equal elements to the same value, and keeps some axes apart;
//! nothing is known of the others.
//!
//! Knows sizes of axes; no weights, and no operator.

use crate::affine::axes::AxisOrder;

/// The axes of two tensors, of which the second is a view of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View(ViewedElements);

#[derive(Debug, Clone, PartialEq, Eq)]
enum ViewedElements {
    /// Both tensors hold the same elements in the same order.
    InOrder(Vec<AxisRun>),
    /// Axis `i` of the second tensor is axis `axes[i]` of the first; `axes` lists all axes.
    Turned { axes: Vec<usize> },
    /// The place of each axis of the first tensor in the second, if it has one, and vice versa.
    Resampled { outward: Vec<Option<ViewedAxis>>, inward: Vec<Option<ViewedAxis>> },
}

/// Sizes of neighbouring axes of one tensor, and of the axes of the other tensor that hold the
/// same elements; `None` for an unknown size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct AxisRun {
    input: Vec<Option<usize>>,
    output: Vec<Option<usize>>,
}

/// The place to which a view takes an axis: position `(o·n + c)·inner + i` of `axis` holds element
/// `c` of the `n` elements along the viewed axis, for each `o` below `outer` and `i` below
/// `inner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewedAxis {
    /// The axis of the other tensor.
    pub axis: usize,
    /// Number of elements of the axes before it that are joined into `axis`.
    pub outer: usize,
    /// Number of elements of the axes behind it that are joined into `axis`.
    pub inner: usize,
}

impl ViewedAxis {
    /// The place on `axis` with nothing else joined into it.
    pub fn alone(axis: usize) -> Self {
        ViewedAxis { axis, outer: 1, inner: 1 }
    }
}

impl View {
    /// A transposition of a tensor of rank `rank`: axis `i` of the output is axis `order.axis(i)`
    /// of the input.
    pub fn turned(order: &AxisOrder, rank: usize) -> Self {
        View(ViewedElements::Turned { axes: order.axes(rank) })
    }

    /// A resampling with the known places of the input's axes in the output (`outward`), and of
    /// the output's axes in the input (`inward`).
    pub fn resampling(outward: Vec<Option<ViewedAxis>>, inward: Vec<Option<ViewedAxis>>) -> Self {
        View(ViewedElements::Resampled { outward, inward })
    }

    /// The view that removes those axes of size 1 for which `is_dropped` holds from a tensor of
    /// these sizes.
    pub fn squeeze(sizes: &[Option<usize>], is_dropped: impl Fn(usize) -> bool) -> Self {
        let run = |(axis, &size): (usize, &Option<usize>)| {
            if is_dropped(axis) {
                AxisRun { input: vec![Some(1)], output: vec![] }
            } else {
                AxisRun { input: vec![size], output: vec![size] }
            }
        };
        View(ViewedElements::InOrder(sizes.iter().enumerate().map(run).collect()))
    }

    /// The inverse view.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let turned =
            |run: &AxisRun| AxisRun { input: run.output.clone(), output: run.input.clone() };
        View(match &self.0 {
            ViewedElements::InOrder(runs) => {
                ViewedElements::InOrder(runs.iter().map(turned).collect())
            }
            ViewedElements::Turned { axes } => ViewedElements::Turned { axes: inverse(axes) },
            ViewedElements::Resampled { outward, inward } => {
                ViewedElements::Resampled { outward: inward.clone(), inward: outward.clone() }
            }
        })
    }

    /// The view that joins the axes before `axis` into one, and the others into another one.
    pub fn flatten(sizes: &[Option<usize>], axis: usize) -> Self {
        let (before, behind) = sizes.split_at(axis.min(sizes.len()));
        let joined = |sizes: &[Option<usize>]| AxisRun {
            input: sizes.to_vec(),
            output: vec![elements(sizes)],
        };
        View(ViewedElements::InOrder(vec![joined(before), joined(behind)]))
    }

    /// A view of a tensor of sizes `input` as one of sizes `output`, whose first `kept` axes are
    /// the same: runs as short as the known sizes allow, from both ends, and one run for what is
    /// left between them.
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
        View(ViewedElements::InOrder(runs))
    }

    /// Whether the view leaves every axis as it is.
    pub fn changes_nothing(&self) -> bool {
        let ViewedElements::InOrder(runs) = &self.0 else { return false };
        runs.iter().all(|run| run.input.len() == 1 && run.output.len() == 1)
    }

    /// Whether this view, applied behind `earlier`, gives back the input of `earlier` at all
    /// sizes. Where the number of elements is the same, a single unknown size must be the same,
    /// too.
    pub fn undoes(&self, earlier: &View) -> bool {
        let (first, second) = match (&earlier.0, &self.0) {
            (ViewedElements::InOrder(first), ViewedElements::InOrder(second)) => (first, second),
            (ViewedElements::Turned { axes: first }, ViewedElements::Turned { axes: second }) => {
                return *second == inverse(first);
            }
            _ => return false,
        };
        let (mut first, mut second) = (first.iter(), second.iter());
        loop {
            let (one, other) = match (first.next(), second.next()) {
                (Some(one), Some(other)) => (one, other),
                (None, None) => return true,
                _ => return false,
            };
            let (mut read, mut made) = (one.input.clone(), other.output.clone());
            let (mut ahead, mut behind) = (one.output.len(), other.input.len());
            while ahead != behind {
                let run = if ahead < behind { first.next() } else { second.next() };
                let Some(run) = run else { return false };
                if ahead < behind {
                    ahead = ahead.saturating_add(run.output.len());
                    read.extend(&run.input);
                } else {
                    behind = behind.saturating_add(run.input.len());
                    made.extend(&run.output);
                }
            }
            let unknown = read.iter().filter(|size| size.is_none()).count();
            if read != made || unknown > 1 || read.contains(&Some(0)) {
                return false;
            }
        }
    }

    /// The sizes of the output; `None` unless it holds the same elements in the same order.
    pub fn made(&self) -> Option<Vec<Option<usize>>> {
        let ViewedElements::InOrder(runs) = &self.0 else { return None };
        Some(runs.iter().flat_map(|run| run.output.iter().copied()).collect())
    }

    /// The rank of the output; `None` for a resampling.
    pub fn rank(&self) -> Option<usize> {
        match &self.0 {
            ViewedElements::InOrder(runs) => Some(runs.iter().map(|run| run.output.len()).sum()),
            ViewedElements::Turned { axes } => Some(axes.len()),
            ViewedElements::Resampled { .. } => None,
        }
    }

    /// This view and `earlier`, which is applied before it, as one view. Returns `None` unless
    /// both keep the elements in order.
    pub fn behind(&self, earlier: &View) -> Option<Self> {
        Some(View::reshape(&earlier.inverse().made()?, &self.made()?, 0))
    }

    /// The same view of a tensor whose axis `axis` has another `size`. Returns `None` unless the
    /// view keeps that axis alone.
    pub fn with_size(&self, axis: usize, size: usize) -> Option<Self> {
        let to = self.outward(axis).filter(|to| *to == ViewedAxis::alone(to.axis))?;
        let mut view = self.clone();
        if let ViewedElements::InOrder(runs) = &mut view.0 {
            let (inputs, outputs): (Vec<_>, Vec<_>) =
                runs.iter_mut().map(|run| (&mut run.input, &mut run.output)).unzip();
            *inputs.into_iter().flatten().nth(axis)? = Some(size);
            *outputs.into_iter().flatten().nth(to.axis)? = Some(size);
        }
        Some(view)
    }

    /// Whether the view is a resampling, which makes means, or arranges elements in blocks.
    pub fn resamples(&self) -> bool {
        matches!(self.0, ViewedElements::Resampled { .. })
    }

    /// Number of leading input axes before the first run that joins or splits axes.
    pub fn apart(&self) -> usize {
        let ViewedElements::InOrder(runs) = &self.0 else { return 0 };
        runs.iter().take_while(|run| run.input.len() == 1 && run.output.len() == 1).count()
    }

    /// The place to which the view takes `axis` of its input. Returns `None` if the axis does not
    /// become part of a single axis, or the sizes of what is joined with it are unknown.
    pub fn outward(&self, axis: usize) -> Option<ViewedAxis> {
        let runs = match &self.0 {
            ViewedElements::InOrder(runs) => runs,
            ViewedElements::Turned { axes } => {
                return axes.iter().position(|&from| from == axis).map(ViewedAxis::alone);
            }
            ViewedElements::Resampled { outward, .. } => return *outward.get(axis)?,
        };
        let (mut inputs, mut outputs) = (0, 0);
        for run in runs {
            if axis < inputs + run.input.len() {
                let (before, behind) = run.input.split_at(axis - inputs);
                let behind = behind.get(1..)?;
                // Several axes other than 1 would share the elements.
                let mut wide = (outputs..).zip(&run.output).filter(|(_, size)| **size != Some(1));
                let is_single = run.output.len() == 1;
                let to = wide.next().map(|(axis, _)| axis).or(is_single.then_some(outputs))?;
                if wide.next().is_some() {
                    return None;
                }
                let (outer, inner) = (elements(before)?, elements(behind)?);
                return Some(ViewedAxis { axis: to, outer, inner });
            }
            inputs += run.input.len();
            outputs += run.output.len();
        }
        None
    }
}

/// The number of elements of a tensor of these sizes; `None` if a size is unknown.
fn elements(sizes: &[Option<usize>]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |all, size| all.checked_mul((*size)?))
}

/// The inverse permutation of `axes`.
fn inverse(axes: &[usize]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..axes.len()).collect();
    places.sort_by_key(|&place| axes.get(place));
    places
}

/// The shortest run at the front that holds the same number of elements in both tensors.
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

    /// A shape, what it is viewed as, and what that is viewed as; the number of axes that both
    /// keep.
    #[test]
    fn what_is_joined_and_split_again_is_the_same() {
        for (read, between, made, kept, expected) in [
            (&[0, 4, 8][..], &[0, 8][..], &[0, 4, 8][..], 0, true),
            (&[0, 4, 6, 6], &[0, 4, 36], &[0, 4, 6, 6], 2, true),
            (&[0, 4, 1, 8], &[0, 4, 8], &[0, 4, 1, 8], 1, true),
            (&[2, 4, 6], &[48], &[2, 4, 6], 0, true),
            // With two unknown sizes, the elements may be divided between them in another way.
            (&[0, 0, 8], &[0, 8], &[0, 0, 8], 0, false),
            (&[0, 4, 6], &[0, 6], &[0, 6, 4], 0, false),
            (&[0, 4, 6, 5], &[0, 4, 30], &[0, 4, 5, 6], 2, false),
            (&[0, 4, 8], &[0, 8], &[0, 8], 0, false),
            (&[0, 3], &[0, 3], &[0, 3], 0, true),
        ] {
            let there = View::reshape(&sizes(read), &sizes(between), kept);
            let back = View::reshape(&sizes(between), &sizes(made), kept);
            assert_eq!(back.undoes(&there), expected, "{read:?} as {between:?} as {made:?}");
        }
        // One axis more or less at the end.
        let same = View::reshape(&sizes(&[0, 3]), &sizes(&[0, 3]), 0);
        let longer = View::squeeze(&sizes(&[0, 3, 1]), |axis| axis == 2).inverse();
        assert!(!longer.undoes(&same) && !same.undoes(&longer.inverse()));
        let squeezed = View::squeeze(&sizes(&[0, 4, 1, 0]), |axis| axis == 2);
        let elsewhere = View::squeeze(&sizes(&[0, 4, 0, 1]), |axis| axis == 3).inverse();
        assert!(squeezed.inverse().undoes(&squeezed) && !elsewhere.undoes(&squeezed));
    }

    /// Only an axis that stays alone may have another size.
    #[test]
    fn an_axis_alone_has_any_size() {
        let flat = View::reshape(&sizes(&[0, 8, 6, 6]), &sizes(&[0, 8, 36]), 1);
        let wider = flat.with_size(1, 5).unwrap();
        assert_eq!(wider, View::reshape(&sizes(&[0, 5, 6, 6]), &sizes(&[0, 5, 36]), 1));
        assert_eq!((flat.with_size(2, 5), flat.with_size(4, 5)), (None, None));
        let last = View::turned(&AxisOrder::with_channels_at(3), 4);
        assert_eq!(last.with_size(1, 5), Some(last.clone()));
        let joined = View::reshape(&sizes(&[2, 8, 6]), &sizes(&[16, 6]), 0);
        assert_eq!(joined.with_size(1, 5), None);
    }

    /// Two shapes and the number of kept axes; an axis, and where it goes, with what is joined
    /// with it.
    #[test]
    fn axes_go_where_their_elements_go() {
        for (input, output, kept, axis, expected) in [
            (&[0, 4, 6, 6][..], &[0, 4, 36][..], 1, 1, Some((1, 1, 1))),
            (&[0, 4, 0, 0], &[0, 4, 0], 1, 1, Some((1, 1, 1))),
            (&[0, 4, 6, 6], &[0, 144], 1, 1, Some((1, 1, 36))),
            (&[0, 4, 0, 6], &[0, 0], 1, 1, None),
            (&[2, 4, 6, 6], &[8, 36], 0, 1, Some((0, 2, 1))),
            // The channels are split in two: still apart from other axes, but not along a single
            // axis.
            (&[0, 4, 6], &[0, 2, 2, 6], 1, 1, None),
            (&[0, 0, 8], &[0, 8], 0, 2, Some((1, 1, 1))),
            (&[0, 0, 8], &[0, 8], 0, 0, None),
            (&[0, 8], &[0, 8, 1, 1], 1, 1, Some((1, 1, 1))),
            (&[1, 8, 1, 1], &[8], 0, 1, Some((0, 1, 1))),
            // With an unknown batch size, nobody can tell what becomes of the channels.
            (&[0, 4, 6, 6], &[1, 4, 0], 0, 1, None),
        ] {
            let view = View::reshape(&sizes(input), &sizes(output), kept);
            let expected = expected.map(|(axis, outer, inner)| ViewedAxis { axis, outer, inner });
            assert_eq!(view.outward(axis), expected, "{input:?} as {output:?}, axis {axis}");
        }
        let last = View::turned(&AxisOrder::with_channels_at(3), 4);
        let back = last.inverse();
        let moved = |view: &View| [0, 1, 2, 3].map(|axis| view.outward(axis).map(|to| to.axis));
        assert_eq!(moved(&last), [Some(0), Some(2), Some(3), Some(1)]);
        assert_eq!(moved(&back), [Some(0), Some(3), Some(1), Some(2)]);
        assert!(back.undoes(&last) && !last.undoes(&last));
        let squeezed = View::squeeze(&sizes(&[0, 4, 1, 0]), |axis| axis == 2);
        let at = |axis| Some(ViewedAxis { axis, outer: 1, inner: 1 });
        assert_eq!((squeezed.outward(3), squeezed.inverse().outward(2)), (at(2), at(3)));
    }
}
