//! Decodes framed documents with other code than `core` has, to compare with the trees in the vectors.

use anyhow::{Context, Result, ensure};
use rmpv::Value as Packed;
use serde_json::{Value, json};

/// The msgpack bytes of a framed document.
pub fn unpack(frame: &[u8]) -> Result<Vec<u8>> {
    ensure!(frame.first() == Some(&0), "no version byte");
    Ok(zstd::decode_all(&frame[1..])?)
}

/// The tree of a framed document, as the vectors write it.
pub fn of_frame(frame: &[u8]) -> Result<Value> {
    of_msgpack(&unpack(frame)?)
}

/// The tree of a document without a frame.
pub fn of_msgpack(bytes: &[u8]) -> Result<Value> {
    of_value(&rmpv::decode::read_value(&mut &bytes[..])?)
}

fn of_value(value: &Packed) -> Result<Value> {
    Ok(match value {
        Packed::Nil => Value::Null,
        Packed::Boolean(truth) => json!(truth),
        Packed::Integer(number) => json!(number.as_u64().context("negative number")?),
        Packed::String(text) => json!(text.as_str().context("text is not UTF-8")?),
        Packed::Binary(bytes) => json!({ "bytes": hex(bytes) }),
        Packed::Ext(1, bytes) => json!({ "dt": i64::from_be_bytes(bytes.as_slice().try_into()?) }),
        Packed::Ext(2, bytes) => json!({ "uuid": hex(bytes) }),
        Packed::Array(values) => Value::Array(values.iter().map(of_value).collect::<Result<_>>()?),
        Packed::Map(entries) => of_map(entries)?,
        _ => anyhow::bail!("unexpected value"),
    })
}

fn of_map(entries: &[(Packed, Packed)]) -> Result<Value> {
    if !entries.is_empty() && entries.iter().all(|(key, _)| !key.is_str()) {
        let pairs = entries.iter().map(|(key, value)| Ok(json!([of_value(key)?, of_value(value)?])));
        return Ok(json!({ "pairs": pairs.collect::<Result<Vec<_>>>()? }));
    }
    let fields = entries.iter().map(|(key, value)| Ok((key.as_str().context("key")?.to_owned(), of_value(value)?)));
    Ok(json!({ "map": Value::Object(fields.collect::<Result<_>>()?) }))
}

/// Sorts what has no order: pairs and lists.
pub fn sorted(tree: &Value) -> Value {
    match tree {
        Value::Array(values) => {
            let mut values: Vec<_> = values.iter().map(sorted).collect();
            values.sort_by_key(Value::to_string);
            Value::Array(values)
        }
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        _ => tree.clone(),
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
