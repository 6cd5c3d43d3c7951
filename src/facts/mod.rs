//! What is known of tensors without running the model: how many dimensions, which sizes,
//! which integers, which constants; and what has to hold of them for a reading to be right.
//!
//! [`operators`] is the table of what is known of ONNX's operators, [`row`] what one says; the
//! functions that rows point at stand in [`shape_rules`], [`estimate`] and [`ranges`]. On it
//! rest two stories. Constants: [`counted`] finds them, with what [`constants`] knows of one
//! graph, which keeps their values; [`constant_data`] reads these, [`folding`] evaluates one
//! node within a [`budget`], and [`evaluate`] tells whether that is what ONNX says. Shapes:
//! [`inference`] asks the rules about one node, [`propagation`] about a graph, and [`shapes`]
//! puts rules, engine and readers together.
//!
//! [`dependence`] tells what changes with the input, [`reach`] how far windows look,
//! [`kernels`] how their weights lie, and [`validity`] for which inputs a reading is right.
//! None of them knows what an operator means as linear algebra.

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
