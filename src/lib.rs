pub mod accounts;
pub mod central;
pub mod config;
pub mod domain;
pub mod store;
pub mod tls;
