//! The daemon without its process: a cluster being served, call by call, and the loop around it.

mod common;
mod foreign;
mod merged_once;
mod served;
mod service;
