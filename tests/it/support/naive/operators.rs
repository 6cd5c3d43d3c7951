//! The choice of the operator, and operators that compute with single numbers.

use std::collections::BTreeMap;

use acb_fuse::engine::Array;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::AttributeProto;
use ndarray::{ArrayD, Axis, Ix2, IxDyn, concatenate};

use super::layout::{place, with_shape};
use super::node::Node;
use super::{Stop, stored};

impl Node<'_> {
    pub(super) fn run(&self) -> Result<Vec<Array>, Stop> {
        let operator = self.node.op_type();
        let one = match operator {
            "Constant" => self.constant()?,
            "Split" => return self.split(self.any(0)?),
            "BatchNormalization" => return self.norm(self.float(0)?),
            "Dropout" => return self.dropout(),
            "Identity" => self.any(0)?.clone(),
            "Cast" | "CastLike" => self.cast()?,
            "Shape" => self.shape()?,
            "ConstantOfShape" => self.constant_of_shape()?,
            "Where" => self.choice()?,
            "Transpose" => self.transpose(self.any(0)?)?,
            "Reshape" => self.reshape(self.any(0)?)?,
            "Flatten" => self.flatten(self.any(0)?)?,
            "Unsqueeze" => self.unsqueeze(self.any(0)?)?,
            "Squeeze" => self.squeeze(self.any(0)?)?,
            "Concat" => self.concat()?,
            "Slice" => self.slice(self.any(0)?)?,
            "Pad" => self.pad(self.any(0)?)?,
            "Gather" => self.gather(self.any(0)?)?,
            "Expand" => self.expand(self.any(0)?)?,
            "Resize" => self.resize(self.any(0)?, 2, ["half_pixel", "round_prefer_floor"])?,
            "Upsample" => self.resize(self.any(0)?, 1, ["asymmetric", "floor"])?,
            "Greater" => comparison(self.float(0)?, self.float(1)?, |a, b| a > b)?,
            "Less" => comparison(self.float(0)?, self.float(1)?, |a, b| a < b)?,
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic()?,
            _ => Array::Float(self.of_floats(self.float(0)?)?),
        };
        Ok(vec![one])
    }

    fn of_floats(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        match self.node.op_type() {
            "Conv" => self.per_batch(x, |x| self.conv(x)),
            "ConvTranspose" => self.per_batch(x, |x| self.conv_transpose(x)),
            "AveragePool" => self.per_batch(x, |x| self.pool(x, true)),
            "MaxPool" => self.per_batch(x, |x| self.pool(x, false)),
            "GlobalAveragePool" => Ok(reduced(x, &(2..x.ndim()).collect::<Vec<_>>(), mean)),
            "DepthToSpace" => self.depth_to_space(x),
            "SpaceToDepth" => self.space_to_depth(x),
            "Sum" => self.folded(|a, b| a + b),
            "Max" => self.folded(f64::max),
            "Min" => self.folded(f64::min),
            "Mean" => Ok(self.folded(|a, b| a + b)? / self.node.input.len() as f64),
            "Clip" => self.clip(x),
            "PRelu" => broadcast(x, self.float(1)?, |x, slope| if x < 0.0 { slope * x } else { x }),
            "Tile" => self.tile(x),
            "Pow" => broadcast(x, self.float(1)?, f64::powf),
            "Neg" => Ok(x.mapv(|x| -x)),
            "Abs" => Ok(x.mapv(f64::abs)),
            "Sqrt" => Ok(x.mapv(f64::sqrt)),
            "Exp" => Ok(x.mapv(f64::exp)),
            "Reciprocal" => Ok(x.mapv(f64::recip)),
            "Relu" => Ok(x.mapv(|x| x.max(0.0))),
            "LeakyRelu" => {
                let slope = self.attribute("alpha").map_or(0.01, |alpha| f64::from(alpha.f()));
                Ok(x.mapv(|x| if x < 0.0 { slope * x } else { x }))
            }
            "Sigmoid" => Ok(x.mapv(|x| 1.0 / (1.0 + (-x).exp()))),
            "Tanh" => Ok(x.mapv(f64::tanh)),
            "MatMul" => product(x, self.float(1)?),
            "Gemm" => self.gemm(x),
            "Einsum" => self.einsum(),
            "ScatterND" => self.scatter_nd(x),
            "ReduceSum" => self.reduction(x, |values| values.iter().sum()),
            "ReduceSumSquare" => self.reduction(x, sum_of_squares),
            "ReduceL2" => self.reduction(x, |values| sum_of_squares(values).sqrt()),
            "ReduceMean" => self.reduction(x, mean),
            "ReduceMax" => {
                self.reduction(x, |values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
            }
            other => Err(Stop::Unknown(other.to_owned())),
        }
    }

    /// Computes Add, Sub, Mul or Div; integers divide towards zero.
    fn arithmetic(&self) -> Result<Array, Stop> {
        let operator = self.node.op_type();
        // Before operator set 7, the second operand may begin at a given axis.
        let mut second = self.any(1)?.clone();
        if let Some(axis) = self.attribute("axis").map(AttributeProto::i) {
            let rank = self.any(0)?.shape().len();
            let behind = rank - place(axis, rank) - second.shape().len();
            let shape = second.shape().iter().copied().chain(vec![1; behind]).collect();
            second = with_shape(&second, shape)?;
        }
        Ok(match (self.any(0)?, &second) {
            (Array::Float(a), Array::Float(b)) => Array::Float(match operator {
                "Add" => broadcast(a, b, |a, b| a + b)?,
                "Sub" => broadcast(a, b, |a, b| a - b)?,
                "Mul" => broadcast(a, b, |a, b| a * b)?,
                _ => broadcast(a, b, |a, b| a / b)?,
            }),
            (Array::Int(a), Array::Int(b)) => Array::Int(match operator {
                "Add" => broadcast(a, b, |a, b| a + b)?,
                "Sub" => broadcast(a, b, |a, b| a - b)?,
                "Mul" => broadcast(a, b, |a, b| a * b)?,
                _ if b.iter().any(|&b| b == 0) => return Err("a division by zero".into()),
                _ => broadcast(a, b, |a, b| a / b)?,
            }),
            _ => return Err("operands of two types".into()),
        })
    }

    fn per_batch(
        &self,
        x: &ArrayD<f64>,
        make: impl Fn(&ArrayD<f64>) -> Result<ArrayD<f64>, Stop>,
    ) -> Result<ArrayD<f64>, Stop> {
        let elements = x.axis_chunks_iter(Axis(0), 1).map(|element| make(&element.to_owned()));
        let made: Vec<ArrayD<f64>> = elements.collect::<Result<_, _>>()?;
        let views: Vec<_> = made.iter().map(|part| part.view()).collect();
        concatenate(Axis(0), &views).map_err(Stop::from)
    }

    fn folded(&self, with: fn(f64, f64) -> f64) -> Result<ArrayD<f64>, Stop> {
        (1..self.node.input.len()).try_fold(self.float(0)?.clone(), |sum, index| {
            broadcast(&sum, self.float(index)?, with)
        })
    }

    fn clip(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let bound = |name: &str, input: usize, without: f64| {
            if self.node.input.get(input).is_some_and(|name| !name.is_empty()) {
                return Ok(self.float(input)?.iter().copied().next().unwrap_or(without));
            }
            Ok::<_, Stop>(self.attribute(name).map_or(without, |bound| f64::from(bound.f())))
        };
        let (least, most) = (bound("min", 1, f64::NEG_INFINITY)?, bound("max", 2, f64::INFINITY)?);
        Ok(x.mapv(|x| x.max(least).min(most)))
    }

    fn tile(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let times = self.list_if_any("repeats", 1)?.ok_or("there are no repeats")?;
        times.iter().enumerate().try_fold(x.clone(), |x, (axis, &times)| {
            concatenate(Axis(axis), &vec![x.view(); times as usize]).map_err(Stop::from)
        })
    }

    fn reduction(&self, x: &ArrayD<f64>, of: fn(&[f64]) -> f64) -> Result<ArrayD<f64>, Stop> {
        let axes = self.list_if_any("axes", 1)?.unwrap_or_default();
        if axes.is_empty() && self.int("noop_with_empty_axes", 0) != 0 {
            return Ok(x.clone());
        }
        let rank = x.ndim();
        let axes: Vec<usize> = if axes.is_empty() {
            (0..rank).collect()
        } else {
            axes.iter().map(|&axis| place(axis, rank)).collect()
        };
        let result = reduced(x, &axes, of);
        if self.int("keepdims", 1) != 0 {
            return Ok(result);
        }
        let kept: Vec<usize> =
            (0..rank).filter(|axis| !axes.contains(axis)).map(|axis| x.shape()[axis]).collect();
        result.into_shape_with_order(IxDyn(&kept)).map_err(Stop::from)
    }

    fn gemm(&self, x: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
        let turned = |x: &ArrayD<f64>, name: &str| {
            if self.int(name, 0) != 0 { x.t().as_standard_layout().into_owned() } else { x.clone() }
        };
        let (a, b) = (turned(x, "transA"), turned(self.float(1)?, "transB"));
        let result = product(&a, &b)?.mapv(|x| x * self.number("alpha", 1.0));
        if !self.has(2) {
            return Ok(result);
        }
        let bias = self.float(2)?.mapv(|x| x * self.number("beta", 1.0));
        broadcast(&result, &bias, |a, b| a + b)
    }

    /// Computes every term of the sum, one by one; an axis of one element is broadcast.
    fn einsum(&self) -> Result<ArrayD<f64>, Stop> {
        let equation = self.text("equation", "").replace(' ', "");
        let (read, made) = equation.split_once("->").unwrap_or((&equation, ""));
        if read.contains('.') {
            return Err(Stop::Unknown("an Einsum with an ellipsis".into()));
        }
        let operands: Vec<(&str, &ArrayD<f64>)> = read
            .split(',')
            .enumerate()
            .map(|(index, letters)| Ok((letters, self.float(index)?)))
            .collect::<Result<_, Stop>>()?;
        let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
        for (letters, operand) in &operands {
            for (letter, &size) in letters.chars().zip(operand.shape()) {
                let largest = sizes.entry(letter).or_insert(size);
                *largest = size.max(*largest);
            }
        }
        // If the equation names no output: the letters that occur once, in alphabetical order.
        let once = sizes.keys().filter(|&&letter| read.matches(letter).count() == 1);
        let made: String = if equation.contains("->") { made.to_owned() } else { once.collect() };
        let shape: Vec<usize> = made.chars().map(|letter| sizes[&letter]).collect();
        let mut result = ArrayD::zeros(shape);
        for flat in 0..sizes.values().product() {
            let (mut left, mut at) = (flat, BTreeMap::new());
            for (&letter, &size) in &sizes {
                at.insert(letter, left % size);
                left /= size;
            }
            let factors = operands.iter().map(|(letters, x)| {
                let along = letters.chars().zip(x.shape());
                x[along.map(|(letter, size)| at[&letter] % size).collect::<Vec<_>>().as_slice()]
            });
            let place: Vec<usize> = made.chars().map(|letter| at[&letter]).collect();
            result[place.as_slice()] += factors.product::<f64>();
        }
        Ok(result)
    }

    /// Computes a batch norm; in training mode, with the statistics of the batch. The other outputs
    /// are the running statistics.
    fn norm(&self, x: &ArrayD<f64>) -> Result<Vec<Array>, Stop> {
        let [gamma, beta, mean_of, variance_of] =
            [1, 2, 3, 4].map(|index| self.float(index).map(|list| list.iter().copied().collect()));
        let (gamma, beta): (Vec<f64>, Vec<f64>) = (gamma?, beta?);
        let (mut means, mut variances): (Vec<f64>, Vec<f64>) = (mean_of?, variance_of?);
        if x.ndim() < 2
            || [&gamma, &beta, &means, &variances].iter().any(|l| l.len() != x.shape()[1])
        {
            return Err("the channels do not fit".into());
        }
        let epsilon = self.number("epsilon", 1e-5);
        let momentum = self.number("momentum", 0.9);
        let trains = self.int("training_mode", 0) != 0;
        let mut y = x.clone();
        let (mut running_means, mut running_variances) = (means.clone(), variances.clone());
        for (j, mut channel) in y.axis_iter_mut(Axis(1)).enumerate() {
            if trains {
                let values: Vec<f64> = channel.iter().copied().collect();
                means[j] = mean(&values);
                let squares: Vec<f64> = values.iter().map(|x| (x - means[j]).powi(2)).collect();
                variances[j] = mean(&squares);
                let blend = |old: f64, new: f64| momentum * old + (1.0 - momentum) * new;
                running_means[j] = blend(running_means[j], means[j]);
                running_variances[j] = blend(running_variances[j], variances[j]);
            }
            let sigma = (variances[j] + epsilon).sqrt();
            channel.mapv_inplace(|x| (x - means[j]) / sigma * gamma[j] + beta[j]);
        }
        let list = |values: Vec<f64>| {
            Array::Float(ArrayD::from_shape_vec(vec![values.len()], values).unwrap())
        };
        Ok(vec![Array::Float(y), list(running_means), list(running_variances)])
    }

    /// Computes a Dropout that drops nothing, as at inference.
    fn dropout(&self) -> Result<Vec<Array>, Stop> {
        let trains = self.has(2) && self.integers(2)?.iter().any(|&value| value != 0);
        let drops = !self.has(1) || self.float(1)?.iter().any(|&ratio| ratio != 0.0);
        if trains && drops {
            return Err(Stop::Unknown("a Dropout in training mode".into()));
        }
        let x = self.any(0)?;
        Ok(vec![x.clone(), Array::Int(ArrayD::from_elem(x.shape(), 1))])
    }

    fn constant(&self) -> Result<Array, Stop> {
        let attribute = self.node.attribute.first().ok_or("a Constant without a value")?;
        let floats = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        let shaped = |shape: Vec<usize>, values| ArrayD::from_shape_vec(shape, values);
        Ok(match attribute.name() {
            "value" => stored(attribute.t.as_deref().ok_or("there is no tensor")?, self.storage),
            "value_float" => Array::Float(ArrayD::from_elem(vec![], f64::from(attribute.f()))),
            "value_int" => Array::Int(ArrayD::from_elem(vec![], attribute.i())),
            "value_floats" => {
                Array::Float(shaped(vec![attribute.floats.len()], floats(&attribute.floats))?)
            }
            "value_ints" => {
                let values = attribute.ints.clone();
                Array::Int(ArrayD::from_shape_vec(vec![values.len()], values)?)
            }
            other => return Err(Stop::Unknown(format!("a Constant's {other}"))),
        })
    }

    /// Computes a cast: float32 and float64 are the same here, and narrower types are rounded.
    fn cast(&self) -> Result<Array, Stop> {
        let like = || self.any(1).map(|like| if matches!(like, Array::Float(_)) { 1 } else { 7 });
        let to = match self.node.op_type() {
            "CastLike" => like()?,
            _ => self.int("to", 0) as i32,
        };
        Ok(match (self.any(0)?, Float::from_onnx(to)) {
            (Array::Float(x), Some(Float::F32 | Float::F64)) => Array::Float(x.clone()),
            (Array::Float(x), Some(float)) => Array::Float(x.mapv(|x| float.round(x))),
            (Array::Int(x), Some(_)) => Array::Float(x.mapv(|x| x as f64)),
            (Array::Float(x), None) if to == 9 => Array::Int(x.mapv(|x| i64::from(x != 0.0))),
            (Array::Int(x), None) if to == 9 => Array::Int(x.mapv(|x| i64::from(x != 0))),
            (Array::Float(x), None) => Array::Int(x.mapv(|x| x.trunc() as i64)),
            (Array::Int(x), None) => Array::Int(x.clone()),
        })
    }

    fn shape(&self) -> Result<Array, Stop> {
        let x = self.any(0)?.shape();
        let rank = x.len();
        let end = self.attribute("end").map_or(rank, |end| place(end.i(), rank).min(rank));
        let start = place(self.int("start", 0), rank).min(end);
        let sizes: Vec<i64> = x[start..end].iter().map(|&size| size as i64).collect();
        Ok(Array::Int(ArrayD::from_shape_vec(vec![sizes.len()], sizes)?))
    }

    fn constant_of_shape(&self) -> Result<Array, Stop> {
        let shape: Vec<usize> = self.integers(0)?.iter().map(|&size| size as usize).collect();
        let value = self.attribute("value").and_then(|value| value.t.as_deref());
        Ok(match value.map(|value| stored(value, self.storage)) {
            None => Array::Float(ArrayD::zeros(shape)),
            Some(Array::Float(value)) => {
                Array::Float(ArrayD::from_elem(shape, value[[0].as_slice()]))
            }
            Some(Array::Int(value)) => Array::Int(ArrayD::from_elem(shape, value[[0].as_slice()])),
        })
    }

    fn choice(&self) -> Result<Array, Stop> {
        let Array::Int(condition) = self.any(0)? else { return Err("no condition".into()) };
        let condition = condition.mapv(|value| if value != 0 { 1.0 } else { 0.0 });
        let (yes, no) = (self.float(1)?, self.float(2)?);
        let zeros = broadcast(&broadcast(yes, no, |_, _| 0.0)?, &condition, |_, _| 0.0)?;
        let all = |x: &ArrayD<f64>| broadcast(x, &zeros, |x, _| x);
        let (condition, mut yes, no) = (all(&condition)?, all(yes)?, all(no)?);
        ndarray::Zip::from(&mut yes).and(&no).and(&condition).for_each(|yes, &no, &condition| {
            *yes = if condition == 1.0 { *yes } else { no };
        });
        Ok(Array::Float(yes))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn sum_of_squares(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum()
}

/// Reduces a tensor to one element along each of `axes`.
fn reduced(x: &ArrayD<f64>, axes: &[usize], of: fn(&[f64]) -> f64) -> ArrayD<f64> {
    let mut shape = x.shape().to_vec();
    axes.iter().for_each(|&axis| shape[axis] = 1);
    let mut groups: ArrayD<Vec<f64>> = ArrayD::from_elem(shape.clone(), vec![]);
    for (at, &value) in x.indexed_iter() {
        let place: Vec<usize> =
            (0..x.ndim()).map(|axis| if shape[axis] == 1 { 0 } else { at[axis] }).collect();
        groups[place.as_slice()].push(value);
    }
    groups.map(|values| of(values))
}

fn comparison(
    a: &ArrayD<f64>,
    b: &ArrayD<f64>,
    holds: fn(f64, f64) -> bool,
) -> Result<Array, Stop> {
    let zeros = broadcast(a, b, |_, _| 0.0)?;
    let (a, b) = (broadcast(a, &zeros, |a, _| a)?, broadcast(b, &zeros, |b, _| b)?);
    let holds = ndarray::Zip::from(&a).and(&b).map_collect(|&a, &b| i64::from(holds(a, b)));
    Ok(Array::Int(holds))
}

fn broadcast<T: Copy>(
    a: &ArrayD<T>,
    b: &ArrayD<T>,
    op: impl Fn(T, T) -> T,
) -> Result<ArrayD<T>, Stop> {
    let rank = a.ndim().max(b.ndim());
    let aligned = |array: &ArrayD<T>| {
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

/// Multiplies the last axis of `x` by a matrix, or a matrix by the last axis but one.
fn product(x: &ArrayD<f64>, matrix: &ArrayD<f64>) -> Result<ArrayD<f64>, Stop> {
    if x.ndim() == 2 && matrix.ndim() > 2 {
        let turned = |x: &ArrayD<f64>| {
            let mut x = x.clone();
            x.swap_axes(x.ndim() - 2, x.ndim() - 1);
            x.as_standard_layout().into_owned()
        };
        return Ok(turned(&product(&turned(matrix), &turned(x))?));
    }
    if matrix.ndim() != 2 {
        return Err(Stop::Unknown("a product with no matrix".into()));
    }
    let matrix = matrix.view().into_dimensionality::<Ix2>()?;
    let width = x.shape().last().copied().unwrap_or(0);
    if width != matrix.nrows() {
        return Err("the matrix does not fit".into());
    }
    let rows = x.to_shape((x.len() / width.max(1), width))?;
    let mut shape = x.shape().to_vec();
    *shape.last_mut().ok_or("a number is no vector")? = matrix.ncols();
    let result = rows.dot(&matrix);
    result.into_shape_with_order(IxDyn(&shape)).map_err(Stop::from)
}
