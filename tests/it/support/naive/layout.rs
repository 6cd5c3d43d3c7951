//! Operators that move elements, in the same way for floats and for integers.

use acb_fuse::engine::Array;
use ndarray::{ArrayD, Axis, IxDyn, concatenate, stack};

use super::Stop;
use super::node::Node;

/// Computes an array from the elements of another one, whatever their type.
macro_rules! of_both {
    ($array:expr, $x:ident => $result:expr) => {
        match $array {
            Array::Float($x) => Array::Float($result),
            Array::Int($x) => Array::Int($result),
        }
    };
}

impl Node<'_> {
    pub(super) fn transpose(&self, x: &Array) -> Result<Array, Stop> {
        let rank = x.shape().len();
        let reversed = || (0..rank as i64).rev().collect();
        let perm = self.ints("perm").unwrap_or_else(reversed);
        let perm: Vec<usize> = perm.iter().map(|&p| p as usize).collect();
        let mut sorted = perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return Err("the permutation is none".into());
        }
        Ok(of_both!(x, x => x.view().permuted_axes(perm).as_standard_layout().into_owned()))
    }

    pub(super) fn reshape(&self, x: &Array) -> Result<Array, Stop> {
        let asked = self.list("shape", 1)?;
        let keeps = self.int("allowzero", 0) == 0;
        let size = |(axis, &size): (usize, &i64)| match size {
            0 if keeps => x.shape()[axis] as i64,
            size => size,
        };
        let mut sizes: Vec<i64> = asked.iter().enumerate().map(size).collect();
        let known: i64 = sizes.iter().filter(|&&size| size >= 0).product();
        let elements: usize = x.shape().iter().product();
        if let Some(open) = sizes.iter_mut().find(|size| **size < 0) {
            *open = elements as i64 / known.max(1);
        }
        with_shape(x, sizes.iter().map(|&size| size as usize).collect())
    }

    pub(super) fn flatten(&self, x: &Array) -> Result<Array, Stop> {
        let axis = place(self.int("axis", 1), x.shape().len() + 1);
        let (rows, columns) = x.shape().split_at(axis);
        with_shape(x, vec![rows.iter().product(), columns.iter().product()])
    }

    pub(super) fn unsqueeze(&self, x: &Array) -> Result<Array, Stop> {
        let axes = self.list("axes", 1)?;
        let rank = x.shape().len() + axes.len();
        let mut axes: Vec<usize> = axes.iter().map(|&axis| place(axis, rank)).collect();
        axes.sort_unstable();
        let mut shape = x.shape().to_vec();
        axes.into_iter().for_each(|axis| shape.insert(axis, 1));
        with_shape(x, shape)
    }

    pub(super) fn squeeze(&self, x: &Array) -> Result<Array, Stop> {
        let rank = x.shape().len();
        let ones = || (0..rank).filter(|&axis| x.shape()[axis] == 1).collect::<Vec<_>>();
        let axes = self.list_if_any("axes", 1)?;
        let axes =
            axes.map_or_else(ones, |axes| axes.iter().map(|&axis| place(axis, rank)).collect());
        let kept = (0..rank).filter(|axis| !axes.contains(axis)).map(|axis| x.shape()[axis]);
        with_shape(x, kept.collect())
    }

    pub(super) fn depth_to_space(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let [n, c, h, w] = four(x)?;
        let side = self.int("blocksize", 0) as usize;
        let is_apart = self.text("mode", "DCR") == "DCR";
        let made = c / (side * side);
        Ok(ArrayD::from_shape_fn(IxDyn(&[n, made, h * side, w * side]), |at| {
            let place = (at[2] % side) * side + at[3] % side;
            let channel = if is_apart { place * made + at[1] } else { at[1] * side * side + place };
            x[[at[0], channel, at[2] / side, at[3] / side]]
        }))
    }

    pub(super) fn space_to_depth(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let [n, c, h, w] = four(x)?;
        let side = self.int("blocksize", 0) as usize;
        Ok(ArrayD::from_shape_fn(IxDyn(&[n, c * side * side, h / side, w / side]), |at| {
            let place = at[1] / c;
            x[[at[0], at[1] % c, at[2] * side + place / side, at[3] * side + place % side]]
        }))
    }

    pub(super) fn concat(&self) -> Result<Array, Stop> {
        let parts: Vec<&Array> =
            (0..self.node.input.len()).map(|index| self.any(index)).collect::<Result<_, _>>()?;
        let axis = Axis(place(self.int("axis", 1), parts[0].shape().len()));
        joined(&parts, |floats| concatenate(axis, floats), |integers| concatenate(axis, integers))
    }

    pub(super) fn split(&self, x: &Array) -> Result<Vec<Array>, Stop> {
        let axis = place(self.int("axis", 0), x.shape().len());
        let (size, parts) = (x.shape()[axis], self.node.output.len());
        let equal = || vec![size.div_ceil(parts) as i64; parts];
        let sizes = self.list_if_any("split", 1)?.unwrap_or_else(equal);
        let mut begin = 0;
        let part = |length: i64| {
            let end = (begin + length).min(size as i64);
            let kept: Vec<_> = (begin..end).map(Some).collect();
            begin = end;
            of_both!(x, x => taken(x, axis, &kept, None))
        };
        Ok(sizes.into_iter().map(part).collect())
    }

    pub(super) fn slice(&self, x: &Array) -> Result<Array, Stop> {
        let (starts, ends) = (self.list("starts", 1)?, self.list("ends", 2)?);
        let all = || (0..starts.len() as i64).collect();
        let axes = self.list_if_any("axes", 3)?.unwrap_or_else(all);
        let steps = if self.has(4) { self.integers(4)? } else { vec![1; starts.len()] };
        let mut result = x.clone();
        for (at, &axis) in axes.iter().enumerate() {
            let axis = place(axis, x.shape().len());
            let size = result.shape()[axis] as i64;
            let (step, lowest) = (steps[at], if steps[at] > 0 { 0 } else { -1 });
            let highest = if step > 0 { size } else { size - 1 };
            let bound = |bound: i64| {
                let from_begin = if bound < 0 { bound.saturating_add(size) } else { bound };
                from_begin.clamp(lowest, highest.max(lowest))
            };
            let (start, end) = (bound(starts[at]), bound(ends[at]));
            let goes_on = |at: &i64| if step > 0 { *at < end } else { *at > end };
            let kept: Vec<_> = std::iter::successors(Some(start), |at| Some(at + step))
                .take_while(goes_on)
                .map(Some)
                .collect();
            result = of_both!(&result, x => taken(x, axis, &kept, None));
        }
        Ok(result)
    }

    pub(super) fn pad(&self, x: &Array) -> Result<Array, Stop> {
        let pads = self.list("pads", 1)?;
        let axes =
            if self.has(3) { self.integers(3)? } else { (0..x.shape().len() as i64).collect() };
        let filling = if self.has(2) {
            self.any(2)?.clone()
        } else {
            Array::Float(ArrayD::from_elem(vec![], self.number("value", 0.0)))
        };
        let mut result = x.clone();
        for (at, &axis) in axes.iter().enumerate() {
            let axis = place(axis, x.shape().len());
            let size = result.shape()[axis] as i64;
            let mode = self.text("mode", "constant");
            let from = |at: i64| match mode {
                "constant" => (0..size).contains(&at).then_some(at),
                "edge" => Some(at.clamp(0, size - 1)),
                "wrap" => Some(at.rem_euclid(size)),
                "reflect" => {
                    let turned = at.rem_euclid((2 * size - 2).max(1));
                    Some(turned.min(2 * size - 2 - turned).max(0))
                }
                other => panic!("Pad has no mode {other:?}"),
            };
            let kept: Vec<_> = (-pads[at]..size + pads[at + axes.len()]).map(from).collect();
            result = match (&result, &filling) {
                (Array::Float(x), Array::Float(value)) => {
                    Array::Float(taken(x, axis, &kept, value.first().copied()))
                }
                (Array::Int(x), Array::Int(value)) => {
                    Array::Int(taken(x, axis, &kept, value.first().copied()))
                }
                _ => of_both!(&result, x => taken(x, axis, &kept, None)),
            };
        }
        Ok(result)
    }

    pub(super) fn gather(&self, x: &Array) -> Result<Array, Stop> {
        let axis = place(self.int("axis", 0), x.shape().len());
        let (places, size) = (self.integers(1)?, x.shape()[axis] as i64);
        let kept: Vec<_> =
            places.iter().map(|&at| Some(if at < 0 { at + size } else { at })).collect();
        if kept.iter().flatten().any(|at| !(0..size).contains(at)) {
            return Err("an index is out of range".into());
        }
        let mut shape = x.shape().to_vec();
        shape.splice(axis..=axis, self.any(1)?.shape().iter().copied());
        with_shape(&of_both!(x, x => taken(x, axis, &kept, None)), shape)
    }

    pub(super) fn expand(&self, x: &Array) -> Result<Array, Stop> {
        let asked = self.list("shape", 1)?;
        let rank = asked.len().max(x.shape().len());
        let size = |list: &[usize], axis: usize| {
            (axis + list.len()).checked_sub(rank).map_or(1, |at| list[at])
        };
        let asked: Vec<usize> = asked.iter().map(|&size| size as usize).collect();
        let shape: Vec<usize> =
            (0..rank).map(|axis| size(&asked, axis).max(size(x.shape(), axis))).collect();
        Ok(of_both!(x, x => x.broadcast(shape).ok_or("the shape does not fit")?.to_owned()))
    }

    /// Resizes a tensor: each new element is the old one nearest to its place, or interpolated
    /// between the two beside it. Input number `scales` holds the scales, unless an input behind it
    /// holds the sizes.
    pub(super) fn resize(
        &self,
        x: &Array,
        scales: usize,
        [place, rounding]: [&'static str; 2],
    ) -> Result<Array, Stop> {
        let (mode, place) = (self.text("mode", "nearest"), self.text(PLACE, place));
        let rounding = self.text("nearest_mode", rounding);
        let sizes = if self.node.input.len() > 3 { Some(self.integers(3)?) } else { None };
        let mut result = x.clone();
        let rank = x.shape().len();
        let axes = self.ints("axes").unwrap_or_else(|| (0..rank as i64).collect());
        for (at, axis) in axes.into_iter().enumerate() {
            let axis = self::place(axis, rank);
            let old = x.shape()[axis] as f64;
            let (new, scale) = match &sizes {
                Some(sizes) => (sizes[at] as f64, sizes[at] as f64 / old),
                None => {
                    let scale = self.float(scales)?.iter().copied().nth(at).ok_or("no scale")?;
                    (f64::from((old as f32 * scale as f32).floor()), scale)
                }
            };
            let places: Vec<f64> = (0..new as usize)
                .map(|at| match place {
                    "half_pixel" => (at as f64 + 0.5) / scale - 0.5,
                    "pytorch_half_pixel" if new == 1.0 => 0.0,
                    "pytorch_half_pixel" => (at as f64 + 0.5) / scale - 0.5,
                    "align_corners" if new == 1.0 => 0.0,
                    "align_corners" => at as f64 * (old - 1.0) / (new - 1.0),
                    "asymmetric" => at as f64 / scale,
                    _ => f64::NAN,
                })
                .collect();
            if places.iter().any(|place| place.is_nan()) {
                return Err(Stop::Unknown(format!("a Resize to places of {place}")));
            }
            let rounded = |place: &f64| match rounding {
                "floor" => place.floor(),
                "ceil" => place.ceil(),
                "round_prefer_ceil" => (place + 0.5).floor(),
                _ => (place - 0.5).ceil(),
            };
            let picked = |x: &Array, at: &dyn Fn(&f64) -> f64| {
                let kept: Vec<_> =
                    places.iter().map(|p| Some(at(p).clamp(0.0, old - 1.0) as i64)).collect();
                of_both!(x, x => taken(x, axis, &kept, None))
            };
            result = match mode {
                "nearest" => picked(&result, &rounded),
                "linear" => {
                    let [below, above] =
                        [0.0, 1.0].map(|more| picked(&result, &|place: &f64| place.floor() + more));
                    let (Array::Float(mut below), Array::Float(above)) = (below, above) else {
                        return Err(Stop::Unknown("a linear Resize of integers".into()));
                    };
                    for (at, place) in places.iter().enumerate() {
                        let share = place - place.floor();
                        let mut below = below.index_axis_mut(Axis(axis), at);
                        below *= 1.0 - share;
                        below.scaled_add(share, &above.index_axis(Axis(axis), at));
                    }
                    Array::Float(below)
                }
                other => return Err(Stop::Unknown(format!("a Resize by {other} terms"))),
            };
        }
        Ok(result)
    }

    /// Puts updates in the place of slices of `x`, at indices along its first axes, or combines
    /// both.
    pub(super) fn scatter_nd(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let (indices, updates) = (self.integers(1)?, self.float(2)?);
        let depth = *self.any(1)?.shape().last().ok_or("there are no indices")?;
        let length: usize = x.shape()[depth..].iter().product();
        let updates: Vec<f64> = updates.iter().copied().collect();
        let mut values: Vec<f64> = x.iter().copied().collect();
        for (row, index) in indices.chunks(depth).enumerate() {
            let flat = index.iter().zip(x.shape()).fold(0, |flat, (&at, &size)| {
                flat * size + if at < 0 { at + size as i64 } else { at } as usize
            });
            for at in 0..length {
                let (new, old) = (updates[row * length + at], &mut values[flat * length + at]);
                *old = match self.text("reduction", "none") {
                    "none" => new,
                    "add" => *old + new,
                    "mul" => *old * new,
                    "max" => old.max(new),
                    "min" => old.min(new),
                    other => return Err(Stop::Unknown(format!("ScatterND with {other}"))),
                };
            }
        }
        ArrayD::from_shape_vec(x.raw_dim(), values).map_err(Stop::from)
    }
}

const PLACE: &str = "coordinate_transformation_mode";

pub(super) fn with_shape(x: &Array, shape: Vec<usize>) -> Result<Array, Stop> {
    Ok(of_both!(x, x => x.to_shape(IxDyn(&shape))?.into_owned()))
}

/// Returns the slice at `at` along the first axis.
pub(super) fn element(x: &Array, at: usize) -> Array {
    of_both!(x, x => x.index_axis(Axis(0), at).to_owned())
}

/// Stacks tensors of one shape along a new first axis.
pub(super) fn stacked(all: &[Array]) -> Result<Array, Stop> {
    let parts: Vec<&Array> = all.iter().collect();
    joined(&parts, |floats| stack(Axis(0), floats), |integers| stack(Axis(0), integers))
}

type Views<'v, T> = [ndarray::ArrayViewD<'v, T>];
type Joined<T> = Result<ArrayD<T>, ndarray::ShapeError>;

fn joined(
    parts: &[&Array],
    floats: impl Fn(&Views<f64>) -> Joined<f64>,
    integers: impl Fn(&Views<i64>) -> Joined<i64>,
) -> Result<Array, Stop> {
    let float = |part: &&Array| if let Array::Float(x) = *part { Some(x.clone()) } else { None };
    let integer = |part: &&Array| if let Array::Int(x) = *part { Some(x.clone()) } else { None };
    let all_floats: Vec<_> = parts.iter().filter_map(float).collect();
    let all_integers: Vec<_> = parts.iter().filter_map(integer).collect();
    if all_floats.len() == parts.len() {
        let views: Vec<_> = all_floats.iter().map(|part| part.view()).collect();
        return Ok(Array::Float(floats(&views)?));
    }
    if all_integers.len() == parts.len() {
        let views: Vec<_> = all_integers.iter().map(|part| part.view()).collect();
        return Ok(Array::Int(integers(&views)?));
    }
    Err("parts of two types".into())
}

/// Returns the position of an axis that may be counted from the end.
pub(super) fn place(axis: i64, rank: usize) -> usize {
    if axis < 0 { (axis + rank as i64) as usize } else { axis as usize }
}

/// Returns the elements at `places` along `axis`; `filling`, or zeros, where a place is `None`.
pub(super) fn taken<T: Copy + Default>(
    x: &ArrayD<T>,
    axis: usize,
    places: &[Option<i64>],
    filling: Option<T>,
) -> ArrayD<T> {
    let mut shape = x.shape().to_vec();
    shape[axis] = places.len();
    let mut result = ArrayD::from_elem(IxDyn(&shape), filling.unwrap_or_default());
    for (to, from) in places.iter().enumerate() {
        if let Some(from) = from {
            let lane = x.index_axis(Axis(axis), *from as usize);
            result.index_axis_mut(Axis(axis), to).assign(&lane);
        }
    }
    result
}

fn four(x: &ArrayD<f64>) -> Result<[usize; 4], Stop> {
    x.shape().try_into().map_err(|_| "the tensor has not four axes".into())
}
