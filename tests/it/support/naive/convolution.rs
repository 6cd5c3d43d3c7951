//! Operators with windows: convolutions and pools, tap by tap.

use ndarray::{ArrayD, IxDyn};

use super::Stop;
use super::node::Node;

impl Node<'_> {
    pub(super) fn conv(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let (w, geometry) = (self.float(1)?, self.geometry(x)?);
        let (outputs, width) = (w.shape()[0], w.shape()[1]);
        let groups = geometry.groups;
        if x.shape()[1] != width * groups || !outputs.is_multiple_of(groups) {
            return Err("channels do not fit".into());
        }
        let sizes = geometry.outputs()?;
        let mut y = vec![0.0; outputs * product_of(&sizes)];
        let (xs, ws) = (flat(x), flat(w));
        let (area, taps) = (product_of(&geometry.sizes), product_of(&geometry.taps));
        let made = product_of(&sizes);
        geometry.for_each_pair(&sizes, |out, tap, input| {
            for o in 0..outputs {
                let first = o / (outputs / groups) * width;
                for i in 0..width {
                    y[o * made + out] +=
                        ws[(o * width + i) * taps + tap] * xs[(first + i) * area + input];
                }
            }
        });
        self.shifted(y, outputs, &sizes)
    }

    /// Computes a convolution in which the roles of the input and the output are exchanged.
    pub(super) fn conv_transpose(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let (w, geometry) = (self.float(1)?, self.geometry(x)?);
        let (inputs, width, groups) = (w.shape()[0], w.shape()[1], geometry.groups);
        if x.shape()[1] != inputs || !inputs.is_multiple_of(groups) {
            return Err("channels do not fit".into());
        }
        let is_same = self.text("auto_pad", "NOTSET").starts_with("SAME");
        if is_same || self.attribute("output_shape").is_some() {
            return Err(Stop::Unknown("a ConvTranspose of a given size".into()));
        }
        let growth = self.list_of_axes("output_padding", 0, geometry.axes());
        let sizes = geometry.each_axis(|g, axis| {
            (g.sizes[axis] - 1) * g.strides[axis] + (g.taps[axis] - 1) * g.dilations[axis] + 1
                - g.pads[axis]
                - g.pads[axis + g.axes()]
                + growth[axis]
        })?;
        let outputs = width * groups;
        let mut y = vec![0.0; outputs * product_of(&sizes)];
        let (xs, ws) = (flat(x), flat(w));
        let (area, taps) = (product_of(&geometry.sizes), product_of(&geometry.taps));
        let made = product_of(&sizes);
        // The convolution that reads the output and makes the input.
        let mirrored = Geometry { sizes: sizes.clone(), ..geometry.clone() };
        mirrored.for_each_pair(&geometry.sizes, |input, tap, out| {
            for i in 0..inputs {
                let first = i / (inputs / groups) * width;
                for o in 0..width {
                    y[(first + o) * made + out] +=
                        ws[(i * width + o) * taps + tap] * xs[i * area + input];
                }
            }
        });
        self.shifted(y, outputs, &sizes)
    }

    /// Adds the bias, if there is one, and gives the result its shape.
    fn shifted(&self, mut y: Vec<f64>, outputs: usize, sizes: &[i64]) -> Result<ArrayD<f64>, Stop> {
        if self.has(2) {
            let bias = flat(self.float(2)?);
            if bias.len() != outputs {
                return Err("the bias does not fit".into());
            }
            for (channel, values) in y.chunks_mut(product_of(sizes)).enumerate() {
                values.iter_mut().for_each(|value| *value += bias[channel]);
            }
        }
        shaped(y, outputs, sizes)
    }

    fn geometry(&self, x: &ArrayD<f64>) -> Result<Geometry, Stop> {
        let taps = self.float(1)?.shape().iter().skip(2).map(|&size| size as i64).collect();
        self.geometry_of(x, taps)
    }

    fn geometry_of(&self, x: &ArrayD<f64>, taps: Vec<i64>) -> Result<Geometry, Stop> {
        let axes = taps.len();
        let list = |name: &str, default, length| self.list_of_axes(name, default, length);
        let sizes: Vec<i64> = x.shape().iter().skip(2).map(|&size| size as i64).collect();
        let mut geometry = Geometry {
            strides: list("strides", 1, axes),
            dilations: list("dilations", 1, axes),
            pads: list("pads", 0, 2 * axes),
            groups: self.int("group", 1) as usize,
            sizes,
            taps,
        };
        if geometry.sizes.len() != axes {
            return Err(Stop::Unknown("windows of other axes than what they slide over".into()));
        }
        let fits = x.shape()[0] == 1 && geometry.groups > 0;
        let positive = |list: &[i64]| list.iter().all(|&value| value > 0);
        if !fits || !positive(&geometry.strides) || !positive(&geometry.dilations) {
            return Err("there is no such convolution".into());
        }
        geometry.pads = match self.text("auto_pad", "NOTSET") {
            "" | "NOTSET" => geometry.pads,
            "VALID" => vec![0; 2 * axes],
            upper_or_lower => geometry.same(upper_or_lower == "SAME_UPPER"),
        };
        Ok(geometry)
    }

    /// Returns a list of integers, or the default for each axis if it is missing or empty.
    fn list_of_axes(&self, name: &str, default: i64, length: usize) -> Vec<i64> {
        self.ints(name).filter(|list| !list.is_empty()).unwrap_or_else(|| vec![default; length])
    }

    /// Computes means or maxima over windows of the input. What falls outside the input is left out
    /// of a maximum, and counts as 0 in a mean only if `count_include_pad` is set.
    pub(super) fn pool(&self, x: &ArrayD<f64>, is_mean: bool) -> Result<ArrayD<f64>, Stop> {
        let taps = self.ints("kernel_shape").ok_or("there is no kernel_shape")?;
        let geometry = self.geometry_of(x, taps)?;
        let counts_pads = self.int("count_include_pad", 0) != 0;
        let rounds_up = self.int("ceil_mode", 0) == 1;
        if rounds_up && (counts_pads || geometry.pads.iter().any(|&pad| pad != 0)) {
            return Err(Stop::Unknown("a pool with pads and ceil_mode".into()));
        }
        let sizes = if rounds_up { geometry.outputs_begun()? } else { geometry.outputs()? };
        let (area, made) = (product_of(&geometry.sizes), product_of(&sizes));
        let channels = x.shape()[1];
        let empty = if is_mean { 0.0 } else { f64::NEG_INFINITY };
        let (mut y, mut met) = (vec![empty; channels * made], vec![0; made]);
        let xs = flat(x);
        geometry.for_each_pair(&sizes, |out, _, input| {
            met[out] += 1;
            for channel in 0..channels {
                let (value, place) = (xs[channel * area + input], &mut y[channel * made + out]);
                *place = if is_mean { *place + value } else { place.max(value) };
            }
        });
        let all = product_of(&geometry.taps);
        if is_mean {
            for (at, value) in y.iter_mut().enumerate() {
                *value /= if counts_pads { all } else { met[at % made] } as f64;
            }
        }
        shaped(y, channels, &sizes)
    }
}

#[derive(Clone)]
struct Geometry {
    sizes: Vec<i64>,
    taps: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    groups: usize,
}

impl Geometry {
    fn axes(&self) -> usize {
        self.taps.len()
    }

    fn each_axis(&self, size: impl Fn(&Self, usize) -> i64) -> Result<Vec<i64>, Stop> {
        let sizes: Vec<i64> = (0..self.axes()).map(|axis| size(self, axis)).collect();
        if sizes.iter().all(|&size| size > 0) { Ok(sizes) } else { Err("nothing comes out".into()) }
    }

    /// Returns the pads with which there is an output for every stride of the input; if their sum
    /// is odd, the larger one is behind (`upper`) or in front.
    fn same(&self, upper: bool) -> Vec<i64> {
        let pads = (0..self.axes()).map(|axis| {
            let outputs = (self.sizes[axis] + self.strides[axis] - 1) / self.strides[axis];
            let extent = (self.taps[axis] - 1) * self.dilations[axis] + 1;
            let all = ((outputs - 1) * self.strides[axis] + extent - self.sizes[axis]).max(0);
            if upper { (all / 2, all - all / 2) } else { (all - all / 2, all / 2) }
        });
        let (begins, ends): (Vec<i64>, Vec<i64>) = pads.unzip();
        [begins, ends].concat()
    }

    fn outputs(&self) -> Result<Vec<i64>, Stop> {
        self.each_axis(|g, axis| {
            let extent = (g.taps[axis] - 1) * g.dilations[axis] + 1;
            (g.sizes[axis] + g.pads[axis] + g.pads[axis + g.axes()] - extent)
                .div_euclid(g.strides[axis])
                + 1
        })
    }

    /// Returns the sizes in `ceil_mode`: windows count that begin inside an input without pads,
    /// whether they end there or not.
    fn outputs_begun(&self) -> Result<Vec<i64>, Stop> {
        self.each_axis(|g, axis| {
            let extent = (g.taps[axis] - 1) * g.dilations[axis] + 1;
            let way = g.sizes[axis] - extent;
            let rounded_up = (way + g.strides[axis] - 1).div_euclid(g.strides[axis]) + 1;
            let begun = (g.sizes[axis] - 1).div_euclid(g.strides[axis]) + 1;
            rounded_up.min(begun)
        })
    }

    /// Visits every output, tap and input, by flat position, that meet.
    fn for_each_pair(&self, outputs: &[i64], mut visit: impl FnMut(usize, usize, usize)) {
        let taps: Vec<_> =
            (0..product_of(&self.taps)).map(|tap| unravelled(tap, &self.taps)).collect();
        for out in 0..product_of(outputs) {
            let at = unravelled(out, outputs);
            for (tap, tap_at) in taps.iter().enumerate() {
                let mut input = Some(0i64);
                for axis in 0..self.axes() {
                    let position = at[axis] * self.strides[axis] - self.pads[axis]
                        + tap_at[axis] * self.dilations[axis];
                    let inside = (0..self.sizes[axis]).contains(&position);
                    input = input.filter(|_| inside).map(|sum| sum * self.sizes[axis] + position);
                }
                if let Some(input) = input {
                    visit(out, tap, input as usize);
                }
            }
        }
    }
}

fn unravelled(mut flat: usize, sizes: &[i64]) -> [i64; 3] {
    let mut at = [0; 3];
    for axis in (0..sizes.len()).rev() {
        at[axis] = (flat % sizes[axis] as usize) as i64;
        flat /= sizes[axis] as usize;
    }
    at
}

fn product_of(sizes: &[i64]) -> usize {
    sizes.iter().product::<i64>() as usize
}

fn flat(array: &ArrayD<f64>) -> Vec<f64> {
    array.iter().copied().collect()
}

fn shaped(y: Vec<f64>, channels: usize, sizes: &[i64]) -> Result<ArrayD<f64>, Stop> {
    let sizes = sizes.iter().map(|&size| size as usize);
    let shape: Vec<usize> = [1, channels].into_iter().chain(sizes).collect();
    ArrayD::from_shape_vec(IxDyn(&shape), y).map_err(Stop::from)
}
