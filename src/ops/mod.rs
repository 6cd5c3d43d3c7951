//! What operators mean, as linear algebra.
//!
//! [`reading`] goes over the nodes of a graph and asks [`table`], which has one row per
//! operator, for the function that reads it. These functions stand by what they read: [`conv`]
//! (windows), [`product`] (matrices), [`pointwise`] (scales, shifts), [`frame`] (pads and
//! crops), [`filled`] (borders of numbers, tried out in [`moved`]), [`sum`], [`axes`],
//! [`views`], [`resized`]. What they find is a [`meaning`](meaning::Meaning), kept in
//! [`meanings`]; what they look up comes from a [`reader`]; where they find none, they [`stop`].
//! [`training`] tells what becomes of nodes that were exported in training mode, [`forms`] in which of
//! several forms the file says what can be said in several; [`scaling`] says what operators do
//! to factors of channels.
//!
//! Nothing is edited here, and nothing is searched for: that is the planner's.

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
