//! What tests of more than one crate share.

pub mod canned;
pub mod cli;
pub mod company;
pub mod dialog;
pub mod door;
pub mod fake_tree;
pub mod fuzz;
pub mod local_model;
pub mod medium;
pub mod mounted;
pub mod objects;
pub mod pair;
pub mod parsec_package;
pub mod parsec_server;
pub mod phone;
pub mod power;
pub mod processes;
pub mod simulation;
pub mod survival;
pub mod vectors;
pub mod world;
