//! A candidate: one way in which a tensor might be computed, and the steps to it.
//!
//! Knows the planner's graph and forms; does not decide which steps pay.

use crate::affine::Geometry;
use crate::onnx::ids::NodeId;
use crate::plan::cost::Gain;
use crate::plan::form::{Form, FormStep};
use crate::plan::net::Net;

/// One way in which a tensor might be computed.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The form by which it would be computed.
    pub form: Form<Geometry>,
    /// The steps to the form.
    pub steps: Vec<FormStep<NodeId>>,
    /// What it would gain.
    pub gain: Gain,
}

impl Candidate {
    /// Returns the present form of node `id`, without a gain yet; `None` if the node is not
    /// linear.
    pub fn at(net: &Net, id: NodeId) -> Option<Self> {
        let form = net.form(id)?.clone();
        Some(Candidate { form, steps: Vec::new(), gain: Gain::default() })
    }

    /// Reads the form through the tensor that node `id` makes; returns whether the terms that
    /// read that tensor compose with it.
    pub fn expand(&mut self, net: &Net, id: NodeId) -> bool {
        let Some((at, inner)) = net.reader.graph.node(id).output().zip(net.form(id)) else {
            return false;
        };
        let is_expanded = self.form.go_through(at, inner.clone(), net.reader).is_ok();
        self.steps.extend(is_expanded.then_some(FormStep::Through(id)));
        is_expanded
    }

    /// Reads the form through the tensor that node `id` makes, as the one term that the sum of the
    /// node becomes if it is read `through` other nodes; returns whether the terms that read the
    /// tensor compose with that term.
    pub fn expand_as_one(&mut self, net: &Net, id: NodeId, through: Vec<NodeId>) -> bool {
        let Some((at, mut sum)) = net.reader.graph.node(id).output().zip(Candidate::at(net, id))
        else {
            return false;
        };
        let is_expanded = through.iter().all(|&inner| sum.expand(net, inner))
            && self.form.go_through(at, sum.form, net.reader).is_ok();
        self.steps.extend(is_expanded.then_some(FormStep::AsOne(id, through)));
        is_expanded
    }

    /// Reads the form through the means that node `id` makes, as a view; returns whether the
    /// terms that read the means compose with the view.
    pub fn average(&mut self, net: &Net, id: NodeId) -> bool {
        let means = Form::of_means(net.meanings, id, Geometry::identity());
        let Some((at, means)) = net.reader.graph.node(id).output().zip(means) else { return false };
        let is_read = self.form.go_through(at, means, net.reader).is_ok();
        self.steps.extend(is_read.then_some(FormStep::Mean(id)));
        is_read
    }

    /// Puts all terms aside but the selected ones.
    pub fn select(&mut self, selected: &[usize]) {
        self.form.select(selected);
        self.steps.push(FormStep::Select(selected.to_vec()));
    }

    /// Returns the candidate with the terms that were put aside part of the sum again.
    pub fn joined(&self, net: &Net) -> Option<Self> {
        let mut joined = self.clone();
        joined.form.join(net.reader).ok()?;
        joined.steps.push(FormStep::Join);
        Some(joined)
    }

    /// Returns the candidate with the kernels of neighbouring parts as one; `None` if there are
    /// none.
    pub fn stacked(&self, net: &Net) -> Option<Self> {
        let mut stacked = self.clone();
        stacked.steps.push(FormStep::Stack);
        stacked.form.stack(net.reader, net.meanings).then_some(stacked)
    }

    /// Whether the form can be written, and is right for the sizes that are known.
    pub fn is_legal(&self, net: &Net) -> bool {
        let terms = &self.form.terms;
        self.form.is_written()
            && terms.iter().all(|term| term.is_read(net.reader.forms))
            && self.form.validity(net.reader).is_ok()
    }
}
