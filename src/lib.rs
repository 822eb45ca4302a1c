pub mod central;
pub mod domain;
pub mod store;
