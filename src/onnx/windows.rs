//! The sliding windows of convolutions, pools and their transposes, as the attributes that they
//! share describe them: `kernel_shape`, `strides`, `dilations`, `pads`, `auto_pad`,
//! `ceil_mode`, `count_include_pad`, `output_padding` and `output_shape`.
//!
//! An empty list or string counts as left out, as in ONNX Runtime where the rank of the input
//! is not declared. What ONNX Runtime refuses is a fault here, and so is what engines interpret
//! differently.
//!
//! Knows attributes, and how many taps a kernel has; no operator, and no size of the input.

use std::iter;

use crate::onnx::node::attribute;
use crate::onnx::proto::{AttributeProto, NodeProto};

/// The windows that the attributes of a node describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowAttributes {
    /// One entry for each spatial axis, that is, for each axis after batch and channels.
    pub axes: Vec<WindowAxis>,
    /// What determines the padding.
    pub auto_pad: AutoPad,
    /// Whether a last window that ends beyond the padding counts (`ceil_mode`).
    pub rounds_up: bool,
    /// Whether means include the padding (`count_include_pad`).
    pub counts_pads: bool,
}

/// The windows along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowAxis {
    /// The number of elements of a window, at least 1; `None` if only the kernel determines it,
    /// and its size is unknown.
    pub taps: Option<i64>,
    /// The distance between consecutive windows, at least 1.
    pub stride: i64,
    /// The distance between consecutive elements of a window, at least 1.
    pub dilation: i64,
    /// The padding before and behind; zero if an [`AutoPad`] is set.
    pub pads: (i64, i64),
    /// The additional size of the output of a transpose: less than the larger of stride and
    /// dilation.
    pub output_padding: i64,
    /// The size of the output of a transpose, if `output_shape` gives it.
    pub output_size: Option<i64>,
}

/// The attribute `auto_pad`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    /// The padding is given by `pads`.
    NotSet,
    /// There is no padding.
    Valid,
    /// Padding such that there is a window for every stride of the input; if its total is odd,
    /// the extra element is at the end.
    SameUpper,
    /// The same, with the extra element at the beginning.
    SameLower,
}

/// The reason why attributes describe no windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowFault {
    /// The number of axes is unknown: there is neither a kernel nor a `kernel_shape`.
    NoKernel,
    /// `kernel_shape` differs from the shape of the kernel.
    OtherKernel,
    /// A list does not have one number for each axis, or has an impossible one; a flag is
    /// neither 0 nor 1; `auto_pad` is set beside pads, or is an unknown string.
    Numbers,
}

impl WindowAttributes {
    /// Reads the windows of `node`. If it has a kernel, `kernel` has the number of its taps
    /// along each spatial axis, `None` where unknown.
    ///
    /// # Errors
    /// Returns an error if no engine computes such windows.
    pub fn of(node: &NodeProto, kernel: Option<&[Option<i64>]>) -> Result<Self, WindowFault> {
        let taps = taps(node, kernel)?;
        let count = taps.len();
        let strides = per_axis(node, "strides", count, 1)?;
        let dilations = per_axis(node, "dilations", count, 1)?;
        let begins = per_axis(node, "pads", count.saturating_mul(2), 0)?;
        let ends = begins.clone().skip(count);
        let growths = per_axis(node, "output_padding", count, 0)?;
        let sizes = per_axis(node, "output_shape", count, 0)?;
        let has_sizes = list(node, "output_shape").is_some();
        let numbers = strides.zip(dilations).zip(begins.zip(ends)).zip(growths.zip(sizes));
        let axes = taps.into_iter().zip(numbers).map(
            |(taps, (((stride, dilation), pads), (output_padding, size)))| {
                let output_size = has_sizes.then_some(size);
                WindowAxis { taps, stride, dilation, pads, output_padding, output_size }
            },
        );
        let axes: Vec<WindowAxis> = axes.collect();
        let auto_pad = auto_pad(node).ok_or(WindowFault::Numbers)?;
        // A window of a pool must hold an element, because there is no largest one of none.
        let pads_less = |axis: &WindowAxis| {
            axis.taps.is_none_or(|taps| kernel.is_some() || axis.pads.0.max(axis.pads.1) < taps)
        };
        let is_possible = |axis: &WindowAxis| {
            axis.taps.is_none_or(|taps| taps >= 1)
                && pads_less(axis)
                && axis.output_padding < axis.stride.max(axis.dilation)
                && (auto_pad == AutoPad::NotSet || axis.pads == (0, 0))
        };
        if !axes.iter().all(is_possible) {
            return Err(WindowFault::Numbers);
        }
        // Engines differ in how they read other numbers.
        let flag = |name: &str| match attribute(node, name).map_or(0, AttributeProto::i) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WindowFault::Numbers),
        };
        let (rounds_up, counts_pads) = (flag("ceil_mode")?, flag("count_include_pad")?);
        Ok(WindowAttributes { axes, auto_pad, rounds_up, counts_pads })
    }

    /// Whether ONNX Runtime pads pools with these windows differently from the standard: as if
    /// no window had gaps. It computes no convolution with them.
    pub fn are_disputed(&self) -> bool {
        let has_gaps = |axis: &WindowAxis| axis.dilation != 1 && axis.taps != Some(1);
        self.auto_pad.is_same() && self.axes.iter().any(has_gaps)
    }
}

impl WindowAxis {
    /// Whether engines place windows with SAME padding differently, because it would be negative
    /// for some sizes: it is at least `extent − stride`. The standard pads by 0 then; ONNX Runtime
    /// crops by its half, rounded towards 0, so that of a total of −2 the first window begins at
    /// the second element.
    pub fn may_be_cropped(&self) -> bool {
        self.extent().is_some_and(|extent| extent.saturating_add(2) <= self.stride)
    }

    /// Returns the number of elements from the first of a window to its last, both included;
    /// `None` if the taps are unknown, or on overflow.
    pub fn extent(&self) -> Option<i64> {
        self.taps?.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)
    }
}

impl AutoPad {
    /// Whether the padding depends on the size of the input.
    pub fn is_same(self) -> bool {
        matches!(self, AutoPad::SameUpper | AutoPad::SameLower)
    }
}

/// Returns how `node` is padded; `None` if the attribute has an unknown value.
pub fn auto_pad(node: &NodeProto) -> Option<AutoPad> {
    match attribute(node, AUTO_PAD).map_or(&b""[..], |attribute| attribute.s()) {
        b"" | b"NOTSET" => Some(AutoPad::NotSet),
        b"VALID" => Some(AutoPad::Valid),
        b"SAME_UPPER" => Some(AutoPad::SameUpper),
        b"SAME_LOWER" => Some(AutoPad::SameLower),
        _ => None,
    }
}

/// Whether an attribute of the windows is larger than in any network: tract steps along pads of
/// 2³³ for minutes, even if the map has no elements and the result is empty.
pub fn are_boundless(node: &NodeProto) -> bool {
    let numbers = LISTS.iter().filter_map(|name| list(node, name)).flatten();
    numbers.into_iter().any(|number| number.unsigned_abs() > MOST)
}

/// Returns the attribute `kernel_shape`, unless it is empty.
pub fn kernel_shape(node: &NodeProto) -> Option<&[i64]> {
    list(node, KERNEL_SHAPE)
}

/// Whether an attribute of windows is present but counts as left out.
pub fn is_left_out(attribute: &AttributeProto) -> bool {
    match attribute.name() {
        AUTO_PAD => attribute.s().is_empty(),
        name if LISTS.contains(&name) => attribute.ints.is_empty(),
        _ => false,
    }
}

const AUTO_PAD: &str = "auto_pad";
const KERNEL_SHAPE: &str = "kernel_shape";
const LISTS: [&str; 6] =
    [KERNEL_SHAPE, "strides", "dilations", "pads", "output_padding", "output_shape"];

/// Upper bound on the numbers in the lists: no network has larger windows, or pads more.
const MOST: u64 = 1 << 20;

fn list<'n>(node: &'n NodeProto, name: &str) -> Option<&'n [i64]> {
    let list = attribute(node, name)?.ints.as_slice();
    (!list.is_empty()).then_some(list)
}

/// Returns the attribute `name` as `count` numbers, each at least `least`, which is also the
/// default.
fn per_axis<'n>(
    node: &'n NodeProto,
    name: &str,
    count: usize,
    least: i64,
) -> Result<impl Iterator<Item = i64> + Clone + use<'n>, WindowFault> {
    let list = list(node, name);
    if list.is_some_and(|list| list.len() != count || list.iter().any(|&own| own < least)) {
        return Err(WindowFault::Numbers);
    }
    Ok(list.unwrap_or_default().iter().copied().chain(iter::repeat(least)).take(count))
}

/// Returns the taps along each axis, from the kernel or from `kernel_shape`.
fn taps(node: &NodeProto, kernel: Option<&[Option<i64>]>) -> Result<Vec<Option<i64>>, WindowFault> {
    match (kernel, kernel_shape(node)) {
        (None, None) => Err(WindowFault::NoKernel),
        (Some(own), None) => Ok(own.to_vec()),
        (None, Some(said)) => Ok(said.iter().copied().map(Some).collect()),
        (Some(own), Some(said)) => {
            let is_said = |(own, said): (&Option<i64>, &i64)| own.is_none_or(|own| own == *said);
            let fits = own.len() == said.len() && own.iter().zip(said).all(is_said);
            let said = said.iter().copied().map(Some).collect();
            if fits { Ok(said) } else { Err(WindowFault::OtherKernel) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::write::{int, ints, node, string};

    const PLAIN: WindowAxis = WindowAxis {
        taps: Some(3),
        stride: 1,
        dilation: 1,
        pads: (0, 0),
        output_padding: 0,
        output_size: None,
    };

    fn read(attributes: Vec<AttributeProto>) -> Result<WindowAttributes, WindowFault> {
        WindowAttributes::of(&node("Conv", "", &["x"], "y", attributes), Some(&[Some(3), None]))
    }

    /// What ONNX Runtime 1.32 accepts is read in the same way here.
    #[test]
    fn attributes_are_what_onnx_says() {
        let open = WindowAxis { taps: None, ..PLAIN };
        let cases: Vec<(Vec<AttributeProto>, [WindowAxis; 2])> = vec![
            (vec![], [PLAIN, open]),
            (vec![ints("strides", vec![])], [PLAIN, open]),
            (vec![ints("kernel_shape", vec![])], [PLAIN, open]),
            (vec![ints("output_shape", vec![])], [PLAIN, open]),
            (
                vec![ints("kernel_shape", vec![3, 2])],
                [PLAIN, WindowAxis { taps: Some(2), ..PLAIN }],
            ),
            (
                vec![string("auto_pad", ""), ints("pads", vec![1, 2, 3, 4])],
                [WindowAxis { pads: (1, 3), ..PLAIN }, WindowAxis { pads: (2, 4), ..open }],
            ),
            (
                vec![ints("strides", vec![2, 1]), ints("output_padding", vec![1, 0])],
                [WindowAxis { stride: 2, output_padding: 1, ..PLAIN }, open],
            ),
            (
                vec![ints("output_shape", vec![0, 9])],
                [0, 9].map(|size| WindowAxis {
                    taps: if size == 0 { Some(3) } else { None },
                    output_size: Some(size),
                    ..PLAIN
                }),
            ),
        ];
        for (attributes, expected) in cases {
            let found = read(attributes.clone()).map(|windows| windows.axes);
            assert_eq!(found, Ok(expected.to_vec()), "{attributes:?}");
        }
        assert_eq!(
            WindowAttributes::of(&node("Conv", "", &["x"], "y", vec![]), None),
            Err(WindowFault::NoKernel)
        );
        assert_eq!(
            read(vec![ints("dilations", vec![i64::MAX; 2])]).unwrap().axes[0].extent(),
            None
        );
    }

    /// What ONNX Runtime 1.32 refuses is a fault here.
    #[test]
    fn what_no_engine_computes_is_a_fault() {
        let lists: &[(&str, &[i64])] = &[
            ("kernel_shape", &[3, 0]),
            ("kernel_shape", &[3, -2]),
            ("strides", &[2]),
            ("strides", &[2, 2, 2]),
            ("strides", &[1, 0]),
            ("dilations", &[1, -1]),
            ("dilations", &[0, 1]),
            ("pads", &[1, 1]),
            ("pads", &[3, 0, -3, 0]),
            ("output_padding", &[1, 0]),
            ("output_padding", &[-1, 0]),
            ("output_shape", &[1, 6, 9, 9]),
            ("output_shape", &[9, -1]),
        ];
        for (name, list) in lists {
            let found = read(vec![ints(name, list.to_vec())]);
            assert_eq!(found, Err(WindowFault::Numbers), "{name} {list:?}");
        }
        let padded = |pads: i64| {
            let attributes = vec![ints("kernel_shape", vec![2]), ints("pads", vec![pads, 0])];
            WindowAttributes::of(&node("MaxPool", "", &["x"], "y", attributes), None)
        };
        assert_eq!(padded(1).map(|windows| windows.axes.len()), Ok(1));
        assert_eq!(padded(2), Err(WindowFault::Numbers));
        for list in [vec![2, 3], vec![3], vec![3, 3, 3]] {
            assert_eq!(read(vec![ints("kernel_shape", list)]), Err(WindowFault::OtherKernel));
        }
        for word in ["VALID", "SAME_UPPER", "same_upper"] {
            let found = read(vec![string("auto_pad", word), ints("pads", vec![1; 4])]);
            assert_eq!(found, Err(WindowFault::Numbers), "{word}");
        }
    }

    #[test]
    fn flags_are_yes_or_no() {
        for (number, expected) in [(0, Some(false)), (1, Some(true)), (2, None), (-1, None)] {
            let rounds_up = read(vec![int("ceil_mode", number)]).map(|windows| windows.rounds_up);
            let counts = read(vec![int("count_include_pad", number)]);
            let counts = counts.map(|windows| windows.counts_pads);
            assert_eq!((rounds_up.ok(), counts.ok()), (expected, expected), "{number}");
        }
    }
}
