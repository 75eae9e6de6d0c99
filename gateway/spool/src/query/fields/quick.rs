//! Reads the fields of a line as the gateway writes it: compact, names without escapes. That is
//! several times faster than a JSON reader that must take everything, and ten million lines are
//! many. What it does not know it leaves to that reader. Its checksum has vouched for the line.

use super::{Fields, Text};
use memchr::{memchr, memchr2};
use std::borrow::Cow;

/// The fields of a line; none if it is not written in the usual way.
pub(super) fn read(line: &[u8]) -> Option<Fields<'_>> {
    // Once for all of it is cheaper than for each word.
    let text = std::str::from_utf8(line).ok()?;
    let mut fields = Fields::default();
    let mut rest = line.strip_prefix(b"{\"")?;
    loop {
        let end = memchr(b'"', rest)?;
        let (name, value) = (&rest[..end], rest.get(end + 1..)?.strip_prefix(b":")?);
        let after = member(&mut fields, name, value, text)?;
        match after {
            // What follows is the seal.
            [b',', ..] if name == b"n" => return Some(fields),
            [b',', b'"', next @ ..] => rest = next,
            [b'}'] => return Some(fields),
            _ => return None,
        }
    }
}

/// Takes one member; what follows its value. `line` is the whole line, of which `value` begins
/// somewhere before its end.
fn member<'a>(
    fields: &mut Fields<'a>,
    name: &[u8],
    value: &'a [u8],
    line: &'a str,
) -> Option<&'a [u8]> {
    let text = match name {
        b"kind" => &mut fields.kind,
        b"time" => &mut fields.time,
        b"boot" => &mut fields.boot,
        b"state" => &mut fields.state,
        b"verdict" => &mut fields.verdict,
        b"rule" => &mut fields.rule,
        b"user" => &mut fields.user,
        b"device" => &mut fields.device,
        b"protocol" => &mut fields.protocol,
        b"dst_address" => &mut fields.dst_address,
        b"target" => &mut fields.target,
        b"close_reason" => &mut fields.close_reason,
        _ => return other(fields, name, value),
    };
    let value = value.strip_prefix(b"\"")?;
    let end = memchr2(b'"', b'\\', value)?;
    if value[end] == b'\\' {
        return None;
    }
    let begin = line.len() - value.len();
    let word = line.get(begin..begin + end)?;
    // A name that comes twice is for the other reader to refuse.
    if text.replace(Text(Cow::Borrowed(word))).is_some() {
        return None;
    }
    Some(&value[end + 1..])
}

fn other<'a>(fields: &mut Fields<'a>, name: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let number = match name {
        b"count" => &mut fields.count,
        b"bytes_out" => &mut fields.bytes_out,
        b"bytes_in" => &mut fields.bytes_in,
        b"packets_out" => &mut fields.packets_out,
        b"packets_in" => &mut fields.packets_in,
        b"n" => &mut fields.n,
        b"flow" => {
            let (flow, after) = self::number(value)?;
            fields.flow = Some(flow);
            return Some(after);
        }
        b"dst_port" => {
            let (port, after) = self::number(value)?;
            fields.dst_port = u16::try_from(port).ok()?;
            return Some(after);
        }
        b"dst_ports" => {
            let (list, after) = value.split_at_checked(memchr(b']', value)? + 1)?;
            fields.dst_ports = serde_json::from_slice(list).ok()?;
            return Some(after);
        }
        _ => return skip(value),
    };
    let after;
    (*number, after) = self::number(value)?;
    Some(after)
}

fn number(value: &[u8]) -> Option<(u64, &[u8])> {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    let sum = value[..digits].iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    (digits > 0).then_some((sum, &value[digits..]))
}

/// Over a value that nobody asked for.
fn skip(value: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    let mut rest = value;
    loop {
        match rest.first()? {
            b'"' => {
                rest = &rest[1..];
                loop {
                    let at = memchr2(b'"', b'\\', rest)?;
                    let escaped = rest[at] == b'\\';
                    rest = rest.get(at + 1 + usize::from(escaped)..)?;
                    if !escaped {
                        break;
                    }
                }
            }
            b'[' | b'{' => {
                depth += 1;
                rest = &rest[1..];
                continue;
            }
            b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                rest = &rest[1..];
            }
            b',' | b':' => {
                rest = &rest[1..];
                continue;
            }
            _ => {
                let end = rest
                    .iter()
                    .position(|byte| matches!(byte, b',' | b']' | b'}'))?;
                rest = &rest[end..];
            }
        }
        if depth == 0 {
            return Some(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    #[test]
    fn an_unusual_line_is_left_to_the_other_reader() {
        for line in [
            r#"{ "user":"ana"}"#,
            r#"{"user": "ana"}"#,
            r#"{"user":"a\u006ea"}"#,
            r#"{"user":"ana","user":"bob"}"#,
            r#"{"dst_port":70000}"#,
            r#"{"count":-1}"#,
            r#"{"count":99999999999999999999}"#,
            r#"{"a":[1}"#,
            r#"{"a":"b"#,
            r#"{"#,
            "",
        ] {
            assert!(read(line.as_bytes()).is_none(), "{line}");
        }
    }

    /// Any JSON under names that are asked for and names that are not.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<u16>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "[\"\\\\,:{}\\[\\]a]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"]{1,4}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    fn line() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "kind",
            "time",
            "boot",
            "flow",
            "state",
            "verdict",
            "rule",
            "user",
            "device",
            "protocol",
            "dst_address",
            "dst_port",
            "dst_ports",
            "target",
            "close_reason",
            "count",
            "bytes_out",
            "bytes_in",
            "packets_out",
            "packets_in",
            "groups",
            "x",
            "",
        ]);
        (
            prop::collection::btree_map(name, value(), 0..8),
            any::<u64>(),
        )
            .prop_map(|(map, n)| {
                let map: Map<String, Value> = map
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect();
                let body = Value::Object(map).to_string();
                let comma = if body.len() > 2 { "," } else { "" };
                format!(
                    "{}{comma}\"n\":{n},\"prev\":\"ab\",\"crc\":\"cd\"}}",
                    &body[..body.len() - 1]
                )
            })
    }

    proptest! {
        #[test]
        fn both_readers_agree(line in line()) {
            if let Some(quick) = read(line.as_bytes()) {
                let slow: Fields<'_> = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(format!("{quick:?}"), format!("{slow:?}"));
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, line in line(), at: prop::sample::Index) {
            let _ = read(&bytes);
            let _ = read(&line.as_bytes()[..at.index(line.len())]);
        }
    }
}
