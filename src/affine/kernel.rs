//! Linear maps with weights: the paper's two fusions, in float64.

#![allow(
    clippy::indexing_slicing,
    reason = "shapes follow from geometries that were checked before weights are read"
)]

use ndarray::{Array2, ArrayD, Axis, IxDyn, Slice};

use super::{Channels, Geometry, Linear, Order, Refusal, Sense, Window};

/// A convolution with bias: kernel `[O, C/groups, taps…]`, bias `[O]`.
///
/// Where the geometry's channels are `None`, the kernel is `[1, 1, taps…]` and
/// serves every channel, and the bias has one element.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    geometry: Geometry,
    kernel: ArrayD<f64>,
    bias: Vec<f64>,
}

/// Scale `γ/σ` and shift `β − μ·γ/σ` of a batch norm, with `σ = √(var + ε)`
/// (paper, Eq. 2). All vectors have one element per channel.
pub fn batch_norm(
    gamma: &[f64],
    beta: &[f64],
    mean: &[f64],
    var: &[f64],
    epsilon: f64,
) -> (Vec<f64>, Vec<f64>) {
    let scale: Vec<f64> =
        gamma.iter().zip(var).map(|(gamma, var)| gamma / (var + epsilon).sqrt()).collect();
    let shift = scale.iter().zip(beta).zip(mean).map(|((s, beta), mean)| beta - mean * s).collect();
    (scale, shift)
}

impl Affine {
    /// A convolution with kernel `[O, C/groups, taps…]`; the kernel's spatial shape
    /// and `windows` agree. An empty `bias` is zero.
    pub fn conv(kernel: ArrayD<f64>, bias: &[f64], windows: Vec<Window>, groups: usize) -> Self {
        let outputs = kernel.len_of(Axis(0));
        let inputs = kernel.len_of(Axis(1)) * groups;
        let channels = Some(Channels { inputs, outputs, groups });
        let bias = if bias.is_empty() { vec![0.0; outputs] } else { bias.to_vec() };
        Self::new(Geometry { channels, windows, ..Geometry::identity() }, kernel, bias)
    }

    /// A transposed convolution with kernel `[C, O/groups, taps…]`; an empty `bias` is zero.
    pub fn transposed_conv(
        kernel: ArrayD<f64>,
        bias: &[f64],
        windows: Vec<Window>,
        groups: usize,
    ) -> Self {
        let mut affine = Self::conv(exchange_channels(kernel, groups), bias, windows, groups);
        affine.geometry.sense = Sense::Scatter;
        affine
    }

    /// A matrix product with weights `[O, C]`, on tensors with so many spatial `axes`; an
    /// empty `bias` is zero.
    pub fn product(weights: ArrayD<f64>, bias: &[f64], axes: usize) -> Self {
        let mut kernel = weights.as_standard_layout().into_owned();
        (0..axes).for_each(|_| kernel.insert_axis_inplace(Axis(kernel.ndim())));
        let mut affine = Self::conv(kernel, bias, vec![Window::IDENTITY; axes], 1);
        affine.geometry.sense = Sense::Product;
        affine
    }

    /// The weights as the operator stores them: `[O, C/groups, taps…]`, or, if the
    /// convolution is transposed, `[C, O/groups, taps…]`.
    pub fn stored_kernel(&self) -> ArrayD<f64> {
        let groups = self.geometry.channels.map_or(1, |channels| channels.groups);
        match self.geometry.sense {
            Sense::Gather | Sense::Product => self.kernel.clone(),
            Sense::Scatter => exchange_channels(self.kernel.clone(), groups),
        }
    }

    /// `y = scale·x + shift`, per channel.
    pub fn diagonal(scale: &[f64], shift: &[f64]) -> Self {
        let kernel = scale.iter().copied().collect::<ndarray::Array1<_>>();
        let kernel = kernel.insert_axis(Axis(1)).into_dyn();
        let channels = Some(Channels::diagonal(scale.len()));
        Self::new(Geometry { channels, ..Geometry::identity() }, kernel, shift.to_vec())
    }

    /// The same kernel on every channel, with one weight for all its taps. Without
    /// windows it is `y = weight·x + shift`; with one tap per axis it pads or crops;
    /// with weight 1/taps it is a mean.
    pub fn filter(windows: Vec<Window>, weight: f64, shift: f64) -> Self {
        let mut shape = vec![1, 1];
        shape.extend(windows.iter().map(|window| window.taps as usize));
        let kernel = ArrayD::from_elem(IxDyn(&shape), weight);
        Self::new(Geometry { windows, ..Geometry::identity() }, kernel, vec![shift])
    }

    /// The map that changes nothing.
    pub fn identity() -> Self {
        Self::filter(Vec::new(), 1.0, 0.0)
    }

    /// This map between tensors with their axes in these orders.
    #[must_use]
    pub fn between(self, input: Order, output: Order) -> Self {
        Affine { geometry: Geometry { input, output, ..self.geometry }, ..self }
    }

    /// This map plus `shift`, which has one number or one per output channel.
    #[must_use]
    pub fn shifted(mut self, shift: &[f64]) -> Self {
        let channels = self.bias.len().max(shift.len());
        self.bias.resize(channels, self.bias[0]);
        for (bias, shift) in self.bias.iter_mut().zip(shift.iter().cycle()) {
            *bias += shift;
        }
        Self::new(self.geometry, self.kernel, self.bias)
    }

    fn new(geometry: Geometry, kernel: ArrayD<f64>, bias: Vec<f64>) -> Self {
        let shifted = bias.iter().any(|&b| b != 0.0);
        Affine { geometry: Geometry { shifted, ..geometry }, kernel, bias }
    }

    /// The weights, `[O, C/groups, taps…]`.
    pub fn kernel(&self) -> &ArrayD<f64> {
        &self.kernel
    }

    /// One number per output channel.
    pub fn bias(&self) -> &[f64] {
        &self.bias
    }

    /// Whether every weight and bias is a finite number.
    pub fn is_finite(&self) -> bool {
        self.kernel.iter().chain(&self.bias).all(|value| value.is_finite())
    }

    /// The same map, written out for `channels` channels and `axes` spatial axes.
    fn spelled_out(&self, channels: usize, axes: usize) -> Self {
        let mut shape = self.kernel.shape().to_vec();
        shape.resize(axes + 2, 1);
        let mut spelled = Affine { geometry: self.geometry.clone(), ..self.clone() };
        spelled.geometry.windows.resize(axes, Window::IDENTITY);
        if self.geometry.channels.is_none() {
            spelled.geometry.channels = Some(Channels::diagonal(channels));
            spelled.bias = vec![self.bias[0]; channels];
            spelled.kernel = ndarray::concatenate(Axis(0), &vec![self.kernel.view(); channels])
                .unwrap_or_else(|_| unreachable!("copies of one kernel have one shape"));
            shape[0] = channels;
        }
        spelled.kernel = spelled
            .kernel
            .into_shape_with_order(shape)
            .unwrap_or_else(|_| unreachable!("axes of length 1 keep the number of elements"));
        spelled
    }

    /// Adds `part`'s kernel onto the positions of its taps: one operand of ⊕.
    fn add_on_corresponding_positions(&mut self, part: &Affine) {
        let (Some(mine), Some(theirs)) = (self.geometry.channels, part.geometry.channels) else {
            unreachable!("both are spelled out")
        };
        let places: Vec<(usize, usize)> = self
            .geometry
            .windows
            .iter()
            .zip(&part.geometry.windows)
            .map(|(window, part)| window.place(part))
            .collect();
        let width = theirs.inputs / theirs.groups;
        for (output, (mut row, part_row)) in
            self.kernel.outer_iter_mut().zip(part.kernel.outer_iter()).enumerate()
        {
            // Group g of `part` reads channels g·width…; ours counts from its own group's first.
            let input = output / (theirs.outputs / theirs.groups) * width;
            let first = input % (mine.inputs / mine.groups);
            let mut corresponding = row.slice_each_axis_mut(|axis| {
                let (start, spacing) = match axis.axis.index() {
                    0 => (first, 1),
                    spatial => places[spatial - 1],
                };
                let taps = part_row.len_of(axis.axis);
                let end = start + (taps - 1) * spacing + 1;
                Slice::new(start as isize, Some(end as isize), spacing as isize)
            });
            corresponding += &part_row;
        }
        for (sum, bias) in self.bias.iter_mut().zip(&part.bias) {
            *sum += bias;
        }
    }
}

impl Linear for Affine {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Tap `(t₁, t₂)`: `K[o, c] += Σ_m K₁[o, m, t₁]·K₂[m, c, t₂]`; bias
    /// `b[o] = b₁[o] + Σ_{m,t₁} K₁[o, m, t₁]·b₂[m]`.
    fn composed(&self, inner: &Self) -> Result<Self, Refusal> {
        let geometry = self.geometry.composed(&inner.geometry)?;
        let between = match (self.geometry.channels, inner.geometry.channels) {
            (Some(outer), _) => outer.inputs,
            (None, Some(inner)) => inner.outputs,
            (None, None) => 1,
        };
        let axes = geometry.windows.len();
        let (outer, inner) = (self.spelled_out(between, axes), inner.spelled_out(between, axes));
        let channels = geometry.channels.unwrap_or(Channels::diagonal(1));
        let (Some(first), Some(second)) = (inner.geometry.channels, outer.geometry.channels) else {
            unreachable!("both are spelled out")
        };

        let taps: Vec<usize> = geometry.windows.iter().map(|window| window.taps as usize).collect();
        let places = composed_places(&geometry.windows, &outer.geometry, &inner.geometry);
        let width = channels.inputs / channels.groups;
        let (outer_taps, inner_taps) = (places.nrows(), places.ncols());
        let all_taps: usize = taps.iter().product();
        let outer_kernel = outer.kernel.as_standard_layout();
        let inner_kernel = inner.kernel.as_standard_layout();
        let (Some(outer_flat), Some(inner_flat)) =
            (outer_kernel.as_slice(), inner_kernel.as_slice())
        else {
            unreachable!("standard layout")
        };
        let outer_width = second.inputs / second.groups;
        let inner_width = first.inputs / first.groups;
        let mut kernel = vec![0.0; channels.outputs * width * all_taps];
        let mut bias = outer.bias.clone();
        for output in 0..channels.outputs {
            let row = &mut kernel[output * width * all_taps..][..width * all_taps];
            let first_between = output / (second.outputs / second.groups) * outer_width;
            for relative in 0..outer_width {
                let middle = first_between + relative;
                let weights =
                    &outer_flat[(output * outer_width + relative) * outer_taps..][..outer_taps];
                bias[output] += inner.bias[middle] * weights.iter().sum::<f64>();
                let input = middle / (first.outputs / first.groups) * inner_width % width;
                let row = &mut row[input * all_taps..][..inner_width * all_taps];
                let inner_rows =
                    &inner_flat[middle * inner_width * inner_taps..][..inner_width * inner_taps];
                for (&weight, places) in weights.iter().zip(places.outer_iter()) {
                    for (sums, values) in
                        row.chunks_exact_mut(all_taps).zip(inner_rows.chunks_exact(inner_taps))
                    {
                        for (&value, &place) in values.iter().zip(places) {
                            sums[place] += weight * value;
                        }
                    }
                }
            }
        }
        let mut shape = vec![channels.outputs, width];
        shape.extend(taps);
        let kernel = ArrayD::from_shape_vec(IxDyn(&shape), kernel)
            .unwrap_or_else(|_| unreachable!("the kernel was made with this size"));
        Ok(Self::new(geometry, kernel, bias))
    }

    fn added(&self, other: &Self, input: &[Option<i64>]) -> Result<Self, Refusal> {
        let geometry = self.geometry.added(&other.geometry, input)?;
        let axes = geometry.windows.len();
        let Channels { inputs, outputs, groups } =
            geometry.channels.unwrap_or(Channels::diagonal(1));
        let mut shape = vec![outputs, inputs / groups];
        shape.extend(geometry.windows.iter().map(|window| window.taps as usize));
        let mut sum = Affine {
            geometry: Geometry {
                channels: Some(Channels { inputs, outputs, groups }),
                ..geometry.clone()
            },
            kernel: ArrayD::zeros(IxDyn(&shape)),
            bias: vec![0.0; outputs],
        };
        sum.add_on_corresponding_positions(&self.spelled_out(inputs, axes));
        sum.add_on_corresponding_positions(&other.spelled_out(inputs, axes));
        Ok(Self::new(geometry, sum.kernel, sum.bias))
    }

    fn permuted(&self, roles: &[usize]) -> Self {
        let geometry = self.geometry.permuted(roles);
        let mut kernel = self.kernel.view();
        // Taps by role: none along batch and channels.
        let taps = roles.len() + 2;
        kernel.insert_axis_inplace(Axis(2));
        kernel.insert_axis_inplace(Axis(2));
        while kernel.ndim() < taps {
            kernel.insert_axis_inplace(Axis(kernel.ndim()));
        }
        let axes: Vec<usize> =
            [0, 1].into_iter().chain(roles.iter().map(|role| role + 2)).collect();
        let kernel = kernel.permuted_axes(IxDyn(&axes));
        let mut shape = kernel.shape()[..2].to_vec();
        shape.extend(geometry.windows.iter().map(|window| window.taps as usize));
        let kernel = kernel
            .as_standard_layout()
            .into_owned()
            .into_shape_with_order(shape)
            .unwrap_or_else(|_| unreachable!("what is left out has length 1"));
        Affine { geometry, kernel, bias: self.bias.clone() }
    }

    fn negated(mut self) -> Self {
        self.kernel.mapv_inplace(|weight| -weight);
        self.bias.iter_mut().for_each(|bias| *bias = -*bias);
        self
    }

    fn unshifted(mut self) -> Self {
        self.bias.fill(0.0);
        self.geometry.shifted = false;
        self
    }
}

/// `[A, B/groups, taps…]` as `[B, A/groups, taps…]`.
fn exchange_channels(kernel: ArrayD<f64>, groups: usize) -> ArrayD<f64> {
    let (first, second) = (kernel.len_of(Axis(0)), kernel.len_of(Axis(1)));
    let taps = kernel.shape()[2..].to_vec();
    let split = [&[groups, first / groups, second][..], &taps].concat();
    let joined = [&[groups * second, first / groups][..], &taps].concat();
    let mut split = kernel
        .into_shape_with_order(split)
        .unwrap_or_else(|_| unreachable!("the groups divide the channels"));
    split.swap_axes(1, 2);
    split
        .as_standard_layout()
        .into_owned()
        .into_shape_with_order(joined)
        .unwrap_or_else(|_| unreachable!("the number of elements is the same"))
}

/// Where tap `(t₁, t₂)` of a composition falls in its kernel: a table of flat
/// indices, a row per tap of `outer` and a column per tap of `inner`.
fn composed_places(composed: &[Window], outer: &Geometry, inner: &Geometry) -> Array2<usize> {
    let mut places = Array2::zeros((1, 1));
    for (axis, window) in composed.iter().enumerate() {
        let (outer, inner) = (outer.window(axis), inner.window(axis));
        let along = |i: usize, j: usize| {
            let reach = i as i64 * outer.step * inner.stride + j as i64 * inner.step;
            (reach / window.step) as usize
        };
        let (rows, columns) = places.dim();
        let (outer_taps, inner_taps) = (outer.taps as usize, inner.taps as usize);
        places =
            Array2::from_shape_fn((rows * outer_taps, columns * inner_taps), |(row, column)| {
                places[[row / outer_taps, column / inner_taps]] * window.taps as usize
                    + along(row % outer_taps, column % inner_taps)
            });
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feature maps `[C, spatial…]`.
    type Map = ArrayD<f64>;

    /// `affine` applied to `x` by the definition of convolution, tap by tap.
    fn naive(affine: &Affine, x: &Map) -> Map {
        let affine = affine.spelled_out(x.shape()[0], x.ndim() - 1);
        let Channels { outputs, groups, .. } = affine.geometry.channels.unwrap();
        let windows = &affine.geometry.windows;
        let mut shape = vec![outputs];
        shape.extend(
            windows.iter().zip(&x.shape()[1..]).map(|(w, &n)| w.outputs(n as i64).max(0) as usize),
        );
        ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            let width = affine.kernel.shape()[1];
            let first = at[0] / (outputs / groups) * width;
            let mut sum = affine.bias[at[0]];
            for (tap, weight) in affine.kernel.index_axis(Axis(0), at[0]).indexed_iter() {
                let mut position = vec![first + tap[0]];
                for (axis, window) in windows.iter().enumerate() {
                    let read = at[axis + 1] as i64 * window.stride
                        + window.start
                        + tap[axis + 1] as i64 * window.step;
                    position.push(usize::try_from(read).unwrap_or(usize::MAX));
                }
                sum += weight * x.get(&position[..]).copied().unwrap_or(0.0);
            }
            sum
        })
    }

    /// A transposed convolution by its definition: every input scatters its window.
    fn naive_scatter(affine: &Affine, x: &Map) -> Map {
        let Channels { inputs, outputs, groups } = affine.geometry.channels.unwrap();
        let windows = &affine.geometry.windows;
        let sizes = windows.iter().zip(&x.shape()[1..]);
        let sizes = sizes.map(|(w, &n)| ((n as i64 - 1) * w.stride + w.slack).max(0) as usize);
        let shape: Vec<usize> = std::iter::once(outputs).chain(sizes).collect();
        let mut y = ArrayD::zeros(IxDyn(&shape));
        for (channel, mut plane) in y.outer_iter_mut().enumerate() {
            plane.fill(affine.bias[channel]);
        }
        let stored = affine.stored_kernel();
        for (at, &value) in x.indexed_iter() {
            for (tap, &weight) in stored.index_axis(Axis(0), at[0]).indexed_iter() {
                let group = at[0] / (inputs / groups);
                let mut position = vec![group * (outputs / groups) + tap[0]];
                for (axis, window) in windows.iter().enumerate() {
                    let (at, tap) = (at[axis + 1] as i64, tap[axis + 1] as i64);
                    let place = at * window.stride + window.start + tap * window.step;
                    position.push(usize::try_from(place).unwrap_or(usize::MAX));
                }
                if let Some(sum) = y.get_mut(&position[..]) {
                    *sum += weight * value;
                }
            }
        }
        y
    }

    fn assert_close(a: &Map, b: &Map) -> Result<(), TestCaseError> {
        prop_assert_eq!(a.shape(), b.shape());
        let largest = a.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (a, b) in a.iter().zip(b) {
            prop_assert!((a - b).abs() <= 1e-12 * largest, "{} is not {}", a, b);
        }
        Ok(())
    }

    fn values(shape: Vec<usize>) -> impl Strategy<Value = Map> {
        let count: usize = shape.iter().product();
        proptest::collection::vec(-2.0..2.0f64, count)
            .prop_map(move |values| ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap())
    }

    fn windows(axes: usize, strides: Vec<i64>) -> impl Strategy<Value = Vec<Window>> {
        let axis = (1..4i64, 1..3i64, -1..3i64, -1..3i64);
        proptest::collection::vec(axis, axes).prop_map(move |axes| {
            let window = |((taps, dilation, begin, end), stride): ((i64, i64, i64, i64), &i64)| {
                Window::new(taps, *stride, dilation, (begin, end)).unwrap()
            };
            axes.into_iter().zip(&strides).map(window).collect()
        })
    }

    /// A convolution with groups from `inputs` to `outputs` channels.
    fn conv(inputs: usize, outputs: usize, strides: Vec<i64>) -> impl Strategy<Value = Affine> {
        let groups = prop_oneof![Just(1), Just(2), Just(4)];
        let biased = proptest::bool::ANY;
        (windows(strides.len(), strides), groups, biased).prop_flat_map(
            move |(windows, groups, biased)| {
                let mut shape = vec![outputs, inputs / groups];
                shape.extend(windows.iter().map(|w| w.taps as usize));
                let bias = values(vec![if biased { outputs } else { 0 }]);
                (values(shape), bias).prop_map(move |(kernel, bias)| {
                    Affine::conv(kernel, bias.as_slice().unwrap(), windows.clone(), groups)
                })
            },
        )
    }

    fn strides() -> impl Strategy<Value = Vec<i64>> {
        proptest::collection::vec(1..4i64, 1..=3)
    }

    fn input(axes: usize) -> impl Strategy<Value = Map> {
        proptest::collection::vec(5..8usize, axes).prop_flat_map(|sizes| {
            let mut shape = vec![4];
            shape.extend(sizes);
            values(shape)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn the_sum_of_kernels_is_the_sum_of_outputs(
            (x, a, mut b) in strides().prop_flat_map(|strides| {
                (input(strides.len()), conv(4, 8, strides.clone()), conv(4, 8, strides))
            })
        ) {
            // Give both as many outputs: the arms of a block do.
            for (mine, theirs) in b.geometry.windows.iter_mut().zip(&a.geometry.windows) {
                mine.slack = theirs.slack;
            }
            let sum = a.plus(&b, &[]).unwrap();
            assert_close(&naive(&sum, &x), &(naive(&a, &x) + naive(&b, &x)))?;
            assert_close(&naive(&b.plus(&a, &[]).unwrap(), &x), &naive(&sum, &x))?;
        }

        #[test]
        fn a_composition_is_one_after_the_other_at_every_size(
            (x, inner, outer) in strides().prop_flat_map(|strides| {
                let axes = strides.len();
                (input(axes), conv(4, 8, strides), conv(8, 4, vec![2; axes]))
            })
        ) {
            let between = naive(&inner, &x);
            prop_assume!(!between.is_empty());
            if let Ok(composed) = outer.after(&inner) {
                assert_close(&naive(&composed, &x), &naive(&outer, &between))?;
            }
        }

        #[test]
        fn norms_frames_and_identities_are_such_maps(
            x in input(2), kernel in conv(4, 4, vec![1, 1]), scale in values(vec![4]),
            shift in values(vec![4]), frame in windows(2, vec![1, 1]),
        ) {
            let norm = Affine::diagonal(scale.as_slice().unwrap(), shift.as_slice().unwrap());
            let scaled = norm.after(&kernel).unwrap();
            let mut expected = naive(&kernel, &x);
            for (mut plane, (s, t)) in expected.outer_iter_mut().zip(scale.iter().zip(&shift)) {
                plane.mapv_inplace(|v| v * s + t);
            }
            assert_close(&naive(&scaled, &x), &expected)?;
            prop_assert_eq!(&Affine::identity().after(&kernel).unwrap().kernel, &kernel.kernel);
            prop_assert_eq!(&kernel.after(&Affine::identity()).unwrap().kernel, &kernel.kernel);

            let frame = Affine::filter(frame.iter().map(|w| Window { taps: 1, ..*w }).collect(), 1.0, 0.0);
            let framed = naive(&frame, &x);
            if !framed.is_empty() && let Ok(composed) = kernel.after(&frame) {
                assert_close(&naive(&composed, &x), &naive(&kernel, &framed))?;
            }
            let twice = kernel.plus(&kernel, &[]).unwrap();
            let uniform = Affine::filter(vec![], 2.0, 0.0).after(&kernel).unwrap();
            assert_close(&twice.kernel, &uniform.kernel)?;
            assert_close(&naive(&kernel.clone().negated(), &x), &-naive(&kernel, &x))?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

        #[test]
        fn permuted_axes_of_a_kernel_are_permuted_axes_of_the_map(
            (x, kernel) in (input(3), conv(4, 8, vec![1, 2, 3]))
        ) {
            // Spatial axes 0, 1, 2 become 2, 0, 1.
            let turned = kernel.permuted(&[0, 1, 3, 4, 2]);
            let axes = IxDyn(&[0, 2, 3, 1]);
            let expected = naive(&kernel, &x).permuted_axes(axes.clone());
            assert_close(&naive(&turned, &x.permuted_axes(axes)), &expected)?;
        }

        #[test]
        fn transposed_convolutions_add_and_are_scaled_and_cropped(
            (x, a, b) in proptest::collection::vec(1..4i64, 1..=2).prop_flat_map(|strides| {
                (input(strides.len()), conv(8, 4, strides.clone()), conv(8, 4, strides))
            }),
            scale in values(vec![8]), shift in values(vec![8]), pads in (-2..3i64, -2..3i64),
        ) {
            // Stored [C, O/groups, …], so a convolution from 8 to 4 becomes one from 4 to 8.
            let scattered = |affine: &Affine, like: &Affine| {
                let groups = affine.geometry.channels.unwrap().groups;
                let windows = affine.geometry.windows.iter().zip(&like.geometry.windows);
                let windows = windows.map(|(window, like)| {
                    let slack = like.taps * like.step + 2;
                    Window { slack, start: -window.start.abs(), ..*window }
                });
                Affine::transposed_conv(affine.kernel.clone(), &[], windows.collect(), groups)
            };
            let (a, b) = (scattered(&a, &a), scattered(&b, &a));
            let sum = a.plus(&b, &[]).unwrap();
            assert_close(&naive_scatter(&sum, &x), &(naive_scatter(&a, &x) + naive_scatter(&b, &x)))?;

            let norm = Affine::diagonal(scale.as_slice().unwrap(), shift.as_slice().unwrap());
            let mut expected = naive_scatter(&a, &x);
            for (mut plane, (s, t)) in expected.outer_iter_mut().zip(scale.iter().zip(&shift)) {
                plane.mapv_inplace(|v| v * s + t);
            }
            let scaled = norm.after(&a).unwrap();
            assert_close(&naive_scatter(&scaled, &x), &expected)?;

            let frame = vec![Window::new(1, 1, 1, pads).unwrap(); x.ndim() - 1];
            let frame = Affine::filter(frame, 1.0, 0.0);
            for inner in [a, scaled] {
                let expected = naive(&frame, &naive_scatter(&inner, &x));
                if !expected.is_empty() && let Ok(framed) = frame.after(&inner) {
                    assert_close(&naive_scatter(&framed, &x), &expected)?;
                }
            }
        }
    }

    #[test]
    fn a_product_is_a_convolution_of_single_positions() {
        let weights = ArrayD::from_shape_fn(IxDyn(&[2, 3]), |at| (at[0] * 3 + at[1]) as f64);
        let x =
            ArrayD::from_shape_fn(IxDyn(&[3, 2, 2]), |at| (at[0] + 2 * at[1] + 5 * at[2]) as f64);
        let product = Affine::product(weights.clone(), &[0.5, -1.0], 2);
        let kernel = weights.into_shape_with_order(IxDyn(&[2, 3, 1, 1])).unwrap();
        let conv = Affine::conv(kernel, &[0.5, -1.0], vec![Window::IDENTITY; 2], 1);
        assert_eq!(naive(&product, &x), naive(&conv, &x));
        let norm = Affine::diagonal(&[2.0, 3.0], &[0.0, 1.0]);
        for (case, map, sense) in [
            ("scaled", norm.after(&product), Sense::Product),
            ("added", product.plus(&product, &[]), Sense::Product),
            ("beside a convolution", product.plus(&conv, &[]), Sense::Gather),
            ("of 1×1 windows", norm.after(&conv), Sense::Gather),
        ] {
            assert_eq!(map.unwrap().geometry.sense, sense, "{case}");
        }
    }

    #[test]
    fn batch_norm_follows_equation_2() {
        let (scale, shift) = batch_norm(&[3.0], &[0.5], &[2.0], &[3.75], 0.25);
        assert_eq!((scale, shift), (vec![1.5], vec![-2.5]));
    }

    #[test]
    fn an_acb_is_its_square_kernel_with_a_cross_added() {
        let ones = |shape: &[usize]| ArrayD::ones(IxDyn(shape));
        let same = Window::new(3, 1, 1, (1, 1)).unwrap();
        let square = Affine::conv(ones(&[1, 1, 3, 3]), &[], vec![same, same], 1);
        let horizontal = Affine::conv(ones(&[1, 1, 1, 3]), &[], vec![Window::IDENTITY, same], 1);
        let vertical = Affine::conv(ones(&[1, 1, 3, 1]), &[], vec![same, Window::IDENTITY], 1);
        let fused = square.plus(&horizontal, &[]).unwrap().plus(&vertical, &[]).unwrap();
        assert_eq!(fused.kernel.as_slice().unwrap(), [1., 2., 1., 2., 3., 2., 1., 2., 1.]);
    }
}
