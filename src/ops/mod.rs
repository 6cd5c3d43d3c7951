//! What operators mean, as linear algebra.
//!
//! [`reading`] goes over the nodes of a graph and asks [`table`], which has one row per
//! operator, for the function that reads a node. These functions are grouped by what they read:
//! [`conv`] (windows), [`product`] (matrices), [`pointwise`] (scales, shifts), [`frame`] (pads
//! and crops), [`filled`] (borders of numbers, tried out in [`moved`]), [`picked`] (elements
//! along an axis), [`neutral`] (nodes that change nothing), [`sum`], [`axes`], [`views`],
//! [`resized`]. They return a [`meaning`](meaning::Meaning), kept in [`meanings`], or a reason
//! to [`stop`]; a [`reader`] looks up what they need. [`training`] decides what nodes exported
//! in training mode become, [`forms`] which of several equivalent forms the file uses, and
//! [`scaling`] what operators do to factors of channels.
//!
//! Edits nothing and searches for nothing: that is the planner's.

pub mod axes;
pub mod conv;
pub mod filled;
pub mod forms;
pub mod frame;
pub mod meaning;
pub mod meanings;
pub mod moved;
pub mod neutral;
pub mod pad_mode;
pub mod picked;
pub mod pointwise;
pub mod product;
pub mod reader;
pub mod reading;
pub mod resized;
pub mod scaling;
pub mod stop;
pub mod sum;
pub mod table;
pub mod training;
pub mod views;
