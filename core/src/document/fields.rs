//! From a map of named fields to typed ones and back.

use std::collections::BTreeSet;

use rmpv::Value;

use super::{Field, UnknownFields, malformed};
use crate::error::Result;

/// The fields of one document or of one structure in it, taken out one by one.
pub(crate) struct Fields {
    names: &'static [&'static str],
    values: Vec<Option<Value>>,
    unknown: UnknownFields,
}

impl Fields {
    /// Takes apart a document of kind `kind` whose fields after `type` are `names`, in the order of the format.
    pub(crate) fn document(document: Value, kind: &str, names: &'static [&'static str]) -> Result<Self> {
        let (found, fields) = match document {
            Value::Map(entries) => take_type(entries)?,
            Value::Array(mut values) if !values.is_empty() => (values.remove(0), Value::Array(values)),
            _ => return Err(malformed("not a document")),
        };
        if found.as_str() != Some(kind) {
            return Err(malformed("another type of document"));
        }
        Self::structure(fields, names)
    }

    /// Takes apart a structure without `type`: a map, or an array of the fields in the order of the format.
    pub(crate) fn structure(fields: Value, names: &'static [&'static str]) -> Result<Self> {
        let mut taken = Self { names, values: Vec::new(), unknown: UnknownFields::default() };
        taken.values.resize(names.len(), None);
        match fields {
            Value::Map(entries) => taken.fill_by_name(entries)?,
            Value::Array(values) if values.len() <= names.len() => {
                for (slot, value) in taken.values.iter_mut().zip(values) {
                    *slot = Some(value);
                }
            }
            _ => return Err(malformed("not a structure")),
        }
        Ok(taken)
    }

    fn fill_by_name(&mut self, entries: Vec<(Value, Value)>) -> Result<()> {
        let mut unknown = BTreeSet::new();
        for (key, value) in entries {
            let name = key.as_str().ok_or(malformed("field name is not text"))?;
            let duplicate = match self.names.iter().position(|known| *known == name) {
                Some(index) => self.values[index].replace(value).is_some(),
                None => {
                    self.unknown.0.push((name.to_owned(), value));
                    !unknown.insert(name.to_owned())
                }
            };
            if duplicate {
                return Err(malformed("field is there twice"));
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let index = self.names.iter().position(|known| *known == name);
        self.values[index.expect("readers ask for the fields that they named")].take()
    }

    /// A field that must be there; nil only where the type is optional.
    pub(crate) fn get<T: Field>(&mut self, name: &str) -> Result<T> {
        self.get_with(name, T::read)
    }

    /// A field that must be there, read by `read`.
    pub(crate) fn get_with<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Result<T>) -> Result<T> {
        read(self.take(name).ok_or(malformed("field is missing"))?)
    }

    /// A field that may be missing or nil.
    pub(crate) fn get_if_there<T: Field>(&mut self, name: &str) -> Result<Option<T>> {
        self.take(name).map_or(Ok(None), Option::read)
    }

    /// What nobody asked for.
    pub(crate) fn unknown(self) -> UnknownFields {
        self.unknown
    }
}

/// The value of `type` in a map, and the map without it.
pub(crate) fn take_type(mut entries: Vec<(Value, Value)>) -> Result<(Value, Value)> {
    let index = entries.iter().position(|(key, _)| key.as_str() == Some("type"));
    let (_, found) = entries.remove(index.ok_or(malformed("document has no type"))?);
    if entries.iter().any(|(key, _)| key.as_str() == Some("type")) {
        return Err(malformed("field is there twice"));
    }
    Ok((found, Value::Map(entries)))
}

/// The `type` of a document in map or array form.
pub(crate) fn type_of(document: &Value) -> Option<&str> {
    match document {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.as_str() == Some("type"))?.1.as_str(),
        Value::Array(values) => values.first()?.as_str(),
        _ => None,
    }
}

/// Puts a document together, fields in the order of the calls.
pub(crate) struct Writer(Vec<(Value, Value)>);

impl Writer {
    /// A document; its type goes first.
    pub(crate) fn document(kind: &str) -> Self {
        Self(vec![("type".into(), kind.into())])
    }

    /// A structure without `type`.
    pub(crate) fn structure() -> Self {
        Self(Vec::new())
    }

    /// One field.
    pub(crate) fn field(self, name: &str, value: &impl Field) -> Self {
        self.value(name, value.write())
    }

    /// One field that is left out when there is nothing to say.
    pub(crate) fn field_if_some(self, name: &str, value: Option<&impl Field>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// One field, written already.
    pub(crate) fn value(mut self, name: &str, value: Value) -> Self {
        self.0.push((name.into(), value));
        self
    }

    /// Fields that somebody else knows.
    pub(crate) fn unknown(mut self, unknown: &UnknownFields) -> Self {
        self.0.extend(unknown.0.iter().map(|(name, value)| (name.as_str().into(), value.clone())));
        self
    }

    /// The document.
    pub(crate) fn finish(self) -> Value {
        Value::Map(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const NAMES: &[&str] = &["a", "b"];

    fn map(entries: &[(&str, u64)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let mut fields = Fields::structure(map(&[("x", 1), ("a", 2), ("b", 3)]), NAMES).unwrap();
        let a: u64 = fields.get("a").unwrap();
        let b: u64 = fields.get("b").unwrap();
        let written = Writer::structure().field("a", &a).field("b", &b).unknown(&fields.unknown()).finish();
        assert_eq!(written, map(&[("a", 2), ("b", 3), ("x", 1)]));
    }

    #[test]
    fn duplicates_are_refused() {
        for entries in [[("a", 1), ("a", 1)], [("x", 1), ("x", 1)]] {
            let refused = Fields::structure(map(&entries), NAMES).err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::Deserialization);
        }
    }

    #[test]
    fn positions_stand_for_names() {
        let document = Value::Array(vec!["kind".into(), 1.into(), 2.into()]);
        let mut fields = Fields::document(document, "kind", NAMES).unwrap();
        assert_eq!((fields.get::<u64>("a"), fields.get::<u64>("b")), (Ok(1), Ok(2)));
    }

    #[test]
    fn missing_and_nil_differ() {
        let nil = Value::Map(vec![("a".into(), Value::Nil)]);
        let mut fields = Fields::structure(nil, NAMES).unwrap();
        assert_eq!(fields.get::<Option<u64>>("a"), Ok(None));
        assert!(fields.get::<Option<u64>>("b").is_err());
    }
}
