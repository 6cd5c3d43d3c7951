//! What is known of tensors without running the model: their ranks, sizes, integers and
//! constants; and what must hold of them for a reading to be right.
//!
//! [`operators`] is the table of what is known of ONNX's operators, and [`row`] defines what one
//! row says; the functions that rows point to are in [`shape_rules`], [`estimate`] and
//! [`ranges`]. Two parts rest on this table. Constants: [`counted`] finds them, with
//! [`constants`], which knows those of one graph and keeps their values; [`constant_data`] reads
//! these values, [`folding`] evaluates one node within a [`budget`], and [`evaluate`] tells
//! whether the result is what ONNX says. Shapes: [`inference`] asks the rules about one node,
//! [`propagation`] about a graph, and [`shapes`] puts the rules, the engine and the readers of a
//! tensor together.
//!
//! [`dependence`] tells what changes with the input, [`reach`] how far windows look, [`kernels`]
//! how their weights are laid out, and [`validity`] for which inputs a reading is right. None of
//! these modules knows what an operator means as linear algebra.

pub mod budget;
pub mod constant_data;
pub mod constants;
pub mod counted;
pub mod dependence;
pub mod estimate;
pub mod evaluate;
pub mod folding;
pub mod inference;
pub mod kernels;
pub mod operators;
pub mod propagation;
pub mod ranges;
pub mod reach;
pub mod roles;
pub mod row;
pub mod shape_rules;
pub mod shapes;
pub mod validity;
