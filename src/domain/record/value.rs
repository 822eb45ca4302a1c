//! Floor 0. When two stored values are the same.
//!
//! The engine compares by BSON type and bits: 1, 1.0 and a 64-bit 1 are three values, and NaN equals
//! itself. The order of keys counts only inside arrays, because MongoDB compares whole arrays that way;
//! elsewhere fields are compared one by one.

use bson::{Bson, Document};

/// Whether two values are the same, ignoring the key order of documents outside arrays.
pub fn same(a: &Bson, b: &Bson) -> bool {
    match (a, b) {
        (Bson::Document(a), Bson::Document(b)) => same_document(a, b),
        _ => identical(a, b),
    }
}

/// [`same`] for values that may be absent.
pub fn same_option(a: Option<&Bson>, b: Option<&Bson>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => same(a, b),
        _ => false,
    }
}

/// [`same`] for documents.
pub fn same_document(a: &Document, b: &Document) -> bool {
    a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
}

/// Whether two values are the same including key order.
pub fn identical(a: &Bson, b: &Bson) -> bool {
    match (a, b) {
        (Bson::Double(a), Bson::Double(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        (Bson::Array(a), Bson::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| identical(a, b))
        }
        (Bson::Document(a), Bson::Document(b)) => identical_document(a, b),
        // The library's own comparison ignores key order in the scope, and takes NaN there for two values.
        (Bson::JavaScriptCodeWithScope(a), Bson::JavaScriptCodeWithScope(b)) => {
            a.code == b.code && identical_document(&a.scope, &b.scope)
        }
        _ => a == b,
    }
}

fn identical_document(a: &Document, b: &Document) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((ka, va), (kb, vb))| ka == kb && identical(va, vb))
}

/// Whether a name in the document, at whatever depth, begins with `$`. Not every server stores such names.
pub fn has_dollar_name(document: &Document) -> bool {
    fn within(value: &Bson) -> bool {
        match value {
            Bson::Document(document) => has_dollar_name(document),
            Bson::Array(values) => values.iter().any(within),
            Bson::JavaScriptCodeWithScope(code) => has_dollar_name(&code.scope),
            _ => false,
        }
    }
    document.iter().any(|(name, value)| name.starts_with('$') || within(value))
}

/// More members than people have roles: each is compared with each. What has more is one value, and no set.
const SET_MEMBERS_MAX: usize = 256;

/// Whether a value is no set, or one with few enough members.
pub fn is_small_set(value: &Bson) -> bool {
    value.as_array().is_none_or(|members| members.len() <= SET_MEMBERS_MAX)
}

/// Whether two values hold the same, in whatever order and however often; nothing is an empty set, and what is no array, or
/// too long a one ([`is_small_set`]), is equal to itself only.
pub fn is_same_set(a: Option<&Bson>, b: Option<&Bson>) -> bool {
    fn members(value: Option<&Bson>) -> Option<&[Bson]> {
        value.map_or(Some(&[]), |value| value.as_array().map(Vec::as_slice))
    }
    let (Some(of_a), Some(of_b)) = (members(a), members(b)) else {
        return same_option(a, b);
    };
    if ![a, b].into_iter().flatten().all(is_small_set) {
        return same_option(a, b);
    }
    let within = |set: &[Bson], of: &[Bson]| of.iter().all(|value| is_member(set, value));
    within(of_a, of_b) && within(of_b, of_a)
}

/// Whether a set holds this value, with type and bits.
pub fn is_member(set: &[Bson], value: &Bson) -> bool {
    set.iter().any(|other| identical(other, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{bson, doc};

    #[test]
    fn types_and_bits_count() {
        assert!(!same(&Bson::Int32(1), &Bson::Int64(1)));
        assert!(!same(&Bson::Int32(1), &Bson::Double(1.0)));
        assert!(!same(&Bson::Double(0.0), &Bson::Double(-0.0)));
        assert!(same(&Bson::Double(f64::NAN), &Bson::Double(f64::NAN)));
        assert!(!same_option(None, Some(&Bson::Null)));
    }

    #[test]
    fn what_has_too_many_members_is_no_set() {
        let numbers = |count: i32| -> Vec<Bson> { (0..count).map(Bson::Int32).collect() };
        let turned = |count: i32| -> Vec<Bson> { (0..count).rev().map(Bson::Int32).collect() };
        let is_set = |count: i32| is_same_set(Some(&numbers(count).into()), Some(&turned(count).into()));
        assert!(is_set(SET_MEMBERS_MAX as i32));
        assert!(!is_set(SET_MEMBERS_MAX as i32 + 1));
        let many = Bson::Array(numbers(100_000));
        assert!(is_same_set(Some(&many), Some(&many)));
    }

    #[test]
    fn key_order_counts_only_inside_arrays() {
        assert!(same_document(&doc! {"a": {"x": 1, "y": 2}, "b": 1}, &doc! {"b": 1, "a": {"y": 2, "x": 1}}));
        assert!(!same(&bson!([{"x": 1, "y": 2}]), &bson!([{"y": 2, "x": 1}])));
    }
}
