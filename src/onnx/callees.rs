//! The local functions of a model, and which of them are called.
//!
//! Knows the format; not which calls are to be inlined.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use crate::onnx::model::{Invalid, Model, is_default_domain};
use crate::onnx::node::bodies;
use crate::onnx::proto::{FunctionProto, NodeProto, OperatorSetIdProto};
use crate::onnx::schema::model_field;
use crate::onnx::splice::{self, Edit};
use crate::onnx::wire::Field;

/// The key of a function: its domain, name and overload.
pub type FunctionKey = (String, String, String);

/// The functions of one model.
pub struct Callees {
    /// All of them, by key.
    pub by_id: HashMap<FunctionKey, Callee>,
}

/// One local function.
pub struct Callee {
    /// Its entry in the file.
    pub field: Field,
    /// The decoded message.
    pub function: Rc<FunctionProto>,
    /// Whether its operators mean the same in the model's operator sets.
    is_understood: bool,
    /// Whether it has convolutions or batch norms.
    pub holds_linear: bool,
    /// How deep bodies nest in it.
    pub nesting: usize,
}

impl Callees {
    /// Decodes the local functions of `model`.
    ///
    /// # Errors
    /// Returns an error if one cannot be decoded.
    pub fn read(model: &Model) -> Result<Self, Invalid> {
        let mut by_id = HashMap::new();
        for field in &model.functions {
            let function: FunctionProto = model.decode(field, "function")?;
            let id = (
                function.domain().to_owned(),
                function.name().to_owned(),
                function.overload().to_owned(),
            );
            let known = Callee {
                field: field.clone(),
                is_understood: false,
                holds_linear: holds_linear(&function),
                nesting: nesting_in(&function.node),
                function: Rc::new(function),
            };
            by_id.insert(id, known);
        }
        let ids: HashSet<FunctionKey> = by_id.keys().cloned().collect();
        for known in by_id.values_mut() {
            known.is_understood = is_understood(&known.function, model, &ids);
        }
        Ok(Callees { by_id })
    }

    /// Returns the function that `node` calls, if the call can be inlined.
    pub fn of(&self, node: &NodeProto) -> Option<&Callee> {
        // In ONNX's own domain, engines use the operator of the standard, even if a function
        // has the same name.
        if bodies(node).next().is_some() || is_default_domain(node.domain()) {
            return None;
        }
        self.by_id.get(&id_of(node)).filter(|known| known.is_understood)
    }

    /// Returns edits that make `model` import the domains of those `called` functions that its
    /// own nodes call only after the calls around them are inlined: a model need not import
    /// what only functions use.
    pub fn missing_imports(&self, called: &[FunctionKey], model: &Model) -> Vec<Edit> {
        let called = called.iter().filter(|id| self.by_id.contains_key(*id));
        let domains = called.map(|(domain, ..)| domain.as_str());
        let is_missing =
            |domain: &&str| !is_default_domain(domain) && !model.imports.contains_key(*domain);
        let missing: BTreeSet<&str> = domains.filter(is_missing).collect();
        let end = model.bytes().len();
        let import = |domain: &str| {
            // Functions are in no particular order, and may import different versions.
            let imports = self.by_id.values().flat_map(|known| &known.function.opset_import);
            let versions = imports.filter(|import| import.domain() == domain);
            let version = versions.map(OperatorSetIdProto::version).max().unwrap_or(1);
            let import =
                OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) };
            let entry = splice::entry(model_field::OPSET_IMPORT, &import);
            Edit::replace(end..end, entry.into())
        };
        missing.into_iter().map(import).collect()
    }

    /// Returns the functions that are `called`, directly or by way of others.
    pub fn reached(&self, called: Vec<FunctionKey>) -> HashSet<FunctionKey> {
        let mut reached = HashSet::new();
        let mut open = called;
        while let Some(id) = open.pop() {
            let Some(known) = self.by_id.get(&id) else { continue };
            if reached.insert(id) {
                open.extend(called_by(&known.function.node));
            }
        }
        reached
    }
}

/// Whether `function` is written for the operator set of the model, and the model imports all
/// foreign operators that it uses, in the same version; `ids` are the keys of the model's
/// functions.
fn is_understood(function: &FunctionProto, model: &Model, ids: &HashSet<FunctionKey>) -> bool {
    let mut imports = function.opset_import.iter();
    let own = imports.find(|import| is_default_domain(import.domain()));
    let is_known = |id: &FunctionKey| {
        let domain = id.0.as_str();
        let imported = || {
            let mut imports = function.opset_import.iter();
            let import = imports.find(|import| import.domain() == domain);
            import.map(OperatorSetIdProto::version)
        };
        is_default_domain(domain)
            || ids.contains(id)
            || imported() == model.imports.get(domain).copied()
    };
    own.is_none_or(|import| import.version() == model.opset)
        && called_by(&function.node).iter().all(is_known)
}

fn holds_linear(function: &FunctionProto) -> bool {
    let linear = ["Conv", "ConvTranspose", "BatchNormalization"];
    let standard = function.node.iter().filter(|node| is_default_domain(node.domain()));
    standard.map(NodeProto::op_type).any(|op| linear.contains(&op))
}

/// Returns how deep bodies nest in these nodes.
fn nesting_in(nodes: &[NodeProto]) -> usize {
    let bodies = nodes.iter().flat_map(bodies);
    bodies.map(|body| nesting_in(&body.node).saturating_add(1)).max().unwrap_or(0)
}

/// Returns the key of the function that `node` calls, if it is a call.
pub fn id_of(node: &NodeProto) -> FunctionKey {
    (node.domain().to_owned(), node.op_type().to_owned(), node.overload().to_owned())
}

/// Returns the keys of the functions that these nodes and those in their bodies may call.
pub fn called_by<'n>(nodes: impl IntoIterator<Item = &'n NodeProto>) -> Vec<FunctionKey> {
    let mut ids = Vec::new();
    for node in nodes {
        ids.push(id_of(node));
        ids.extend(bodies(node).flat_map(|body| called_by(&body.node)));
    }
    ids
}
