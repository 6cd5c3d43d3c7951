//! Tests of what regions of linear operators become.

mod random_regions;
