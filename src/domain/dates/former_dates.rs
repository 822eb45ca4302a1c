//! Floor 0. Where a record had dates that were taken away: null, an empty list, or no field at all.
//!
//! A form that takes a date away and sets it again later sends null and then text. BSON knows no null that is a date, so
//! without this the second would be text for ever. What is remembered is spelled as a document like the record itself,
//! with a date at each such place and one row for all rows of a list: `{"d": date, "rows": [{"when": date}]}`. The date
//! says whether days were there ([`crate::domain::dates::days`]).

use std::collections::{BTreeMap, HashMap};

use bson::{Bson, DateTime, Document, RawBsonRef, RawDocument};

use super::days::is_day;

/// Most places that are remembered of a record; those first in the order of keys.
const PLACES_MAX: usize = 256;

/// Marks dates of which some were no days, or of which that is not known: earlier versions wrote no other mark.
const MOMENTS_MARK: DateTime = DateTime::from_millis(0);
/// Marks days. It is a midnight itself.
const DAYS_MARK: DateTime = DateTime::from_millis(24 * 60 * 60 * 1000);

/// Whether a date marks a place that held moments. As a date of a record it is rare enough to be taken for one.
pub fn is_mark_of_moments(date: DateTime) -> bool {
    date == MOMENTS_MARK
}

/// What stands under one key path, the places in lists left out.
#[derive(Debug, Default)]
struct Place {
    has_dates: bool,
    /// A date that is no day.
    has_moments: bool,
    /// Something that is neither a date nor null nor a list.
    has_others: bool,
    has_lists: bool,
    keys: BTreeMap<String, Place>,
}

/// The places of `new` that hold nothing now and held dates, and nothing else, in `old`, or in what was remembered of it.
pub fn of(old: &RawDocument, remembered: Option<&Document>, new: &RawDocument) -> Document {
    let mut places = Place::default();
    places.add_fields(old);
    for (key, value) in remembered.into_iter().flatten() {
        places.keys.entry(key.clone()).or_default().remember(value);
    }
    places.take_filled(vec![RawBsonRef::Document(new)]);
    let mut left = PLACES_MAX;
    places.fields(&mut left)
}

impl Place {
    fn add(&mut self, value: RawBsonRef<'_>) {
        match value {
            RawBsonRef::DateTime(date) => {
                self.has_dates = true;
                self.has_moments |= !is_day(date);
            }
            RawBsonRef::Null => {}
            RawBsonRef::Array(values) => {
                self.has_lists = true;
                values.into_iter().flatten().for_each(|value| self.add(value));
            }
            RawBsonRef::Document(document) => {
                self.has_others = true;
                self.add_fields(document);
            }
            _ => self.has_others = true,
        }
    }

    fn add_fields(&mut self, document: &RawDocument) {
        for (key, value) in document.into_iter().flatten() {
            self.keys.entry(key.as_str().to_owned()).or_default().add(value);
        }
    }

    fn remember(&mut self, value: &Bson) {
        match value {
            Bson::DateTime(mark) => {
                self.has_dates = true;
                self.has_moments |= is_mark_of_moments(*mark);
            }
            Bson::Array(values) => {
                self.has_lists = true;
                values.iter().for_each(|value| self.remember(value));
            }
            Bson::Document(document) => {
                for (key, value) in document {
                    self.keys.entry(key.clone()).or_default().remember(value);
                }
            }
            _ => {}
        }
    }

    /// Takes the places out at which one of these values is something.
    fn take_filled(&mut self, values: Vec<RawBsonRef<'_>>) {
        let (mut documents, mut rest) = (Vec::new(), values);
        let mut is_filled = false;
        while let Some(value) = rest.pop() {
            match value {
                RawBsonRef::Null => {}
                RawBsonRef::Array(values) => rest.extend(values.into_iter().flatten()),
                RawBsonRef::Document(document) => documents.push(document),
                _ => is_filled = true,
            }
        }
        if is_filled || !documents.is_empty() {
            self.has_dates = false;
            self.has_moments = false;
        }
        if is_filled {
            self.keys.clear();
        }
        // Each document is gone through once: looking for a key in one goes through all of them.
        let mut filled: HashMap<&str, Vec<RawBsonRef<'_>>> = HashMap::new();
        for (key, value) in documents.into_iter().flatten().flatten() {
            let key = key.as_str();
            if self.keys.contains_key(key) {
                filled.entry(key).or_default().push(value);
            }
        }
        for (key, values) in filled {
            if let Some(place) = self.keys.get_mut(key) {
                place.take_filled(values);
            }
        }
    }

    /// The places in it as a document.
    fn fields(&self, left: &mut usize) -> Document {
        let keys = self.keys.iter();
        keys.filter_map(|(key, place)| Some((key.clone(), place.spelled(left)?))).collect()
    }

    fn spelled(&self, left: &mut usize) -> Option<Bson> {
        let value = if self.has_dates && !self.has_others {
            *left = left.checked_sub(1)?;
            Bson::DateTime(if self.has_moments { MOMENTS_MARK } else { DAYS_MARK })
        } else {
            Bson::Document(Some(self.fields(left)).filter(|fields| !fields.is_empty())?)
        };
        Some(if self.has_lists { Bson::Array(vec![value]) } else { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn formerly(old: &Document, remembered: Option<&Document>, new: &Document) -> Document {
        let raw = |document: &Document| bson::serialize_to_raw_document_buf(document).unwrap();
        of(&raw(old), remembered, &raw(new))
    }

    #[test]
    fn dates_that_were_taken_away_are_remembered_until_something_stands_there() {
        let day = DateTime::from_millis(497_232_000_000);
        let mark = DAYS_MARK;
        let old = doc! {"d": day, "l": [day, day], "n": {"d": day, "t": "x"}, "rows": [{"when": day}, {"when": null}],
        "gone": day, "kept": day, "mixed": [day, "text"], "text": "x", "none": null};
        let new = doc! {"d": null, "l": [], "n": {"d": null, "t": null}, "rows": [{"when": null}], "kept": day,
        "mixed": null, "text": null, "none": null};
        let kept = formerly(&old, None, &new);
        let expected =
            doc! {"d": mark, "gone": mark, "l": [mark], "n": {"d": mark}, "rows": [{"when": mark}]};
        assert_eq!(kept, expected);
        // Other changes leave it; what is filled again, with whatever, is no former date.
        assert_eq!(formerly(&new, Some(&kept), &doc! {"kept": day, "text": "y"}), expected);
        let filled = doc! {"d": "text", "l": [day], "n": null, "rows": [], "gone": day, "kept": null};
        let expected = doc! {"kept": mark, "n": {"d": mark}, "rows": [{"when": mark}]};
        assert_eq!(formerly(&new, Some(&kept), &filled), expected);
        assert_eq!(
            formerly(
                &filled,
                Some(&expected),
                &doc! {"l": [day], "n": 5, "rows": "x", "gone": day, "kept": {}}
            ),
            doc! {}
        );
    }

    #[test]
    fn whether_they_were_days_is_remembered_too() {
        let (day, moment) = (DateTime::from_millis(497_232_000_000), DateTime::from_millis(497_232_060_000));
        let old =
            doc! {"day": day, "moment": moment, "both": [day, moment], "first": DateTime::from_millis(0)};
        let expected =
            doc! {"both": [MOMENTS_MARK], "day": DAYS_MARK, "first": DAYS_MARK, "moment": MOMENTS_MARK};
        let former = formerly(&old, None, &doc! {});
        assert_eq!(former, expected);
        assert_eq!(formerly(&doc! {}, Some(&former), &doc! {}), expected);
    }

    /// Each field is gone through once: each by each would be hundreds of millions of steps.
    #[test]
    fn a_record_of_many_fields_is_gone_through_once() {
        let day = DateTime::from_millis(1);
        let all = |value: Bson| (0..20_000).map(|n| (format!("k{n}"), value.clone())).collect::<Document>();
        let (old, mut new) = (all(Bson::DateTime(day)), all(Bson::Null));
        assert_eq!(formerly(&old, None, &new).len(), PLACES_MAX);
        new.insert("k0", 1);
        let former = formerly(&old, None, &new);
        assert!(!former.contains_key("k0") && former.contains_key("k1"));
        // The same of as many rows of a list, each with a field of its own.
        let rows = |value: Bson| -> Document {
            doc! {"rows": (0..5_000).map(|n| doc! {format!("k{n}"): value.clone()}.into()).collect::<Vec<Bson>>()}
        };
        let former = formerly(&rows(Bson::DateTime(day)), None, &rows(Bson::Null));
        assert_eq!(former.get_array("rows").unwrap().len(), 1);
    }

    #[test]
    fn a_record_has_room_for_so_many_only() {
        let day = DateTime::from_millis(1);
        let old: Document = (0..1000).map(|n| (n.to_string(), Bson::DateTime(day))).collect();
        assert_eq!(formerly(&old, None, &doc! {}).len(), PLACES_MAX);
    }
}
