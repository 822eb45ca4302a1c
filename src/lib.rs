//! thalamus-edge: a GNU Health federation node for places without a network.
//!
//! # Floors
//!
//! Imports point down only (`tests/architecture/main.rs`).
//!
//! | floor | modules | what they hide |
//! |---|---|---|
//! | 5 | [`cli`], [`app`], [`config`], [`tls`], [`demo`] | the process: arguments, files, clock, signals |
//! | 4 | [`http`] | the API that clients speak |
//! | 3 | [`sync`] | the round that reconciles with the centre |
//! | 3 | [`backup`] | backups: made, encrypted, checked, restored |
//! | 2 | [`accounts`], [`central`] | passwords and sessions; MongoDB |
//! | 1 | [`store`] | redb, transactions, the bookkeeping of every change |
//! | 0 | [`domain`] | the rules: kinds of record, merge, access, JSON |
//! | 0 | `files` | files that are there whole or not at all |
//! | 0 | [`flaw`] | what tests break on purpose |
//! | 0 | [`memory`] | settings of the allocator |
//!
//! # Life of a request
//!
//! The route table is built from [`domain::schema`]. Login comes before routing. A write reads the record,
//! checks the precondition, authorizes against what it read, computes the new document, and hands it to
//! [`store::Store::edit`] together with the bytes that it read: if they are still the stored ones, record,
//! base, journal, audit entry and indexes are written in one transaction, which many requests share, and the client is
//! answered when it is on disk.
//!
//! # Life of a round
//!
//! Lease, settle, scan, deletes, conflicts, push, report: see [`sync`]. Network calls happen between store
//! transactions, never inside one.

pub mod accounts;
pub mod app;
pub mod backup;
pub mod central;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
mod files;
pub mod flaw;
pub mod http;
pub mod memory;
pub mod store;
pub mod sync;
pub mod tls;
