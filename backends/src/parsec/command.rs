//! Requests and replies in msgpack (protocol.md 3.6).
//!
//! A request is built field by field, a reply taken apart the same way. Unknown fields of a reply are ignored; an
//! unknown status is named as such and breaks nothing.

use parsecfs_core::{
    document::{Field, from_msgpack},
    storage::{Barred, Error, ErrorKind, Result},
    time::Timestamp,
};
use rmpv::{Value, ValueRef};

use super::{clock_message, http::REPLY_BYTES_MAX};

/// Header of a map of up to `FIELDS_MAX` pairs, whose number is added to it.
const MAP: u8 = 0x80;
const FIELDS_MAX: u8 = 15;
/// A field's name and what stands before its bytes, roughly.
const FIELD_BYTES: usize = 64;

/// A command with its fields, encoded as they are given: a block is copied once.
pub struct Request {
    name: &'static str,
    /// A map's header of one byte, which `into_bytes` fills in, and the fields.
    body: Vec<u8>,
    fields: u8,
    answer_bytes_max: usize,
}

impl Request {
    /// A command without fields.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let request = Self { name, body: vec![MAP], fields: 0, answer_bytes_max: REPLY_BYTES_MAX };
        request.with_value("cmd", name.into())
    }

    /// The answer to this command is no larger: many are on their way at once.
    #[must_use]
    pub fn answered_within(mut self, bytes: usize) -> Self {
        self.answer_bytes_max = bytes;
        self
    }

    /// The largest answer.
    #[must_use]
    pub fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// With one more field. `None` is sent as nil, which stands for "nothing" where the protocol requires the field.
    #[must_use]
    pub fn with(self, name: &str, value: &impl Field) -> Self {
        self.with_value(name, value.write())
    }

    /// With bytes.
    #[must_use]
    pub fn with_bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        self.body.reserve(bytes.len() + FIELD_BYTES);
        self.with_value_ref(name, ValueRef::Binary(bytes))
    }

    /// With a value that is put together already.
    #[must_use]
    pub fn with_value(self, name: &str, value: Value) -> Self {
        self.with_value_ref(name, value.as_ref())
    }

    fn with_value_ref(mut self, name: &str, value: ValueRef<'_>) -> Self {
        self.fields += 1;
        for part in [ValueRef::from(name), value] {
            rmpv::encode::write_value_ref(&mut self.body, &part).expect("writing into memory does not fail");
        }
        self
    }

    /// The command's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As it is sent.
    ///
    /// # Panics
    /// With more fields than any command has.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        assert!(self.fields <= FIELDS_MAX, "{} fields of {}", self.fields, self.name);
        self.body[0] = MAP | self.fields;
        self.body
    }
}

/// A structure in what the server answered, taken apart field by field; those that nobody asks for are ignored.
pub struct Structure {
    command: &'static str,
    fields: Vec<(Value, Value)>,
}

impl Structure {
    /// Of the answer to `command`; `Corrupt` when it is none.
    pub fn of(command: &'static str, value: Value) -> Result<Self> {
        match value {
            Value::Map(fields) => Ok(Self { command, fields }),
            _ => Err(garbled(command)),
        }
    }

    /// Whether a field is there and says something.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(key, value)| key.as_str() == Some(name) && !value.is_nil())
    }

    /// Takes a field out; `Corrupt` when it is not there or of another type.
    pub fn get<T: Field>(&mut self, name: &str) -> Result<T> {
        T::read(self.take(name)?).map_err(|error| {
            let what = format!("the server's answer to {} has a wrong {name}", self.command);
            Error::new(ErrorKind::Corrupt, what).caused_by(error)
        })
    }

    /// Takes a field out as it is.
    pub fn take(&mut self, name: &str) -> Result<Value> {
        let index = self.fields.iter().position(|(key, _)| key.as_str() == Some(name));
        let missing =
            || Error::new(ErrorKind::Corrupt, format!("the server's answer to {} has no {name}", self.command));
        Ok(self.fields.swap_remove(index.ok_or_else(missing)?).1)
    }
}

/// What the server answered makes no sense.
pub(super) fn garbled(command: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the server's answer to {command} makes no sense"))
}

/// What the server answered to a command.
pub struct Reply {
    status: String,
    body: Structure,
}

impl Reply {
    /// Reads a reply; `Corrupt` when it is none.
    pub fn read(command: &'static str, bytes: &[u8]) -> Result<Self> {
        let value = from_msgpack(bytes).map_err(|error| garbled(command).caused_by(error))?;
        let mut body = Structure::of(command, value)?;
        Ok(Self { status: body.get("status")?, body })
    }

    /// How the command ended.
    #[must_use]
    pub fn status(&self) -> &str {
        &self.status
    }

    /// As [`Structure::get`].
    pub fn get<T: Field>(&mut self, name: &str) -> Result<T> {
        self.body.get(name)
    }

    /// As [`Structure::take`].
    pub fn take(&mut self, name: &str) -> Result<Value> {
        self.body.take(name)
    }

    /// The reply itself when the command succeeded, otherwise what its refusal means.
    pub fn ok(self) -> Result<Self> {
        if self.status == "ok" { Ok(self) } else { Err(self.refusal()) }
    }

    /// What a refusal means to a caller that does not treat it by itself.
    #[must_use]
    pub fn refusal(mut self) -> Error {
        if self.status == "timestamp_out_of_ballpark" {
            let times = (self.get::<Timestamp>("client_timestamp"), self.get::<Timestamp>("server_timestamp"));
            if let (Ok(ours), Ok(servers)) = times {
                return Error::new(ErrorKind::Denied, clock_message(ours, servers)).barred_by(Barred::WrongClock);
            }
        }
        let (kind, text) = meaning(&self.status);
        let status = if kind.is_none() { format!("unknown status {:?}", self.printable()) } else { text.to_owned() };
        let error = Error::new(kind.unwrap_or(ErrorKind::Unsupported), format!("{}: {status}", self.body.command));
        match self.get("strictly_greater_than") {
            Ok(last) if self.status == "require_greater_timestamp" => error.only_after(last),
            _ => error,
        }
    }

    /// A status that nobody knows may hold anything.
    fn printable(&self) -> String {
        self.status.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').take(60).collect()
    }
}

/// What each status of section 4 means, whatever the command.
fn meaning(status: &str) -> (Option<ErrorKind>, &'static str) {
    let (kind, text) = match status {
        "author_not_allowed" => (ErrorKind::Denied, "the role or profile of this user does not allow it"),
        "author_is_outsider" => (ErrorKind::Denied, "an outsider may not do this"),
        "role_incompatible_with_outsider" => (ErrorKind::Denied, "an outsider cannot have this role"),
        "access_not_available_for_author" => (ErrorKind::NotFound, "no access to this key was given to this user"),
        "realm_archived" => (ErrorKind::Denied, "the workspace is archived and read-only"),
        "realm_deleted" => (ErrorKind::Denied, "the workspace was deleted on the server"),
        "active_users_limit_reached" => (
            ErrorKind::Denied,
            "the organization has as many users as its server allows: revoke one, or ask its operator for more",
        ),
        "human_handle_already_taken" => {
            (ErrorKind::Denied, "somebody with this address is in the organization already")
        }
        "claimer_email_already_enrolled" => {
            (ErrorKind::Denied, "somebody with this address is in the organization already")
        }
        "archiving_period_too_short" => (ErrorKind::Denied, "the server asks for a longer time before deletion"),
        "invalid_bootstrap_token" => (ErrorKind::Denied, "this link does not found the organization (any more)"),
        "bad_init_token" | "bad_token" => (ErrorKind::Denied, "the server does not accept this token"),
        "rejected_by_sequester_service" => (ErrorKind::Denied, "a sequester service of the organization refuses it"),
        "sequester_service_unavailable" => (ErrorKind::Offline, "a sequester service of the organization is away"),
        "store_unavailable" => (ErrorKind::Offline, "the server's store of blocks is away"),
        "realm_not_found" | "vlob_not_found" | "block_not_found" | "user_not_found" | "recipient_not_found" => {
            (ErrorKind::NotFound, "there is no such thing on the server")
        }
        "bad_reveal_token" => (ErrorKind::NotFound, "there is no such recovery, or it was deleted"),
        "bad_invitation_type" => (ErrorKind::Denied, "the invitation is for something else"),
        "invitation_not_found" | "greeting_attempt_not_found" => (ErrorKind::NotFound, "there is no such invitation"),
        "invitation_completed" | "invitation_already_completed" => {
            (ErrorKind::NotFound, "the invitation was used already")
        }
        "invitation_cancelled" | "invitation_already_cancelled" => {
            (ErrorKind::NotFound, "the invitation was cancelled")
        }
        "organization_already_bootstrapped"
        | "require_greater_timestamp"
        | "user_already_exists"
        | "device_already_exists"
        | "user_no_changes"
        | "user_revoked"
        | "user_already_revoked"
        | "realm_already_exists"
        | "bad_key_index"
        | "participant_mismatch"
        | "sequester_service_mismatch"
        | "initial_name_already_exists"
        | "recipient_revoked"
        | "role_already_granted"
        | "recipient_already_unshared"
        | "active_owner_already_exists"
        | "vlob_already_exists"
        | "bad_vlob_version"
        | "block_already_exists"
        | "shamir_recovery_already_exists"
        | "shamir_recovery_already_deleted"
        | "shamir_recovery_not_found"
        | "recipients_mismatch"
        | "revoked_recipient" => (ErrorKind::VersionConflict, "somebody was faster"),
        status if status.starts_with("invalid_certificate") => {
            (ErrorKind::Internal, "the server does not accept the certificate")
        }
        "too_many_elements" => (ErrorKind::Internal, "too much was asked for at once"),
        "timestamp_out_of_ballpark" => (ErrorKind::Denied, "the clock of this machine is wrong: set it"),
        _ => return (None, ""),
    };
    (Some(kind), text)
}

#[cfg(test)]
mod tests {
    use parsecfs_core::document::to_msgpack;

    use super::*;

    #[test]
    fn a_request_is_the_map_of_its_fields() {
        let request = Request::new("block_create").with_bytes("block", &[1, 2]).with_value("key_index", Value::Nil);
        let fields = [("cmd", "block_create".into()), ("block", Value::Binary(vec![1, 2])), ("key_index", Value::Nil)];
        assert_eq!(request.into_bytes(), reply(&fields));
    }

    fn reply(fields: &[(&str, Value)]) -> Vec<u8> {
        to_msgpack(&Value::Map(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect()))
    }

    #[test]
    fn an_unknown_status_is_named_and_unknown_fields_do_not_matter() {
        let bytes = reply(&[("status", "brand_new\n\u{1b}[31m".into()), ("more", 1.into())]);
        let error = Reply::read("vlob_create", &bytes).unwrap().ok().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "vlob_create: unknown status \"brand_new31m\"");
    }

    #[test]
    fn garbage_is_corrupt() {
        for bytes in [&b"<html>"[..], b"", &[0x80], &[0xc1], &[0x81, 0xa6, b's', b't', b'a', b't', b'u', b's', 1]] {
            assert_eq!(Reply::read("any", bytes).err().unwrap().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_wrong_clock_is_told_with_the_difference() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000).unwrap().write();
        let bytes = reply(&[
            ("status", "timestamp_out_of_ballpark".into()),
            ("client_timestamp", at(1000)),
            ("server_timestamp", at(4600)),
        ]);
        let error = Reply::read("vlob_create", &bytes).unwrap().ok().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.to_string(), "the clock of this machine is 60 min behind the server's: set it");
    }

    #[test]
    fn a_time_that_is_too_early_tells_which_is_not() {
        let last = Timestamp::from_micros(7).unwrap();
        let bytes = reply(&[("status", "require_greater_timestamp".into()), ("strictly_greater_than", last.write())]);
        let error = Reply::read("realm_share", &bytes).unwrap().ok().err().unwrap();
        assert_eq!((error.kind(), error.after()), (ErrorKind::VersionConflict, Some(last)));
    }
}
