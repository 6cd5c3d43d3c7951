//! Mistakes in writing: blocks that are right, in a file that is not.
use std::collections::HashSet;
use std::sync::Arc;

use acb_fuse::emit::nodes::FusedNodes;
use acb_fuse::engine::{InputShapes, Limits};
use acb_fuse::facts::constants::Constants;
use acb_fuse::facts::dependence::Dependence;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use acb_fuse::onnx::splice::{self, Hole};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::ops::meanings::Meanings;
use acb_fuse::ops::reader::{Reader, Training};
use acb_fuse::ops::training::TrainingNodes;
use acb_fuse::pipeline::edits::{BlockNodes, Changes, converted, rewrite};
use acb_fuse::pipeline::fuse;
use acb_fuse::plan::{BlockNames, Plan, Wanted, plan};
use acb_fuse::verify::fingerprint::Fingerprint;
use acb_fuse::verify::outcome::Outcome;
use acb_fuse::verify::readback::{Expected, Miswritten, check};
use acb_fuse::verify::run::run;
use acb_fuse::{RunOptions, TrainingMode};
use prost::Message;

use super::mistakes::{few, flip_last_bit, values};
use super::scene;

/// A model, and the right result of its conversion.
pub struct Files<'f> {
    pub old: ModelProto,
    pub new: ModelProto,
    graphs: &'f [Graph<'f>],
    changes: &'f [Changes<'f>],
    /// Per graph and block, the fingerprints of its new tensors.
    fingerprints: &'f [Vec<Vec<Fingerprint>>],
    /// Names of the tensors that blocks of the main graph compute.
    outputs: Vec<String>,
}

impl Files<'_> {
    /// Runs `judge` on a model.
    pub fn of<T>(bytes: &[u8], storage: Storage, judge: impl FnOnce(&Files) -> T) -> T {
        let model = Model::index(bytes.to_vec().into(), storage).unwrap();
        let graphs = Graph::read_all(&model).unwrap();
        let constants = Constants::find_all(&graphs, false).unwrap();
        let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
        let shapes = InputShapes::new();
        let readers: Vec<Reader> = graphs
            .iter()
            .zip(constants.iter().zip(&dependence))
            .map(|(graph, (constants, dependence))| {
                let training = Training { asked: TrainingMode::Auto, dependence };
                Reader::new(graph, constants, &shapes, training)
            })
            .collect();
        let meanings: Vec<Meanings> = readers.iter().map(|r| Meanings::of(r).unwrap()).collect();
        let mut names = BlockNames::of(&graphs[0]);
        let both = || readers.iter().zip(&meanings);
        let plans: Vec<Plan> =
            both().map(|(r, meanings)| plan(r, meanings, &mut names, Wanted::default())).collect();
        let fused: Vec<Vec<FusedNodes>> = both()
            .zip(&plans)
            .map(|((reader, meanings), plan)| {
                let fused = |block| {
                    let terms = fuse::terms(reader, meanings, plan, block).unwrap();
                    fuse::fused(reader, block, &terms).unwrap()
                };
                plan.blocks.iter().map(fused).collect()
            })
            .collect();
        let changes: Vec<Changes> = readers
            .iter()
            .zip(plans.iter().zip(&fused))
            .map(|(reader, (plan, fused))| {
                let blocks = plan
                    .blocks
                    .iter()
                    .zip(fused)
                    .map(|(block, fused)| BlockNodes::of(block, fused));
                let eval_forms = TrainingNodes::find(reader).unwrap().forms;
                Changes { blocks: blocks.collect(), eval_forms }
            })
            .collect();
        let rewrite = rewrite(&graphs, &changes).unwrap();
        let edits = rewrite.edits(vec![], vec![], |_| None);
        let mut written = Vec::new();
        for Hole { at, deferred } in splice::write(model.bytes(), &edits, &mut written).unwrap() {
            let weights = rewrite.weight(deferred).unwrap();
            written[at..at + deferred.length].copy_from_slice(scene::written(weights).raw_data());
        }
        let new = ModelProto::decode(&written[..]).unwrap();
        let old = ModelProto::decode(bytes).unwrap();
        let name = |output| graphs[0].value(output).name.to_owned();
        let outputs = plans[0].blocks.iter().map(|block| name(block.region.output)).collect();
        let fingerprints = fused.iter().map(|fused| {
            fused.iter().map(|fused| {
                fused
                    .weights
                    .iter()
                    .map(scene::fingerprint)
                    .chain(fused.told.iter().map(Fingerprint::of))
                    .collect()
            })
        });
        let fingerprints: Vec<Vec<Vec<Fingerprint>>> =
            fingerprints.map(Iterator::collect).collect();
        judge(&Files {
            old,
            new,
            graphs: &graphs,
            changes: &changes,
            fingerprints: &fingerprints,
            outputs,
        })
    }

    /// Returns what reading the file back says.
    pub fn read_back(&self, new: &ModelProto) -> Result<(), Miswritten> {
        self.read_back_from(&new.encode_to_vec(), Storage::default())
    }

    /// The same for a file whose side file lies in `storage`.
    pub fn read_back_from(&self, new: &[u8], storage: Storage) -> Result<(), Miswritten> {
        let expected: Vec<Expected> = self
            .changes
            .iter()
            .zip(self.fingerprints)
            .map(|(changes, fingerprints)| {
                let blocks = changes.blocks.iter().zip(fingerprints);
                Expected {
                    blocks: blocks
                        .map(|(block, fingerprints)| (&block.fused.nodes[..], &fingerprints[..]))
                        .collect(),
                    eval_forms: changes.eval_forms.iter().map(|(id, form)| (*id, form)).collect(),
                    infos: changes.blocks.iter().flat_map(|block| &block.fused.infos).collect(),
                }
            })
            .collect();
        let new = Model::index(new.to_vec().into(), storage)?;
        check(self.graphs, &expected, &Graph::read_all(&new)?)
    }

    /// Returns whether the run of the old and the new model refuses the new one.
    pub fn run_refuses(&self, new: &ModelProto) -> bool {
        let options = RunOptions::default();
        let Ok(new) = Model::index(new.encode_to_vec().into(), Storage::default()) else {
            return true;
        };
        let forms = self.changes.iter().map(|changes| changes.eval_forms.clone());
        let old = converted(self.graphs, forms).unwrap();
        let old = old.as_ref().unwrap_or(self.graphs[0].model);
        let outcome = run(old, &new, &options, Limits::of_reading());
        !matches!(outcome, Ok(Outcome::Agreed(_) | Outcome::NotRun(_)))
    }

    fn graph(&self) -> &GraphProto {
        self.new.graph.as_ref().unwrap()
    }

    /// Returns the new model, changed, or `None` if the change does not apply.
    fn with(&self, change: impl FnOnce(&mut GraphProto) -> Option<()>) -> Option<ModelProto> {
        let mut model = self.new.clone();
        change(model.graph.as_mut().unwrap()).map(|()| model)
    }

    /// Returns whether blocks brought a tensor called `name`.
    fn is_new(&self, name: &str) -> bool {
        let mut blocks = self.changes.iter().flat_map(|changes| &changes.blocks);
        blocks.any(|BlockNodes { fused, .. }| {
            fused.weights.iter().any(|weights| weights.name == name)
                || fused.told.iter().any(|tensor| tensor.name() == name)
                || fused.nodes.iter().any(|node| node.output[0] == name)
        })
    }

    /// Returns the positions of the wanted nodes in the main graph.
    fn nodes(&self, wanted: impl Fn(&NodeProto) -> bool) -> Vec<usize> {
        let nodes = &self.graph().node;
        (0..nodes.len()).filter(|&at| wanted(&nodes[at])).collect()
    }

    fn new_convolutions(&self) -> Vec<usize> {
        let convolves = |node: &NodeProto| ["Conv", "ConvTranspose"].contains(&node.op_type());
        self.nodes(|node| convolves(node) && self.is_new(&node.output[0]))
    }

    fn initializers(&self, wanted: impl Fn(&TensorProto) -> bool) -> Vec<usize> {
        let all = &self.graph().initializer;
        (0..all.len()).filter(|&at| wanted(&all[at])).collect()
    }

    fn new_weights(&self) -> Vec<usize> {
        self.initializers(|tensor| {
            self.is_new(tensor.name()) && Float::from_onnx(tensor.data_type()).is_some()
        })
    }
}

type Make = fn(&Files) -> Vec<ModelProto>;

/// Kinds of mistakes in a file, each with the function that makes all mutants of its kind.
pub const MISWRITTEN: [(&str, Make); 23] = [
    ("one written weight by 10⁻⁶", |f| {
        each(f.new_weights(), |at| f.with(|graph| bump(&mut graph.initializer[at])))
    }),
    ("one written weight by its last bit", |f| {
        each(f.new_weights(), |at| {
            f.with(|graph| {
                flip_last_bit(&mut graph.initializer[at], 0);
                Some(())
            })
        })
    }),
    ("an untouched weight by its last bit", |f| {
        each(
            f.initializers(|tensor| !f.is_new(tensor.name()) && tensor.raw_data().len() > 8),
            |at| {
                f.with(|graph| {
                    flip_last_bit(&mut graph.initializer[at], 0);
                    Some(())
                })
            },
        )
    }),
    ("stale initializer: an arm's under the new name", |f| {
        each(f.new_weights(), |at| stale(f, at))
    }),
    ("two blocks' weights exchanged", |f| inputs_exchanged(f, 1)),
    ("two blocks' biases exchanged", |f| inputs_exchanged(f, 2)),
    ("a block applied once where it stands twice", |f| {
        next_to_each_other(f, |graph, first, second| rewire(graph, second, first))
    }),
    ("wrong output wired: a block's input", |f| {
        each(f.new_convolutions(), |at| {
            f.with(|graph| {
                let node = graph.node[at].clone();
                rewire(graph, &node.output[0], &node.input[0])
            })
        })
    }),
    ("wrong output wired: a node bypassed", |f| {
        each(f.nodes(|node| node.op_type() == "Relu"), |at| {
            f.with(|graph| {
                let node = graph.node[at].clone();
                rewire(graph, &node.output[0], &node.input[0])
            })
        })
    }),
    ("a residual forgotten", |f| {
        each(f.nodes(|node| joins(f, node)), |at| {
            f.with(|graph| {
                graph.node[at].input[1] = graph.node[at].input[0].clone();
                Some(())
            })
        })
    }),
    ("an arm's old node left and read", |f| arms_left(f, true)),
    ("an arm's old node left", |f| arms_left(f, false)),
    ("graph outputs exchanged", |f| {
        f.with(|graph| {
            let several = graph.output.len() > 1;
            graph.output.reverse();
            several.then_some(())
        })
        .into_iter()
        .collect()
    }),
    ("an output's type lost", |f| {
        f.with(|graph| {
            graph.output[0].r#type = None;
            Some(())
        })
        .into_iter()
        .collect()
    }),
    ("a new node lost", |f| {
        each(f.new_convolutions(), |at| {
            f.with(|graph| {
                graph.node.remove(at);
                Some(())
            })
        })
    }),
    ("a new node behind its reader", |f| {
        each(f.new_convolutions(), |at| {
            f.with(|graph| {
                let node = graph.node.remove(at);
                graph.node.push(node);
                Some(())
            })
        })
    }),
    ("a new node written twice", |f| {
        each(f.new_convolutions(), |at| {
            f.with(|graph| {
                graph.node.insert(at, graph.node[at].clone());
                Some(())
            })
        })
    }),
    ("a bias not read", |f| {
        each(f.new_convolutions(), |at| {
            f.with(|graph| {
                (graph.node[at].input.len() > 2).then(|| drop(graph.node[at].input.pop()))
            })
        })
    }),
    ("pads one towards the beginning", |f| {
        each(f.new_convolutions(), |at| {
            f.with(|graph| {
                let pads =
                    &mut graph.node[at].attribute.iter_mut().find(|a| a.name() == "pads")?.ints;
                let axes = pads.len() / 2;
                (pads[0], pads[axes]) = (pads[0] + 1, pads[axes] - 1);
                Some(())
            })
        })
    }),
    ("an untouched node changed", |f| {
        each(f.nodes(|node| node.op_type() == "Relu"), |at| {
            f.with(|graph| {
                graph.node[at].op_type = Some("Identity".into());
                Some(())
            })
        })
    }),
    ("a weight stored in another type", |f| {
        each(f.new_weights(), |at| f.with(|graph| retyped(&mut graph.initializer[at])))
    }),
    ("another operator set", |f| {
        let mut model = f.new.clone();
        model.opset_import[0].version = Some(model.opset_import[0].version() + 1);
        vec![model]
    }),
    ("training mode left on", training_left),
];

fn each(places: Vec<usize>, make: impl Fn(usize) -> Option<ModelProto>) -> Vec<ModelProto> {
    few(places).into_iter().filter_map(make).collect()
}

/// Changes the largest number of a tensor by a millionth; returns `None` if its type does not
/// show that.
fn bump(tensor: &mut TensorProto) -> Option<()> {
    let float = Float::from_onnx(tensor.data_type())?;
    let mut changed = values(tensor)?;
    let largest = |a: &&mut f64, b: &&mut f64| a.abs().total_cmp(&b.abs());
    *changed.iter_mut().max_by(largest)? *= 1.000_001;
    let new = tensor::from_floats(tensor.name(), &changed, float);
    let differs = new.raw_data() != tensor.raw_data();
    *tensor = new;
    differs.then_some(())
}

fn retyped(tensor: &mut TensorProto) -> Option<()> {
    let other = if tensor.data_type() == Float::F32.to_onnx() { Float::F64 } else { Float::F32 };
    *tensor = tensor::from_floats(tensor.name(), &values(tensor)?, other);
    Some(())
}

/// Gives a new tensor the data of a tensor of the same shape and type in the old file.
fn stale(files: &Files, at: usize) -> Option<ModelProto> {
    let fused = &files.graph().initializer[at];
    let old = files.old.graph.as_ref()?.initializer.iter().find(|old| {
        (&old.dims, old.data_type()) == (&fused.dims, fused.data_type()) && old.raw_data.is_some()
    })?;
    files.with(|graph| {
        graph.initializer[at].raw_data.clone_from(&old.raw_data);
        Some(())
    })
}

/// Exchanges an input of new convolutions that follow each other, where the shapes are the same.
fn inputs_exchanged(files: &Files, input: usize) -> Vec<ModelProto> {
    let convolutions = files.new_convolutions();
    let pairs = convolutions.iter().zip(convolutions.iter().skip(1));
    let exchanged = |(&a, &b): (&usize, &usize)| {
        let name = |at: usize| files.graph().node[at].input.get(input).cloned();
        let (first, second) = (name(a)?, name(b)?);
        let dims = |name: &str| {
            let all = &files.graph().initializer;
            all.iter().find(|tensor| tensor.name() == name).map(|tensor| tensor.dims.clone())
        };
        (first != second && dims(&first) == dims(&second)).then_some(())?;
        files.with(|graph| {
            (graph.node[a].input[input], graph.node[b].input[input]) = (second, first);
            Some(())
        })
    };
    pairs.filter_map(exchanged).collect()
}

/// Applies `change` to the outputs of blocks of the main graph that follow each other.
fn next_to_each_other(
    files: &Files,
    change: impl Fn(&mut GraphProto, &str, &str) -> Option<()>,
) -> Vec<ModelProto> {
    let pairs = files.outputs.iter().zip(files.outputs.iter().skip(1));
    few(pairs.collect())
        .into_iter()
        .filter_map(|(first, second)| files.with(|graph| change(graph, first, second)))
        .collect()
}

/// Lets all nodes that read `from` read `to`; returns `None` if there are none.
fn rewire(graph: &mut GraphProto, from: &str, to: &str) -> Option<()> {
    let mut readers = 0;
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if input == from {
            to.clone_into(input);
            readers += 1;
        }
    }
    (readers > 0).then_some(())
}

/// Returns whether an old node joins two different tensors, neither of them stored.
fn joins(files: &Files, node: &NodeProto) -> bool {
    let stored: HashSet<&str> = files.graph().initializer.iter().map(TensorProto::name).collect();
    ["Add", "Mul"].contains(&node.op_type())
        && node.input[0] != node.input[1]
        && node.input.iter().all(|input| !stored.contains(input.as_str()))
        && !files.is_new(&node.output[0])
}

/// Puts a convolution of the old model, with its weights, back before a block's new node; if
/// `read` is set, what read the block reads the convolution.
fn arms_left(files: &Files, read: bool) -> Vec<ModelProto> {
    let old = files.old.graph.as_ref().unwrap();
    each(files.new_convolutions(), |at| {
        let new = &files.graph().node[at];
        let arm = old.node.iter().find(|node| {
            node.op_type() == new.op_type()
                && node.input[0] == new.input[0]
                && node.output[0] != new.output[0]
                && old.initializer.iter().any(|tensor| tensor.name() == node.input[1])
        })?;
        files.with(|graph| {
            let known = |graph: &GraphProto, name: &str| {
                graph.initializer.iter().any(|tensor| tensor.name() == name)
            };
            for input in &arm.input[1..] {
                let weight = old.initializer.iter().find(|tensor| tensor.name() == input)?;
                if !known(graph, input) {
                    graph.initializer.push(weight.clone());
                }
            }
            if read {
                rewire(graph, &new.output[0], &arm.output[0])?;
            }
            graph.node.insert(at, arm.clone());
            Some(())
        })
    })
}

/// Puts a converted norm back as it stood in the old file.
fn training_left(files: &Files) -> Vec<ModelProto> {
    let old = files.old.graph.as_ref().unwrap();
    let forms = files.changes.iter().flat_map(|changes| &changes.eval_forms).map(|(_, form)| form);
    let places = files.nodes(|node| forms.clone().any(|form| form == node));
    each(places, |at| {
        let output = &files.graph().node[at].output[0];
        let before = old.node.iter().find(|node| node.output[0] == *output)?;
        files.with(|graph| {
            graph.node[at] = before.clone();
            Some(())
        })
    })
}
