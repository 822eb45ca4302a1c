//! Floor 0. Documents as the MongoDB shell prints and reads them: `ISODate("…")`, `ObjectId("…")`, `NumberLong(5)`.
//!
//! Accepted is JSON and, beside it, what `mongo`, `mongosh`, `mongoexport` of MongoDB 2 and people who write for them use:
//! comments, names without quotation marks, single quotation marks, commas before a closing bracket, regular expressions,
//! and constructors of the types of BSON, with `new` or without. The result is MongoDB extended JSON of version 2.
//! Nothing is evaluated.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value, json};

use super::DOCUMENT_DEPTH_MAX;
use crate::domain::dates::parse_date;

/// What is wrong with a text, and where, both counted from 1; columns in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellError {
    pub message: String,
    pub line: usize,
    pub column: usize,
}

/// Reads one value.
pub fn parse_shell(text: &[u8]) -> Result<Value, ShellError> {
    let mut parser = Parser { bytes: text, at: 0, depth: 0 };
    let read = std::str::from_utf8(text)
        .map_err(|error| {
            parser.at = error.valid_up_to();
            "this is not UTF-8".to_owned()
        })
        .and_then(|_| parser.whole());
    read.map_err(|message| {
        let before = parser.bytes.get(..parser.at.min(text.len())).unwrap_or_default();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        ShellError {
            message,
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + before.len() - line_start,
        }
    })
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

/// An argument of a constructor, as far as constructors have them.
type Arguments = Vec<Value>;

impl Parser<'_> {
    fn whole(&mut self) -> Result<Value, String> {
        let value = self.value()?;
        self.blank()?;
        match self.peek() {
            None => Ok(value),
            Some(_) => Err("something follows the document".to_owned()),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_here = self.peek() == Some(byte);
        self.at += usize::from(is_here);
        is_here
    }

    /// Passes over white space and comments.
    fn blank(&mut self) -> Result<(), String> {
        loop {
            while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
                self.at += 1;
            }
            if self.rest().starts_with(b"//") {
                self.at += self.rest().iter().take_while(|byte| **byte != b'\n').count();
            } else if self.rest().starts_with(b"/*") {
                let end = self.rest().windows(2).skip(2).position(|pair| pair == b"*/");
                self.at += 4 + end.ok_or("a comment does not end")?;
            } else {
                return Ok(());
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        self.blank()?;
        if self.take(byte) { Ok(()) } else { Err(format!("expected `{}`", char::from(byte))) }
    }

    fn value(&mut self) -> Result<Value, String> {
        self.blank()?;
        if self.depth >= DOCUMENT_DEPTH_MAX && matches!(self.peek(), Some(b'{' | b'[')) {
            return Err(format!("nested deeper than {DOCUMENT_DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let value = match self.peek() {
            None => Err("the document ends too early".to_owned()),
            Some(b'{') => self.object(),
            Some(b'[') => self.list(b'[', b']').map(Value::Array),
            Some(b'"' | b'\'') => self.string().map(Value::String),
            Some(b'/') => self.regex(),
            Some(b'-' | b'.' | b'0'..=b'9') => self.number(),
            Some(_) => self.word(),
        };
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, String> {
        let mut fields = Map::new();
        self.expect(b'{')?;
        loop {
            self.blank()?;
            if self.take(b'}') {
                return Ok(Value::Object(fields));
            }
            let start = self.at;
            let key = match self.peek() {
                Some(b'"' | b'\'') => self.string()?,
                _ => self.name().ok_or("expected the name of a field")?,
            };
            if fields.contains_key(&key) {
                self.at = start;
                return Err(format!("{key}: the key stands twice"));
            }
            self.expect(b':')?;
            let value = self.value()?;
            fields.insert(key, value);
            self.blank()?;
            if !self.take(b',') && self.peek() != Some(b'}') {
                return Err("expected `,` or `}`".to_owned());
            }
        }
    }

    fn list(&mut self, opening: u8, closing: u8) -> Result<Vec<Value>, String> {
        let mut values = Vec::new();
        self.expect(opening)?;
        loop {
            self.blank()?;
            if self.take(closing) {
                return Ok(values);
            }
            values.push(self.value()?);
            self.blank()?;
            if !self.take(b',') && self.peek() != Some(closing) {
                return Err(format!("expected `,` or `{}`", char::from(closing)));
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$".contains(byte) || *byte >= 0x80;
        let length = self.rest().iter().take_while(|byte| is_name(byte)).count();
        let name = String::from_utf8(self.rest().get(..length)?.to_vec()).ok()?;
        let is_one = name.chars().next().is_some_and(|first| !first.is_ascii_digit());
        is_one.then(|| {
            self.at += length;
            name
        })
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = self.peek().unwrap_or_default();
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let Some(byte) = self.peek() else {
                return Err("a text does not end".to_owned());
            };
            self.at += 1;
            match byte {
                _ if byte == quote => break,
                b'\\' => self.escape(&mut text)?,
                byte if byte < b' ' => {
                    self.at -= 1;
                    return Err("a control character within a text".to_owned());
                }
                byte => text.push(byte),
            }
        }
        String::from_utf8(text).map_err(|_| "this is not UTF-8".to_owned())
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), String> {
        let byte = self.peek().ok_or("a text does not end")?;
        self.at += 1;
        let c = match byte {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'v' => '\u{b}',
            b'0' if !self.peek().is_some_and(|next| next.is_ascii_digit()) => '\0',
            b'x' => char::from_u32(self.hex(2)?).unwrap_or_default(),
            b'u' => self.unicode()?,
            b'"' | b'\'' | b'\\' | b'/' | b'`' => char::from(byte),
            _ => {
                self.at -= 1;
                return Err("an escape that is not understood".to_owned());
            }
        };
        text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn hex(&mut self, digits: usize) -> Result<u32, String> {
        let text = self.rest().get(..digits).and_then(|text| std::str::from_utf8(text).ok());
        let is_hex = |text: &&str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = text.filter(is_hex).and_then(|text| u32::from_str_radix(text, 16).ok());
        self.at += digits;
        value.ok_or_else(|| "an escape that is not understood".to_owned())
    }

    fn unicode(&mut self) -> Result<char, String> {
        let wrong = || "an escape that is no character".to_owned();
        let first = self.hex(4)?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first).ok_or_else(wrong);
        }
        if !self.rest().starts_with(b"\\u") {
            return Err(wrong());
        }
        self.at += 2;
        let second = self.hex(4)?;
        let second = second.checked_sub(0xDC00).filter(|low| *low < 0x400).ok_or_else(wrong)?;
        char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + second).ok_or_else(wrong)
    }

    fn number(&mut self) -> Result<Value, String> {
        let start = self.at;
        let in_number = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = self.rest().iter().take_while(|byte| in_number(byte)).count();
        let text = String::from_utf8_lossy(self.rest().get(..length).unwrap_or_default()).into_owned();
        let unsigned = text.strip_prefix('-').unwrap_or(&text);
        if unsigned == "Infinity" {
            self.at += length;
            return Ok(json!({"$numberDouble": text}));
        }
        // 010 is eight to some and ten to others.
        let is_octal =
            unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit();
        let is_decimal = unsigned.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        let wrong = || format!("not a number: {}", text.chars().take(40).collect::<String>());
        if is_octal || !is_decimal {
            return Err(wrong());
        }
        let is_whole = unsigned.bytes().all(|byte| byte.is_ascii_digit());
        let value = if is_whole {
            let whole: i64 = text.parse().map_err(|_| "an integer outside 64 bits".to_owned())?;
            // JSON has no integer -0.
            if text == "-0" { Number::from_f64(-0.0).map(Value::Number) } else { Some(Value::from(whole)) }
        } else {
            text.parse().ok().and_then(Number::from_f64).map(Value::Number)
        };
        self.at = if value.is_some() { start + length } else { start };
        value.ok_or_else(wrong)
    }

    fn regex(&mut self) -> Result<Value, String> {
        self.at += 1;
        let (start, mut in_class) = (self.at, false);
        loop {
            match self.peek() {
                None | Some(b'\n') => return Err("a regular expression does not end".to_owned()),
                Some(b'\\') => self.at += 1,
                Some(b'[') => in_class = true,
                Some(b']') => in_class = false,
                Some(b'/') if !in_class => break,
                Some(_) => {}
            }
            self.at += 1;
        }
        let pattern =
            String::from_utf8_lossy(self.bytes.get(start..self.at).unwrap_or_default()).into_owned();
        self.at += 1;
        let options = self.name().unwrap_or_default();
        Ok(json!({"$regularExpression": {"pattern": pattern, "options": options}}))
    }

    fn word(&mut self) -> Result<Value, String> {
        let start = self.at;
        let mut name = self.name().ok_or("expected a value")?;
        if name == "new" {
            self.blank()?;
            name = self.name().ok_or("expected the name of a type after `new`")?;
        }
        // Decimal128.fromString("1.5"), Binary.createFromBase64("...", 0)
        while self.take(b'.') {
            name.push('.');
            name += &self.name().ok_or("expected a name after `.`")?;
        }
        self.blank()?;
        if self.peek() != Some(b'(') {
            let plain = match name.as_str() {
                "true" => json!(true),
                "false" => json!(false),
                "null" => Value::Null,
                "undefined" => json!({"$undefined": true}),
                "NaN" | "Infinity" => json!({"$numberDouble": name}),
                "MinKey" => json!({"$minKey": 1}),
                "MaxKey" => json!({"$maxKey": 1}),
                _ => {
                    self.at = start;
                    return Err(format!("`{name}` is no value"));
                }
            };
            return Ok(plain);
        }
        let arguments = self.list(b'(', b')')?;
        constructed(&name, arguments).map_err(|error| {
            self.at = start;
            error.0
        })
    }
}

/// Why a constructor makes no value.
struct Unmade(String);

impl Unmade {
    fn new(message: impl fmt::Display) -> Unmade {
        Unmade(message.to_string())
    }
}

/// The value that a constructor of the shell makes.
fn constructed(name: &str, arguments: Arguments) -> Result<Value, Unmade> {
    let texts: Vec<Option<&str>> = arguments.iter().map(Value::as_str).collect();
    let text = || match texts.as_slice() {
        [Some(text)] => Ok((*text).to_owned()),
        _ => Err(Unmade::new(format_args!("{name}(…) needs one text"))),
    };
    let number = || match arguments.as_slice() {
        [Value::String(text)] => Ok(text.trim().to_owned()),
        [Value::Number(number)] => Ok(number.to_string()),
        // NumberDecimal(NaN)
        [Value::Object(special)] if special.contains_key("$numberDouble") => {
            Ok(special["$numberDouble"].as_str().unwrap_or_default().to_owned())
        }
        _ => Err(Unmade::new(format_args!("{name}(…) needs one number"))),
    };
    Ok(match name {
        "ISODate" | "Date" => json!({"$date": {"$numberLong": moment(name, &arguments)?.to_string()}}),
        "ObjectId" | "ObjectID" => json!({"$oid": text()?.to_ascii_lowercase()}),
        "NumberLong" | "Long" | "Long.fromString" | "Long.fromNumber" => {
            json!({"$numberLong": whole::<i64>(name, &number()?)?})
        }
        "NumberInt" | "Int32" | "Int32.fromString" => json!({"$numberInt": whole::<i32>(name, &number()?)?}),
        "NumberDecimal" | "Decimal128" | "Decimal128.fromString" => json!({"$numberDecimal": number()?}),
        "Double" | "Double.fromString" => json!({"$numberDouble": number()?}),
        "UUID" => json!({"$uuid": hyphenated(&text()?)?}),
        "BinData"
        | "HexData"
        | "Binary"
        | "Binary.createFromBase64"
        | "Binary.createFromHexString"
        | "MD5"
        | "Buffer.from" => binary(name, &arguments)?,
        "Timestamp" => timestamp(&arguments)?,
        "RegExp" | "BSONRegExp" => match texts.as_slice() {
            [Some(pattern)] => json!({"$regularExpression": {"pattern": pattern, "options": ""}}),
            [Some(pattern), Some(options)] => {
                json!({"$regularExpression": {"pattern": pattern, "options": options}})
            }
            _ => return Err(Unmade::new("RegExp(…) needs a pattern and options")),
        },
        "DBRef" => match arguments.as_slice() {
            [collection @ Value::String(_), id] => json!({"$ref": collection, "$id": id}),
            [collection @ Value::String(_), id, database @ Value::String(_)] => {
                json!({"$ref": collection, "$id": id, "$db": database})
            }
            _ => return Err(Unmade::new("DBRef(…) needs a collection and an id")),
        },
        "Symbol" | "BSONSymbol" => json!({"$symbol": text()?}),
        "Code" => json!({"$code": text()?}),
        "MinKey" if arguments.is_empty() => json!({"$minKey": 1}),
        "MaxKey" if arguments.is_empty() => json!({"$maxKey": 1}),
        "Boolean" => match arguments.as_slice() {
            [truth @ Value::Bool(_)] => truth.clone(),
            _ => return Err(Unmade::new("Boolean(…) needs true or false")),
        },
        _ => return Err(Unmade::new(format_args!("`{name}(…)` is not understood"))),
    })
}

/// Milliseconds since 1970. The present moment and the parts of a date by the clock of the machine are no date of a record.
fn moment(name: &str, arguments: &[Value]) -> Result<i64, Unmade> {
    let long =
        |value: &Value| value.get("$numberLong").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let found = match arguments {
        [Value::String(text)] => parse_date(text).map(bson::DateTime::timestamp_millis),
        [Value::Number(number)] => number.as_i64(),
        [value @ Value::Object(_)] => long(value),
        _ => None,
    };
    found.ok_or_else(|| {
        Unmade::new(format_args!("{name}(…) needs a date as text, or milliseconds since 1970"))
    })
}

fn whole<T: std::str::FromStr + ToString>(name: &str, text: &str) -> Result<String, Unmade> {
    let number: T =
        text.parse().map_err(|_| Unmade::new(format_args!("{name}(…) needs a whole number that fits")))?;
    Ok(number.to_string())
}

/// A UUID in groups of 8, 4, 4, 4 and 12 digits.
fn hyphenated(text: &str) -> Result<String, Unmade> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    match (digits.len(), hex::decode(&digits)) {
        (32, Ok(_)) => {
            let group =
                |from: usize, to: usize| digits.get(from..to).unwrap_or_default().to_ascii_lowercase();
            Ok([group(0, 8), group(8, 12), group(12, 16), group(16, 20), group(20, 32)].join("-"))
        }
        _ => Err(Unmade::new("UUID(…) needs 32 hexadecimal digits")),
    }
}

fn binary(name: &str, arguments: &[Value]) -> Result<Value, Unmade> {
    let wrong = || Unmade::new(format_args!("{name}(…): its bytes are not understood"));
    let number = |value: &Value| {
        let text = value.get("$numberInt").and_then(Value::as_str);
        value.as_u64().or_else(|| text?.parse().ok()).and_then(|subtype| u8::try_from(subtype).ok())
    };
    let from_hex = |text: &str| hex::decode(text.replace('-', "")).ok();
    let from_base64 = |text: &str| BASE64.decode(text).ok();
    let inner =
        |value: &Value| value.pointer("/$binary/base64").and_then(Value::as_str).and_then(from_base64);
    let (subtype, bytes) = match (name, arguments) {
        ("BinData", [subtype, Value::String(text)]) => (number(subtype), from_base64(text)),
        ("HexData", [subtype, Value::String(text)]) => (number(subtype), from_hex(text)),
        ("MD5", [Value::String(text)]) => (Some(5), from_hex(text)),
        ("Binary.createFromBase64" | "Binary", [Value::String(text)]) => (Some(0), from_base64(text)),
        ("Binary.createFromBase64" | "Binary", [Value::String(text), subtype]) => {
            (number(subtype), from_base64(text))
        }
        ("Binary.createFromHexString", [Value::String(text)]) => (Some(0), from_hex(text)),
        ("Binary.createFromHexString", [Value::String(text), subtype]) => (number(subtype), from_hex(text)),
        ("Binary", [buffer]) => (Some(0), inner(buffer)),
        ("Binary", [buffer, subtype]) => (number(subtype), inner(buffer)),
        ("Buffer.from", [Value::String(text), Value::String(coding)]) => match coding.as_str() {
            "hex" => (Some(0), from_hex(text)),
            "base64" => (Some(0), from_base64(text)),
            _ => (None, None),
        },
        _ => (None, None),
    };
    let (subtype, bytes) = (subtype.ok_or_else(wrong)?, bytes.ok_or_else(wrong)?);
    Ok(json!({"$binary": {"base64": BASE64.encode(bytes), "subType": format!("{subtype:02x}")}}))
}

fn timestamp(arguments: &[Value]) -> Result<Value, Unmade> {
    let part = |value: &Value| value.as_u64().and_then(|part| u32::try_from(part).ok());
    let parts = match arguments {
        [] => Some((0, 0)),
        [Value::Object(named)] => named.get("t").and_then(part).zip(named.get("i").and_then(part)),
        [seconds, increment] => part(seconds).zip(part(increment)),
        _ => None,
    };
    let (seconds, increment) = parts.ok_or_else(|| Unmade::new("Timestamp(…) needs seconds and a number"))?;
    Ok(json!({"$timestamp": {"t": seconds, "i": increment}}))
}

#[cfg(test)]
mod tests;
