//! Tests of the tool as a user meets it: exit codes, words, reports, limits.

mod cli;
mod commands;
mod limits;
mod page;
mod report;
mod resources;
mod stopped;
