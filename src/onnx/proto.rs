//! The ONNX messages, generated from `proto/onnx.proto`.
//!
//! Decoding a message drops fields that this schema does not know, so nothing
//! here is ever written back in place of bytes that were read: see
//! [`super::splice`].

#![allow(missing_docs, unnameable_types, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
