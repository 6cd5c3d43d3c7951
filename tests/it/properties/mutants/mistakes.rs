//! Mistakes of a fuser. A fuser that reads the model wrongly is represented by the model that it
//! would have been right for; one that computes or writes wrongly, by what it makes.
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::proto::{ModelProto, NodeProto, TensorProto};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use ndarray::{ArrayD, Axis, Slice};

use super::scene::{Rewritten, Scene, list};
use crate::support::geometries::rounded_twice;

/// The function that makes all mutants of one kind from a block.
pub enum Make {
    /// Makes the models for which the fuser takes the block's model.
    Misread(fn(&Scene) -> Vec<ModelProto>),
    /// Makes what the fuser makes of the block.
    Miscompute(fn(&Scene) -> Vec<Rewritten>),
}

use Make::{Miscompute, Misread};

pub const MISTAKES: [(&str, Make); 59] = [
    // Batch norms.
    ("ε dropped", Misread(|s| vec![with_epsilon(s, &s.norms(), 0.0)])),
    ("one ε dropped", Misread(|s| each(s.norms(), |norm| Some(with_epsilon(s, &[norm], 0.0))))),
    ("ε of 10⁻³", Misread(|s| vec![with_epsilon(s, &s.norms(), 1e-3)])),
    (
        "ε outside the root",
        Misread(|s| {
            norm(s, GAMMA, |n, j| n.gamma[j] * n.sigma(j) / (n.variance[j].sqrt() + n.epsilon))
        }),
    ),
    ("γ/σ inverted", Misread(|s| norm(s, GAMMA, |n, j| n.sigma(j).powi(2) / n.gamma[j]))),
    ("root forgotten", Misread(|s| norm(s, GAMMA, |n, j| n.gamma[j] / n.sigma(j)))),
    ("γ lost", Misread(|s| norm(s, GAMMA, |_, _| 1.0))),
    ("γ of the next channel", Misread(|s| norm(s, GAMMA, |n, j| n.gamma[n.next(j)]))),
    ("σ of the next channel", Misread(|s| norm(s, VARIANCE, |n, j| n.variance[n.next(j)]))),
    ("sign of μ", Misread(|s| norm(s, MEAN, |n, j| -n.mean[j]))),
    ("μ lost", Misread(|s| norm(s, MEAN, |_, _| 0.0))),
    ("β lost", Misread(|s| norm(s, BETA, |_, _| 0.0))),
    ("sign of β", Misread(|s| norm(s, BETA, |n, j| -n.beta[j]))),
    (
        "one variance by 10⁻⁶",
        Misread(|s| norm(s, VARIANCE, |n, j| n.variance[j] * if j == 0 { 1.000_001 } else { 1.0 })),
    ),
    ("two arms' norms exchanged", Misread(norms_exchanged)),
    (
        "a convolution's bias lost",
        Misread(|s| each(s.convolutions(), |at| s.changed(at, 2, |bias| bias.fill(0.0)))),
    ),
    ("a bias not scaled by γ/σ", Misread(unscaled_bias)),
    // How the arms are read.
    ("an arm's pads one towards the beginning", Misread(|s| pads_moved(s, 1))),
    ("an arm's pads one towards the end", Misread(|s| pads_moved(s, -1))),
    (
        "an arm's begins and ends exchanged",
        Misread(|s| {
            each(s.convolutions(), |at| s.with_list(at, "pads", begins_and_ends_exchanged))
        }),
    ),
    (
        "all pads one towards the beginning",
        Misread(|s| {
            everywhere(s, "pads", |list| {
                let axes = list.len() / 2;
                list[0] += 1;
                list[axes] -= 1
            })
        }),
    ),
    ("all pads larger by one", Misread(|s| everywhere(s, "pads", |list| list[0] += 1))),
    ("all dilations by one", Misread(|s| everywhere(s, "dilations", |list| list[0] += 1))),
    ("all strides by one", Misread(|s| everywhere(s, "strides", |list| list[0] += 1))),
    ("all strides one", Misread(|s| everywhere(s, "strides", |list| list.fill(1)))),
    // How the arms are added.
    (
        "an arm one tap towards the beginning",
        Miscompute(|s| arm_by_axis(s, |arm, axis| moved(arm, axis, -1))),
    ),
    (
        "an arm one tap towards the end",
        Miscompute(|s| arm_by_axis(s, |arm, axis| moved(arm, axis, 1))),
    ),
    ("an arm lost", Miscompute(|s| arm_as(s, |arm| ArrayD::zeros(arm.raw_dim())))),
    ("an arm counted twice", Miscompute(|s| arm_as(s, |arm| arm * 2.0))),
    ("an arm subtracted", Miscompute(|s| arm_as(s, |arm| -arm))),
    ("an arm flipped", Miscompute(|s| arm_by_axis(s, flipped))),
    ("an arm transposed", Miscompute(|s| arm_as(s, transposed))),
    ("two arms exchanged", Miscompute(arms_exchanged)),
    ("an arm's channels permuted", Miscompute(|s| arm_as(s, |arm| rolled(arm, 0)))),
    ("the sum of the rounded arms", Miscompute(sum_of_rounded)),
    // The kernel, the bias and the nodes that come out.
    ("kernel transposed", Miscompute(|s| kernel_as(s, |kernel| vec![transposed(kernel)]))),
    (
        "kernel flipped",
        Miscompute(|s| {
            kernel_as(s, |kernel| axes_of(kernel).map(|axis| flipped(kernel, axis)).collect())
        }),
    ),
    (
        "input and output channels exchanged",
        Miscompute(|s| kernel_as(s, |kernel| vec![turned(kernel, 0, 1)])),
    ),
    ("output channels permuted", Miscompute(|s| kernel_as(s, |kernel| vec![rolled(kernel, 0)]))),
    ("input channels permuted", Miscompute(|s| kernel_as(s, |kernel| vec![rolled(kernel, 1)]))),
    ("groups in another order", Miscompute(groups_rolled)),
    ("bias permuted", Miscompute(|s| bias_as(s, |bias| rolled(bias, 0)))),
    ("sign of the bias", Miscompute(|s| bias_as(s, |bias| -bias))),
    (
        "bias not read",
        Miscompute(|s| {
            nodes_as(s, &["Conv", "ConvTranspose", "Gemm"], |node| {
                (node.input.len() > 2).then(|| drop(node.input.pop()))
            })
        }),
    ),
    ("one weight by 10⁻⁶", Miscompute(one_weight_by_a_millionth)),
    ("a weight beyond all arms", Miscompute(weight_beyond_all_arms)),
    // The attributes of new nodes, and what they read.
    (
        "begins and ends of the pads exchanged",
        Miscompute(|s| lists_as(s, "pads", begins_and_ends_exchanged)),
    ),
    (
        "pads one towards the beginning",
        Miscompute(|s| {
            lists_as(s, "pads", |list| {
                let axes = list.len() / 2;
                list[0] += 1;
                list[axes] -= 1
            })
        }),
    ),
    (
        "pads one towards the end",
        Miscompute(|s| {
            lists_as(s, "pads", |list| {
                let axes = list.len() / 2;
                list[axes - 1] -= 1;
                list[2 * axes - 1] += 1
            })
        }),
    ),
    ("stride by one", Miscompute(|s| lists_as(s, "strides", |list| list[0] += 1))),
    (
        "dilation by one",
        Miscompute(|s| lists_as(s, "dilations", |list| *list.last_mut().unwrap() += 1)),
    ),
    (
        "no groups",
        Miscompute(|s| {
            nodes_as(s, &["Conv", "ConvTranspose"], |node| {
                list(node, "group")?.i = Some(1);
                Some(())
            })
        }),
    ),
    (
        "Add for Sub, Sub for Add",
        Miscompute(|s| {
            nodes_as(s, &["Add", "Sub"], |node| {
                node.op_type = Some(if node.op_type() == "Add" { "Sub" } else { "Add" }.into());
                Some(())
            })
        }),
    ),
    (
        "an operand of the sum read twice",
        Miscompute(|s| {
            nodes_as(s, &["Add", "Sub"], |node| {
                node.input[1] = node.input[0].clone();
                Some(())
            })
        }),
    ),
    ("another root is read", Miscompute(roots_exchanged)),
    ("a Transpose turned back", Miscompute(|s| lists_as(s, "perm", inverted))),
    (
        "another border",
        Miscompute(|s| {
            nodes_as(s, &["Pad"], |node| {
                let mode = list(node, "mode")?;
                mode.s = Some(
                    if mode.s() == b"reflect" { &b"edge"[..] } else { &b"reflect"[..] }.into(),
                );
                Some(())
            })
        }),
    ),
    // The bytes that are written.
    ("rounded twice", Miscompute(|s| written_as(s, |_, value, float| rounded_twice(float, value)))),
    ("one stored weight by its last bit", Miscompute(last_bits)),
];

fn each<T>(places: Vec<usize>, make: impl Fn(usize) -> Option<T>) -> Vec<T> {
    places.into_iter().filter_map(make).collect()
}

struct Norm {
    gamma: ArrayD<f64>,
    beta: ArrayD<f64>,
    mean: ArrayD<f64>,
    variance: ArrayD<f64>,
    epsilon: f64,
}

/// Positions of a norm's inputs.
const GAMMA: usize = 1;
const BETA: usize = 2;
const MEAN: usize = 3;
const VARIANCE: usize = 4;

impl Norm {
    fn of(scene: &Scene, at: usize) -> Option<Self> {
        let constant = |input| Some(scene.constant(at, input)?.0);
        let attributes = &scene.node(at).attribute;
        let epsilon = attributes.iter().find(|attribute| attribute.name() == "epsilon");
        Some(Norm {
            gamma: constant(GAMMA)?,
            beta: constant(BETA)?,
            mean: constant(MEAN)?,
            variance: constant(VARIANCE)?,
            epsilon: epsilon.map_or(1e-5, |epsilon| f64::from(epsilon.f())),
        })
    }

    fn sigma(&self, j: usize) -> f64 {
        (self.variance[j] + self.epsilon).sqrt()
    }

    fn next(&self, j: usize) -> usize {
        (j + 1) % self.gamma.len()
    }
}

/// Returns, per norm, the model with another `value` for each number of one of its inputs.
fn norm(scene: &Scene, input: usize, value: fn(&Norm, usize) -> f64) -> Vec<ModelProto> {
    each(scene.norms(), |at| {
        let norm = Norm::of(scene, at)?;
        scene.changed(at, input, |values| {
            values.iter_mut().enumerate().for_each(|(j, slot)| *slot = value(&norm, j));
        })
    })
}

fn with_epsilon(scene: &Scene, norms: &[usize], epsilon: f32) -> ModelProto {
    let mut model = scene.model.clone();
    for &at in norms {
        let node = &mut model.graph.as_mut().unwrap().node[at];
        if let Some(attribute) = list(node, "epsilon") {
            attribute.f = Some(epsilon);
        }
    }
    model
}

fn norms_exchanged(scene: &Scene) -> Vec<ModelProto> {
    let norms = scene.norms();
    let pairs = norms.iter().zip(norms.iter().skip(1));
    let exchanged = |(&a, &b): (&usize, &usize)| {
        let mut model = scene.model.clone();
        let nodes = &mut model.graph.as_mut().unwrap().node;
        let (left, right) = (nodes[a].input[1..].to_vec(), nodes[b].input[1..].to_vec());
        nodes[a].input.splice(1.., right);
        nodes[b].input.splice(1.., left);
        model
    };
    pairs.map(exchanged).collect()
}

/// Returns the models that are right if the norm behind a convolution scales its kernel alone.
fn unscaled_bias(scene: &Scene) -> Vec<ModelProto> {
    let pairs = scene.norms().into_iter().filter_map(|norm| {
        let made = |&at: &usize| scene.node(at).output[0] == scene.node(norm).input[0];
        Some((scene.convolutions().into_iter().find(made)?, Norm::of(scene, norm)?))
    });
    let unscaled = |(at, norm): (usize, Norm)| {
        scene.changed(at, 2, |bias| {
            for (j, value) in bias.iter_mut().enumerate() {
                *value *= norm.sigma(j) / norm.gamma[j];
            }
        })
    };
    pairs.filter_map(unscaled).collect()
}

/// Returns, per convolution and axis, the model with `by` more padding in front and less behind.
fn pads_moved(scene: &Scene, by: i64) -> Vec<ModelProto> {
    let axes = |at: usize| {
        let pads = scene.node(at).attribute.iter().find(|attribute| attribute.name() == "pads");
        pads.map_or(0, |pads| pads.ints.len() / 2)
    };
    let all =
        scene.convolutions().into_iter().flat_map(|at| (0..axes(at)).map(move |axis| (at, axis)));
    let moved = |(at, axis): (usize, usize)| {
        scene.with_list(at, "pads", |pads| {
            let behind = axis + pads.len() / 2;
            (pads[axis], pads[behind]) = (pads[axis] + by, pads[behind] - by);
        })
    };
    all.filter_map(moved).collect()
}

fn everywhere(scene: &Scene, name: &str, change: fn(&mut [i64])) -> Vec<ModelProto> {
    let mut model = scene.model.clone();
    for at in scene.convolutions() {
        let node = &mut model.graph.as_mut().unwrap().node[at];
        list(node, name).into_iter().for_each(|attribute| change(&mut attribute.ints));
    }
    vec![model]
}

fn begins_and_ends_exchanged(pads: &mut [i64]) {
    let axes = pads.len() / 2;
    pads.rotate_left(axes);
}

fn inverted(perm: &mut [i64]) {
    let forth = perm.to_vec();
    forth.iter().enumerate().for_each(|(to, &from)| perm[from as usize] = to as i64);
}

fn kernel<'s>(scene: &'s Scene) -> &'s ArrayD<f64> {
    &scene.right.fused.exact[scene.kernel].1
}

/// Returns the rewrites in which one arm of the kernel, each in turn, is changed.
fn arm_as(scene: &Scene, change: impl Fn(&ArrayD<f64>) -> ArrayD<f64>) -> Vec<Rewritten> {
    let with = |arm: &ArrayD<f64>| {
        let changed = change(arm);
        let kernel = kernel(scene);
        (changed.shape() == kernel.shape())
            .then(|| scene.right.with_exact(scene.kernel, kernel - arm + changed, scene.float))
    };
    scene.arms.iter().filter_map(with).collect()
}

/// The same for a change along each spatial axis.
fn arm_by_axis(
    scene: &Scene,
    change: impl Fn(&ArrayD<f64>, usize) -> ArrayD<f64>,
) -> Vec<Rewritten> {
    let axes = axes_of(kernel(scene));
    axes.flat_map(|axis| arm_as(scene, |arm| change(arm, axis))).collect()
}

fn arms_exchanged(scene: &Scene) -> Vec<Rewritten> {
    let kernel = kernel(scene);
    let pairs = scene.arms.iter().zip(scene.arms.iter().skip(1));
    // Each arm lies where the other one should.
    let exchanged = |(a, b): (&ArrayD<f64>, &ArrayD<f64>)| {
        let (a_turned, b_turned) = (transposed(a), transposed(b));
        (a_turned.shape() == kernel.shape()).then(|| {
            let sum = kernel - a - b + a_turned + b_turned;
            scene.right.with_exact(scene.kernel, sum, scene.float)
        })
    };
    pairs.filter_map(exchanged).collect()
}

/// Returns the spatial axes of a kernel.
fn axes_of(kernel: &ArrayD<f64>) -> std::ops::Range<usize> {
    2..kernel.ndim()
}

fn moved(array: &ArrayD<f64>, axis: usize, by: isize) -> ArrayD<f64> {
    let mut result = ArrayD::zeros(array.raw_dim());
    for (from, lane) in array.axis_iter(Axis(axis)).enumerate() {
        let to = from.checked_add_signed(by).filter(|&to| to < array.shape()[axis]);
        to.into_iter().for_each(|to| result.index_axis_mut(Axis(axis), to).assign(&lane));
    }
    result
}

fn flipped(array: &ArrayD<f64>, axis: usize) -> ArrayD<f64> {
    let mut view = array.view();
    view.invert_axis(Axis(axis));
    view.as_standard_layout().into_owned()
}

fn transposed(array: &ArrayD<f64>) -> ArrayD<f64> {
    let last = array.ndim() - 1;
    if array.ndim() < 4 { array.clone() } else { turned(array, last, last - 1) }
}

fn turned(array: &ArrayD<f64>, a: usize, b: usize) -> ArrayD<f64> {
    let mut view = array.view();
    view.swap_axes(a, b);
    view.as_standard_layout().into_owned()
}

/// Rotates an array by one place along `axis`.
fn rolled(array: &ArrayD<f64>, axis: usize) -> ArrayD<f64> {
    rolled_by(array, axis, 1)
}

fn rolled_by(array: &ArrayD<f64>, axis: usize, by: usize) -> ArrayD<f64> {
    let size = array.shape()[axis];
    let from: Vec<usize> = (0..size).map(|to| (to + by) % size).collect();
    array.select(Axis(axis), &from)
}

fn kernel_as(scene: &Scene, change: impl Fn(&ArrayD<f64>) -> Vec<ArrayD<f64>>) -> Vec<Rewritten> {
    let with = |changed| scene.right.with_exact(scene.kernel, changed, scene.float);
    change(kernel(scene)).into_iter().map(with).collect()
}

fn bias_as(scene: &Scene, change: fn(&ArrayD<f64>) -> ArrayD<f64>) -> Vec<Rewritten> {
    let with =
        |at: usize| scene.right.with_exact(at, change(&scene.right.fused.exact[at].1), scene.float);
    scene.bias.into_iter().map(with).collect()
}

/// Widens the kernel along its last axis, by taps that are zero except for one.
fn weight_beyond_all_arms(scene: &Scene) -> Vec<Rewritten> {
    const FURTHER: usize = 5;
    let fused = &scene.right.fused;
    let name = &fused.exact[scene.kernel].0;
    let reads = |node: &NodeProto| node.op_type() == "Conv" && node.input[1] == *name;
    let kernel = kernel(scene);
    let Some(at) = fused.nodes.iter().position(reads).filter(|_| kernel.ndim() > 2) else {
        return vec![];
    };
    let last = Axis(kernel.ndim() - 1);
    let mut wider = kernel.raw_dim();
    wider[last.0] += 2 * FURTHER;
    let mut changed = ArrayD::zeros(wider);
    let own = Slice::from(FURTHER..FURTHER + kernel.len_of(last));
    changed.slice_axis_mut(last, own).assign(kernel);
    *changed.last_mut().unwrap() = 1.0;
    let with = scene.right.with_exact(scene.kernel, changed, scene.float);
    vec![with.with_node(at, |node| {
        let dilation = list(node, "dilations").map_or(1, |list| *list.ints.last().unwrap());
        let (pads, axes) = (FURTHER as i64 * dilation, last.0 - 1);
        if let Some(shape) = list(node, "kernel_shape") {
            *shape.ints.last_mut().unwrap() += 2 * FURTHER as i64;
        }
        if let Some(explicit) = list(node, "pads") {
            explicit.ints[axes - 1] += pads;
            explicit.ints[2 * axes - 1] += pads;
        }
    })]
}

/// Puts the filters and biases of each group in the place of another group's.
fn groups_rolled(scene: &Scene) -> Vec<Rewritten> {
    let fused = &scene.right.fused;
    let groups = |node: &NodeProto| {
        let group = node.attribute.iter().find(|attribute| attribute.name() == "group");
        group.map_or(1, |group| group.i() as usize)
    };
    let groups = fused.nodes.iter().map(groups).max().unwrap_or(1);
    if groups < 2 {
        return vec![];
    }
    let roll = |array: &ArrayD<f64>| rolled_by(array, 0, array.shape()[0] / groups);
    let mut changed = scene.right.with_exact(scene.kernel, roll(kernel(scene)), scene.float);
    if let Some(bias) = scene.bias {
        changed = changed.with_exact(bias, roll(&fused.exact[bias].1), scene.float);
    }
    vec![changed]
}

/// Changes a few weights that matter, one at a time.
fn one_weight_by_a_millionth(scene: &Scene) -> Vec<Rewritten> {
    let largest = kernel(scene).iter().fold(0.0f64, |most, weight| most.max(weight.abs()));
    let matter = |(_, weight): &(usize, &f64)| weight.abs() >= 0.01 * largest;
    let places: Vec<usize> = kernel(scene).iter().enumerate().filter(matter).map(|w| w.0).collect();
    let change = |at: usize| {
        let mut changed = kernel(scene).clone();
        changed.iter_mut().skip(at).take(1).for_each(|weight| *weight *= 1.000_001);
        scene.right.with_exact(scene.kernel, changed, scene.float)
    };
    few(places).into_iter().map(change).collect()
}

/// Returns the first, the last, and one between.
pub fn few<T: Clone>(all: Vec<T>) -> Vec<T> {
    let mut places = vec![0, all.len() / 2, all.len().saturating_sub(1)];
    places.dedup();
    places.into_iter().filter_map(|place| all.get(place).cloned()).collect()
}

/// Changes each new node of the operators `ops`, one at a time.
fn nodes_as(
    scene: &Scene,
    ops: &[&str],
    change: fn(&mut NodeProto) -> Option<()>,
) -> Vec<Rewritten> {
    let nodes = &scene.right.fused.nodes;
    let places = (0..nodes.len()).filter(|&at| ops.contains(&nodes[at].op_type()));
    each(places.collect(), |at| {
        let mut applies = None;
        let changed = scene.right.with_node(at, |node| applies = change(node));
        applies.map(|()| changed)
    })
}

fn lists_as(scene: &Scene, name: &str, change: fn(&mut [i64])) -> Vec<Rewritten> {
    let nodes = &scene.right.fused.nodes;
    let has =
        |at: &usize| nodes[*at].attribute.iter().any(|a| a.name() == name && !a.ints.is_empty());
    let places = (0..nodes.len()).filter(has).collect();
    each(places, |at| {
        Some(scene.right.with_node(at, |node| {
            list(node, name).into_iter().for_each(|list| change(&mut list.ints));
        }))
    })
}

fn roots_exchanged(scene: &Scene) -> Vec<Rewritten> {
    let [first, second, ..] = scene.right.beliefs.roots.as_slice() else { return vec![] };
    let mut changed = scene.right.clone();
    for input in changed.fused.nodes.iter_mut().flat_map(|node| &mut node.input) {
        if input == first {
            input.clone_from(second);
        } else if input == second {
            input.clone_from(first);
        }
    }
    vec![changed]
}

/// Writes a kernel in which `value` computes each weight from the exact one.
fn written_as(scene: &Scene, value: fn(usize, f64, Float) -> f64) -> Vec<Rewritten> {
    let float = scene.float;
    let mut values = kernel(scene).clone();
    values.iter_mut().enumerate().for_each(|(at, slot)| *slot = value(at, *slot, float));
    let written = |tensor: &mut TensorProto| {
        *tensor = tensor::from_floats(tensor.name(), &values, float);
    };
    vec![scene.right.with_written(scene.kernel, written)]
}

/// Rounds every arm to the model's type before they are added.
fn sum_of_rounded(scene: &Scene) -> Vec<Rewritten> {
    let float = scene.float;
    // What no convolution contributes (an identity, a mean) is exact.
    let error = |arm: &ArrayD<f64>| arm.mapv(|weight| float.round(weight) - weight);
    let sum = scene.arms.iter().fold(kernel(scene).clone(), |sum, arm| sum + error(arm));
    let written = |tensor: &mut TensorProto| {
        *tensor = tensor::from_floats(tensor.name(), &sum, float);
    };
    vec![scene.right.with_written(scene.kernel, written)]
}

/// Flips the last bit of a few numbers of each tensor, one at a time.
fn last_bits(scene: &Scene) -> Vec<Rewritten> {
    let size = scene.float.size();
    let of_tensor = |at: usize| {
        let count = scene.right.fused.exact[at].1.len();
        few((0..count).collect()).into_iter().map(move |number| (at, number))
    };
    let all = (0..scene.right.fused.exact.len()).flat_map(of_tensor);
    let flip = |(at, number): (usize, usize)| {
        scene.right.with_written(at, |tensor| flip_last_bit(tensor, number * size))
    };
    all.map(flip).collect()
}

/// Flips the last bit of the number that begins at byte `at` of a raw tensor.
pub fn flip_last_bit(tensor: &mut TensorProto, at: usize) {
    let mut raw = tensor.raw_data.clone().unwrap_or_default().to_vec();
    raw[at] ^= 1;
    tensor.raw_data = Some(raw.into());
}

/// Returns the values of a stored tensor, if they are floats.
pub fn values(tensor: &TensorProto) -> Option<ArrayD<f64>> {
    tensor::floats(tensor, &Storage::default()).ok()
}
