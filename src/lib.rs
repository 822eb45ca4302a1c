pub mod central;
pub mod domain;
