//! What nodes compute, straight from the ONNX specification and without an engine:
//! the judge of whether a mutant is one.
use std::collections::HashMap;

use acb_fuse::numbers;
use acb_fuse::onnx::proto::NodeProto;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor::{self, Float};
use acb_fuse::verify::proof::Side;
use ndarray::{ArrayD, Axis, Ix2, IxDyn, concatenate};

type Answer = Result<ArrayD<f64>, String>;

/// What `side` makes of its roots.
pub fn run(side: &Side, roots: &[(String, ArrayD<f64>)]) -> Answer {
    let mut floats: HashMap<String, ArrayD<f64>> = roots.iter().cloned().collect();
    let mut integers: HashMap<String, Vec<i64>> = HashMap::new();
    for constant in &side.constants {
        let (name, storage) = (constant.name().to_owned(), Storage::default());
        let tensor = &constant.header;
        if let Some(numbers) = &constant.numbers {
            let dims: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
            let values = ArrayD::from_shape_vec(dims, numbers::all(&**numbers)).unwrap();
            floats.insert(name, values);
            continue;
        }
        match Float::from_onnx(tensor.data_type()) {
            Some(_) => drop(floats.insert(name, tensor::floats(tensor, &storage).unwrap())),
            None => drop(integers.insert(name, tensor::integers(tensor, &storage).unwrap())),
        }
    }
    let mut last = Err("there are no nodes".to_owned());
    for node in &side.nodes {
        let result = Node { node, floats: &floats, integers: &integers }.run()?;
        floats.insert(node.output[0].clone(), result.clone());
        last = Ok(result);
    }
    last
}

struct Node<'n> {
    node: &'n NodeProto,
    floats: &'n HashMap<String, ArrayD<f64>>,
    integers: &'n HashMap<String, Vec<i64>>,
}

impl Node<'_> {
    fn run(&self) -> Answer {
        let x = self.float(0)?;
        match self.node.op_type() {
            "Conv" => self.conv(x),
            "ConvTranspose" => self.conv_transpose(x),
            "Add" => broadcast(x, self.float(1)?, |a, b| a + b),
            "Sub" => broadcast(x, self.float(1)?, |a, b| a - b),
            "Mul" => broadcast(x, self.float(1)?, |a, b| a * b),
            "Div" => broadcast(x, self.float(1)?, |a, b| a / b),
            "Identity" => Ok(x.clone()),
            "MatMul" => product(x, self.float(1)?),
            "Gemm" => {
                let turned = self.float(1)?.t().to_owned();
                let result = product(x, &turned)?;
                match self.float(2) {
                    Ok(bias) => broadcast(&result, bias, |a, b| a + b),
                    Err(_) => Ok(result),
                }
            }
            "Transpose" => {
                let perm: Vec<usize> = self.list("perm", 0)?.iter().map(|&p| p as usize).collect();
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                match sorted.into_iter().eq(0..x.ndim()) {
                    true => Ok(x.view().permuted_axes(perm).as_standard_layout().into_owned()),
                    false => Err("the permutation is none".into()),
                }
            }
            "Slice" => self.slice(x),
            "Pad" => self.pad(x),
            "BatchNormalization" => self.norm(x),
            "Concat" => {
                let parts: Vec<_> = (0..self.node.input.len())
                    .map(|index| self.float(index).map(|part| part.view()))
                    .collect::<Result<_, _>>()?;
                let axis = self.attribute("axis").map_or(0, |axis| axis.i());
                concatenate(Axis(axis as usize), &parts).map_err(|error| error.to_string())
            }
            other => panic!("{other} stands among the nodes: teach it to this judge"),
        }
    }

    fn float(&self, index: usize) -> Result<&ArrayD<f64>, String> {
        let name = self.node.input.get(index).ok_or("an input is left out")?;
        self.floats.get(name).ok_or_else(|| format!("nothing makes {name}"))
    }

    fn attribute(&self, name: &str) -> Option<&acb_fuse::onnx::proto::AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name() == name)
    }

    /// A list, which newer operator sets take as input number `index`.
    fn list(&self, name: &str, index: usize) -> Result<Vec<i64>, String> {
        match (self.attribute(name), self.node.input.get(index)) {
            (Some(attribute), _) => Ok(attribute.ints.clone()),
            (None, Some(input)) => {
                self.integers.get(input).cloned().ok_or_else(|| format!("{input} is no list"))
            }
            _ => Err(format!("there are no {name}")),
        }
    }

    fn conv(&self, x: &ArrayD<f64>) -> Answer {
        let (w, geometry) = (self.float(1)?, self.geometry(x)?);
        let (outputs, width) = (w.shape()[0], w.shape()[1]);
        let groups = geometry.groups;
        if x.shape()[1] != width * groups || !outputs.is_multiple_of(groups) {
            return Err("channels do not fit".into());
        }
        let sizes = geometry.each_axis(|g, axis| {
            let extent = (g.taps[axis] - 1) * g.dilations[axis] + 1;
            (g.sizes[axis] + g.pads[axis] + g.pads[axis + g.axes()] - extent)
                .div_euclid(g.strides[axis])
                + 1
        })?;
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

    /// The same with the input's role and the output's exchanged.
    fn conv_transpose(&self, x: &ArrayD<f64>) -> Answer {
        let (w, geometry) = (self.float(1)?, self.geometry(x)?);
        let (inputs, width, groups) = (w.shape()[0], w.shape()[1], geometry.groups);
        if x.shape()[1] != inputs || !inputs.is_multiple_of(groups) {
            return Err("channels do not fit".into());
        }
        let growth = self.attribute("output_padding").map(|growth| growth.ints.clone());
        let growth = growth.unwrap_or_else(|| vec![0; geometry.axes()]);
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
        // Of a convolution that reads the output and makes the input.
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

    fn shifted(&self, mut y: Vec<f64>, outputs: usize, sizes: &[i64]) -> Answer {
        if self.node.input.len() > 2 {
            let bias = flat(self.float(2)?);
            if bias.len() != outputs {
                return Err("the bias does not fit".into());
            }
            for (channel, values) in y.chunks_mut(product_of(sizes)).enumerate() {
                values.iter_mut().for_each(|value| *value += bias[channel]);
            }
        }
        let shape: Vec<usize> =
            [1, outputs].into_iter().chain(sizes.iter().map(|&size| size as usize)).collect();
        ArrayD::from_shape_vec(IxDyn(&shape), y).map_err(|error| error.to_string())
    }

    fn geometry(&self, x: &ArrayD<f64>) -> Result<Geometry, String> {
        let list = |name: &str, default: i64, length: usize| {
            let found = self.attribute(name).map(|attribute| attribute.ints.clone());
            found.unwrap_or_else(|| vec![default; length])
        };
        let sizes = |array: &ArrayD<f64>| -> Vec<i64> {
            array.shape().iter().skip(2).map(|&size| size as i64).collect()
        };
        let (sizes, taps) = (sizes(x), sizes(self.float(1)?));
        let axes = taps.len();
        let geometry = Geometry {
            strides: list("strides", 1, axes),
            dilations: list("dilations", 1, axes),
            pads: list("pads", 0, 2 * axes),
            groups: self.attribute("group").map_or(1, |group| group.i() as usize),
            sizes,
            taps,
        };
        let fits = geometry.sizes.len() == axes && x.shape()[0] == 1 && geometry.groups > 0;
        let positive = |list: &[i64]| list.iter().all(|&value| value > 0);
        match fits && positive(&geometry.strides) && positive(&geometry.dilations) {
            true => Ok(geometry),
            false => Err("there is no such convolution".into()),
        }
    }

    fn norm(&self, x: &ArrayD<f64>) -> Answer {
        let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|index| self.float(index).map(flat));
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        let epsilon = self.attribute("epsilon").map_or(1e-5, |epsilon| f64::from(epsilon.f()));
        let mut y = x.clone();
        for (j, mut channel) in y.axis_iter_mut(Axis(1)).enumerate() {
            let sigma = (variance[j] + epsilon).sqrt();
            channel.mapv_inplace(|x| (x - mean[j]) / sigma * gamma[j] + beta[j]);
        }
        Ok(y)
    }

    fn slice(&self, x: &ArrayD<f64>) -> Answer {
        let (starts, ends) = (self.list("starts", 1)?, self.list("ends", 2)?);
        let axes = self.list("axes", 3)?;
        let mut result = x.clone();
        for ((&axis, &start), &end) in axes.iter().zip(&starts).zip(&ends) {
            let size = result.shape()[axis as usize] as i64;
            let place =
                |bound: i64| if bound < 0 { (size + bound).max(0) } else { bound.min(size) };
            let kept: Vec<_> = (place(start)..place(end)).map(Some).collect();
            result = taken(&result, axis as usize, &kept);
        }
        Ok(result)
    }

    fn pad(&self, x: &ArrayD<f64>) -> Answer {
        let pads = self.list("pads", 1)?;
        let mode = self.attribute("mode").map_or(&b"constant"[..], |mode| mode.s());
        let mut result = x.clone();
        for axis in 0..x.ndim() {
            let size = x.shape()[axis] as i64;
            let place = |at: i64| match mode {
                b"constant" => (0..size).contains(&at).then_some(at),
                b"edge" => Some(at.clamp(0, size - 1)),
                b"wrap" => Some(at.rem_euclid(size)),
                b"reflect" => {
                    let turned = at.rem_euclid((2 * size - 2).max(1));
                    Some(turned.min(2 * size - 2 - turned).max(0))
                }
                other => panic!("Pad has no mode {other:?}"),
            };
            let kept: Vec<_> = (-pads[axis]..size + pads[axis + x.ndim()]).map(place).collect();
            result = taken(&result, axis, &kept);
        }
        Ok(result)
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

    fn each_axis(&self, size: impl Fn(&Self, usize) -> i64) -> Result<Vec<i64>, String> {
        let sizes: Vec<i64> = (0..self.axes()).map(|axis| size(self, axis)).collect();
        match sizes.iter().all(|&size| size > 0) {
            true => Ok(sizes),
            false => Err("nothing comes out".into()),
        }
    }

    /// Every output, tap and input, by flat position, that meet.
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

/// The elements at `places` along `axis`; zeros where there is none.
fn taken(x: &ArrayD<f64>, axis: usize, places: &[Option<i64>]) -> ArrayD<f64> {
    let mut shape = x.shape().to_vec();
    shape[axis] = places.len();
    let mut result = ArrayD::zeros(IxDyn(&shape));
    for (to, from) in places.iter().enumerate() {
        if let Some(from) = from {
            let lane = x.index_axis(Axis(axis), *from as usize);
            result.index_axis_mut(Axis(axis), to).assign(&lane);
        }
    }
    result
}

fn broadcast(a: &ArrayD<f64>, b: &ArrayD<f64>, op: fn(f64, f64) -> f64) -> Answer {
    let rank = a.ndim().max(b.ndim());
    let aligned = |array: &ArrayD<f64>| {
        let mut shape = vec![1; rank - array.ndim()];
        shape.extend(array.shape());
        array.to_shape(shape).expect("ones change no count").into_owned()
    };
    let (a, b) = (aligned(a), aligned(b));
    let size = |(&a, &b): (&usize, &usize)| (a == b || a == 1 || b == 1).then_some(a.max(b));
    let shape: Option<Vec<usize>> = a.shape().iter().zip(b.shape()).map(size).collect();
    let shape = shape.ok_or("the operands do not fit")?;
    let (a, b) = (a.broadcast(shape.clone()), b.broadcast(shape));
    let (a, b) = (a.ok_or("left")?, b.ok_or("right")?);
    let mut result = a.to_owned();
    result.zip_mut_with(&b, |a, &b| *a = op(*a, b));
    Ok(result)
}

/// Of the last axis of `x` and a matrix.
fn product(x: &ArrayD<f64>, matrix: &ArrayD<f64>) -> Answer {
    let matrix = matrix.view().into_dimensionality::<Ix2>().map_err(|error| error.to_string())?;
    let width = x.shape().last().copied().unwrap_or(0);
    if width != matrix.nrows() {
        return Err("the matrix does not fit".into());
    }
    let rows = x.to_shape((x.len() / width.max(1), width)).map_err(|error| error.to_string())?;
    let mut shape = x.shape().to_vec();
    *shape.last_mut().ok_or("a number is no vector")? = matrix.ncols();
    let result = rows.dot(&matrix);
    result.into_shape_with_order(IxDyn(&shape)).map_err(|error| error.to_string())
}
