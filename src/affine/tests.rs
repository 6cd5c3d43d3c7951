//! Maps with weights against the definition of a convolution, tap by tap.
//!
//! Expected values are summed up here, and use none of the rules under test.

use proptest::prelude::*;

use ndarray::{ArrayD, Axis, IxDyn};

use crate::affine::geometry::{Channels, ConvKind, Geometry};
use crate::affine::kernel::{Affine, batch_norm};
use crate::affine::linear::Linear;
use crate::affine::quantization::InTurn;
use crate::affine::window::Window;
use crate::numbers;

/// Feature maps `[C, spatial…]`.
type Map = ArrayD<f64>;

/// `affine` applied to `x` by the definition of convolution, tap by tap.
fn naive(affine: &Affine, x: &Map) -> Map {
    let affine = affine.spelled_out(x.shape()[0], x.ndim() - 1);
    let kernel = affine.kernel();
    let Channels { outputs, groups, .. } = affine.geometry.channels.unwrap();
    let windows = &affine.geometry.windows;
    let mut shape = vec![outputs];
    shape.extend(
        windows.iter().zip(&x.shape()[1..]).map(|(w, &n)| w.outputs(n as i64).max(0) as usize),
    );
    ArrayD::from_shape_fn(IxDyn(&shape), |at| {
        let width = kernel.shape()[1];
        let first = at[0] / (outputs / groups) * width;
        let mut sum = affine.bias[at[0]];
        for (tap, weight) in kernel.index_axis(Axis(0), at[0]).indexed_iter() {
            let mut position = vec![first + tap[0]];
            for (axis, window) in windows.iter().enumerate() {
                let read = at[axis + 1] as i64 * window.stride
                    + window.offset
                    + tap[axis + 1] as i64 * window.dilation;
                position.push(usize::try_from(read).unwrap_or(usize::MAX));
            }
            sum += weight * x.get(&position[..]).copied().unwrap_or(0.0);
        }
        sum
    })
}

#[test]
fn a_kernel_that_is_added_to_itself_is_a_factor() {
    let kernel = ArrayD::from_shape_fn(IxDyn(&[2, 2, 1, 1]), |at| at[0] as f64 - 0.5);
    let conv = Affine::conv(kernel.clone(), &[1.0, 2.0], vec![Window::IDENTITY; 2], 1);
    let doubled = |map: Affine| map.clone().plus(&map, &[]).unwrap();
    let often = (0..20).fold(conv.clone(), |map, _| doubled(map));
    assert_eq!(often.summands.len(), 1);
    assert_eq!(often.kernel(), &kernel * f64::from(1 << 20));
    assert_eq!(often.bias(), [f64::from(1 << 20), f64::from(2 << 20)]);
    // With a factor per channel on one side, and a sign.
    let scaled = Affine::diagonal(&[3.0, 5.0], &[0.0, 0.0]).after(&conv).unwrap();
    let difference = scaled.plus(&conv.negated(), &[]).unwrap();
    assert_eq!(difference.summands.len(), 1);
    assert_eq!(difference.kernel().as_slice().unwrap(), [-1.0, -1.0, 2.0, 2.0]);
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
    let stored = ArrayD::from_shape_vec(
        IxDyn(&affine.stored_shape()),
        numbers::all(&*affine.clone().stored_kernel()),
    );
    let stored = stored.unwrap();
    for (at, &value) in x.indexed_iter() {
        for (tap, &weight) in stored.index_axis(Axis(0), at[0]).indexed_iter() {
            let group = at[0] / (inputs / groups);
            let mut position = vec![group * (outputs / groups) + tap[0]];
            for (axis, window) in windows.iter().enumerate() {
                let (at, tap) = (at[axis + 1] as i64, tap[axis + 1] as i64);
                let place = at * window.stride + window.offset + tap * window.dilation;
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
        // Both make the same number of outputs, as the arms of a block do.
        for (mine, theirs) in b.geometry.windows.iter_mut().zip(&a.geometry.windows) {
            mine.slack = theirs.slack;
        }
        let sum = a.clone().plus(&b, &[]).unwrap();
        assert_close(&naive(&sum, &x), &(naive(&a, &x) + naive(&b, &x)))?;
        assert_close(&naive(&b.clone().plus(&a, &[]).unwrap(), &x), &naive(&sum, &x))?;
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
        prop_assert_eq!(Affine::identity().after(&kernel).unwrap().kernel(), kernel.kernel());
        prop_assert_eq!(kernel.after(&Affine::identity()).unwrap().kernel(), kernel.kernel());

        let frame = Affine::filter(frame.iter().map(|w| Window { taps: 1, ..*w }).collect(), 1.0, 0.0);
        let framed = naive(&frame, &x);
        if !framed.is_empty() && let Ok(composed) = kernel.after(&frame) {
            assert_close(&naive(&composed, &x), &naive(&kernel, &framed))?;
        }
        let twice = kernel.clone().plus(&kernel, &[]).unwrap();
        let uniform = Affine::filter(vec![], 2.0, 0.0).after(&kernel).unwrap();
        assert_close(&twice.kernel(), &uniform.kernel())?;
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
        // The kernel is stored as [C, O/groups, …], so a convolution from 8 to 4 becomes one from
        // 4 to 8.
        let scattered = |affine: &Affine, like: &Affine| {
            let groups = affine.geometry.channels.unwrap().groups;
            let windows = affine.geometry.windows.iter().zip(&like.geometry.windows);
            let windows = windows.map(|(window, like)| {
                let slack = like.taps * like.dilation + 2;
                Window { slack, offset: -window.offset.abs(), ..*window }
            });
            Affine::transposed_conv(affine.kernel(), &[], windows.collect(), groups)
        };
        let (a, b) = (scattered(&a, &a), scattered(&b, &a));
        let sum = a.clone().plus(&b, &[]).unwrap();
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
    let x = ArrayD::from_shape_fn(IxDyn(&[3, 2, 2]), |at| (at[0] + 2 * at[1] + 5 * at[2]) as f64);
    let product = Affine::product(weights.clone(), &[0.5, -1.0], 2);
    let kernel = weights.into_shape_with_order(IxDyn(&[2, 3, 1, 1])).unwrap();
    let conv = Affine::conv(kernel, &[0.5, -1.0], vec![Window::IDENTITY; 2], 1);
    assert_eq!(naive(&product, &x), naive(&conv, &x));
    let norm = Affine::diagonal(&[2.0, 3.0], &[0.0, 1.0]);
    let frame = |pads| Affine::filter(vec![Window::new(1, 1, 1, pads).unwrap(); 2], 1.0, 0.0);
    let (pad, shifted) = (frame((1, 1)), product.after(&frame((2, 0))).unwrap());
    for (case, map, kind) in [
        ("scaled", norm.after(&product), ConvKind::MatMul),
        ("added", product.clone().plus(&product, &[]), ConvKind::MatMul),
        ("padded", product.after(&pad), ConvKind::MatMul),
        ("padded and not", product.after(&pad).unwrap().plus(&shifted, &[]), ConvKind::Conv),
        ("beside a convolution", product.clone().plus(&conv, &[]), ConvKind::Conv),
        ("of 1×1 windows", norm.after(&conv), ConvKind::Conv),
    ] {
        assert_eq!(map.unwrap().geometry.kind, kind, "{case}");
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
    let fused = square.clone().plus(&horizontal, &[]).unwrap().plus(&vertical, &[]).unwrap();
    assert_eq!(fused.kernel().as_slice().unwrap(), [1., 2., 1., 2., 3., 2., 1., 2., 1.]);
    // The skeleton is stronger than that of the square kernel (Sect. 4.4).
    let norm = Affine::diagonal(&[-2.0], &[0.0]);
    let compared = norm.after(&fused).unwrap().compared(&InTurn).unwrap();
    assert_eq!((compared.stored.largest, compared.before.channels.largest), (1.0, 2.0));
    assert_eq!(compared.before.by_position, [1.0; 9]);
    let skeleton = [1., 2., 1., 2., 3., 2., 1., 2., 1.].map(|weight| weight / 3.0);
    assert_eq!(compared.after.by_position, skeleton);
    assert_eq!(compared.after.channels.largest, 6.0);
    // Two channels with different scales and the same mean.
    let mean = Affine::filter(vec![same], 1.0, 0.0);
    let scaled = Affine::diagonal(&[2.0, -3.0], &[0.0; 2]).after(&mean).unwrap();
    let compared = scaled.compared(&InTurn).unwrap();
    assert_eq!((compared.stored.largest, compared.before.channels.largest), (1.0, 3.0));
    assert_eq!((compared.before.by_position, compared.after.channels.median), (vec![1.0; 3], 2.5));
}

/// Two windows that make as many outputs for one size, and the pads of their union.
#[test]
fn what_no_output_reads_is_padded_evenly() {
    let conv = |taps, stride, dilation, pads| Window::new(taps, stride, dilation, pads).unwrap();
    for (a, b, size, pads) in [
        (conv(3, 2, 1, (1, 1)), conv(3, 2, 1, (1, 2)), 7, (1, 1)),
        (conv(3, 2, 1, (1, 0)), conv(1, 2, 1, (0, 0)), 8, (1, 1)),
        // Not less than the last output reads; and a crop in front needs none behind.
        (conv(3, 2, 1, (0, 1)), conv(1, 2, 1, (0, 0)), 8, (0, 1)),
        (conv(3, 2, 1, (-1, 0)), conv(3, 2, 1, (-1, -1)), 9, (-1, 0)),
        // Windows with equal slacks leave no choice.
        (conv(3, 2, 1, (1, 2)), conv(1, 2, 1, (0, 1)), 8, (1, 2)),
    ] {
        let union = a.union(&b, Some(size), 0).unwrap();
        assert_eq!((union.pads(), union.outputs(size)), (pads, a.outputs(size)), "{a:?} {b:?}");
    }
}

#[test]
fn transposed_convolutions_are_padded_evenly_where_they_can_be() {
    for (stride, dilation, pads, growth, expected) in [
        (2, 1, (1, 1), 1, ((1, 1), 1)),
        (2, 1, (1, 0), 0, ((1, 1), 1)),
        (2, 1, (0, 0), 1, ((0, 0), 1)),
        (1, 1, (1, 1), 0, ((1, 1), 0)),
        // More is dropped at the end, or the output padding would be more than engines allow.
        (2, 1, (0, 1), 0, ((0, 1), 0)),
        (2, 1, (2, 0), 0, ((2, 0), 0)),
        (1, 2, (0, 0), 1, ((0, 0), 1)),
        (2, 1, (-1, 0), 0, ((-1, 0), 0)),
    ] {
        let window = Window::scattered(3, stride, dilation, pads, growth).unwrap();
        assert_eq!(window.scattered_pads(), expected, "{pads:?} {growth}");
        let ((before, behind), growth) = expected;
        let same = Window::scattered(3, stride, dilation, (before, behind), growth);
        assert_eq!(same, Some(window), "{pads:?} {growth}");
    }
}

#[test]
fn a_kernel_with_the_rows_of_two_makes_what_both_make() {
    let windows = vec![Window::new(3, 2, 1, (1, 0)).unwrap(), Window::IDENTITY];
    let kernel = |outputs: usize, first: usize| {
        let numbers = (0..outputs * 2 * 3).map(|at| ((at + first) % 7) as f64 - 2.5).collect();
        let weights = ArrayD::from_shape_vec(IxDyn(&[outputs, 2, 3, 1]), numbers).unwrap();
        let bias: Vec<f64> = (0..outputs).map(|at| (at + first) as f64).collect();
        let (scale, shift) = (vec![1.5; outputs], vec![0.25; outputs]);
        let norm = Affine::diagonal(&scale, &shift);
        norm.after(&Affine::conv(weights, &bias, windows.clone(), 1)).unwrap()
    };
    let map = |channels: usize| {
        ArrayD::from_shape_fn(IxDyn(&[channels, 5, 4]), |at| {
            (at[0] * 11 + at[1] * 3 + at[2]) as f64
        })
    };
    let channels = |map: &Affine| map.geometry().channels.unwrap();
    let (one, other) = (kernel(2, 1), kernel(3, 4));
    let both = channels(&one).stacked(&channels(&other)).unwrap();
    let both = one.with_rows_of(&other, both).unwrap();
    let apart = [naive(&one, &map(2)), naive(&other, &map(2))];
    let joined = ndarray::concatenate(Axis(0), &[apart[0].view(), apart[1].view()]).unwrap();
    assert_eq!(naive(&both, &map(2)), joined);
    // A range from the middle of a row of the first kernel to the middle of one of the second.
    assert_eq!(numbers::read(&both, 8..17), numbers::all(&both)[8..17]);

    let next = kernel(2, 3);
    let both = channels(&one).beside(&channels(&next)).unwrap();
    let both = one.with_rows_of(&next, both).unwrap();
    let (whole, mut parts) = (map(4), vec![]);
    for (kernel, start) in [(&one, 0), (&next, 2)] {
        let part = whole.slice_axis(Axis(0), ndarray::Slice::from(start..start + 2));
        parts.push(naive(kernel, &part.to_owned()));
    }
    let joined = ndarray::concatenate(Axis(0), &[parts[0].view(), parts[1].view()]).unwrap();
    assert_eq!(naive(&both, &whole), joined);
    let wider = Affine { geometry: Geometry { windows: vec![], ..next.geometry.clone() }, ..next };
    assert!(one.with_rows_of(&wider, channels(&both)).is_none());
}
