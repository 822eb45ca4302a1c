//! Floor 0. Text as people type it and programs send it.
//!
//! Hides Unicode: which differences between two texts are typography, which characters can be seen, and which encoding
//! bytes have.
//!
//! - `folding`: text without its typography, by which names are compared and found
//! - `visible`: how much of a text can be seen
//! - `encoding`: the encoding of bytes that others sent as text

pub mod encoding;
pub mod folding;
pub mod visible;
