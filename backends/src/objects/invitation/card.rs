//! The bytes of a card and of a meta (docs/format.md, "Invitations").

use parsecfs_core::{
    id::{DeviceId, InvitationToken, UserId},
    name::{Email, HumanHandle, OrganizationId},
    storage::{Error, ErrorKind, Greeter, InvitationInfo, Invitee, Result},
    time::Timestamp,
};

use super::super::wire::{Reader, Writer};

/// Also tells these signatures from those of entries, heads and documents, which begin with other bytes.
const MAGIC: &[u8; 4] = b"PFIC";
const FORMAT: u8 = 1;
const SIGNATURE_BYTES: usize = 64;

/// What members see of an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) author: DeviceId,
    pub(super) token: InvitationToken,
    pub(super) invitee: Invitee,
    pub(super) created: Timestamp,
}

impl Card {
    /// What the author signs.
    pub(super) fn body(&self) -> Writer {
        let mut writer = Writer::default();
        writer.raw(MAGIC).u8(FORMAT).raw(self.author.as_bytes()).raw(self.token.as_bytes()).time(self.created);
        write_invitee(&mut writer, &self.invitee);
        writer
    }

    /// A card, what was signed of it, and the signature; nothing is verified here.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8], [u8; SIGNATURE_BYTES])> {
        let (said, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>()?;
        let mut reader = Reader::new(said.strip_prefix(MAGIC)?.strip_prefix(&[FORMAT])?);
        let card = Self {
            author: DeviceId::from_bytes(reader.array().ok()?),
            token: InvitationToken::from_bytes(reader.array().ok()?),
            created: reader.time().ok()?,
            invitee: read_invitee(&mut reader).ok()?,
        };
        reader.is_empty().then_some((card, said, *signature))
    }
}

fn write_invitee(writer: &mut Writer, invitee: &Invitee) {
    match invitee {
        Invitee::User { email } => writer.u8(0).bytes(email.as_str().as_bytes()),
        Invitee::Device => writer.u8(1),
        Invitee::Recovery { user } => writer.u8(2).raw(user.as_bytes()),
    };
}

fn read_invitee(reader: &mut Reader<'_>) -> Result<Invitee> {
    Ok(match reader.u8()? {
        0 => Invitee::User { email: Email::new(text(reader)?).map_err(|_| garbled())? },
        1 => Invitee::Device,
        2 => Invitee::Recovery { user: UserId::from_bytes(reader.array()?) },
        _ => return Err(Error::new(ErrorKind::Unsupported, "an invitation of a kind that is not known")),
    })
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str> {
    std::str::from_utf8(reader.bytes()?).map_err(|_| garbled())
}

fn garbled() -> Error {
    Error::new(ErrorKind::Corrupt, "the invitation makes no sense")
}

fn write_handle(writer: &mut Writer, handle: Option<&HumanHandle>) {
    match handle {
        Some(handle) => {
            writer.u8(1).bytes(handle.email().as_str().as_bytes()).bytes(handle.label().as_bytes());
        }
        None => {
            writer.u8(0);
        }
    }
}

fn read_handle(reader: &mut Reader<'_>) -> Result<Option<HumanHandle>> {
    if reader.u8()? == 0 {
        return Ok(None);
    }
    let email = Email::new(text(reader)?).map_err(|_| garbled())?;
    HumanHandle::new(email, text(reader)?).map(Some).map_err(|_| garbled())
}

/// Writes a meta.
pub(super) fn encode_info(info: &InvitationInfo) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(FORMAT).bytes(info.organization.as_str().as_bytes());
    write_invitee(&mut writer, &info.invitee);
    write_handle(&mut writer, info.human_handle.as_ref());
    writer.u8(info.threshold).length(info.greeters.len());
    for greeter in &info.greeters {
        writer.raw(greeter.user.as_bytes()).u8(greeter.shares);
        write_handle(&mut writer, greeter.human_handle.as_ref());
    }
    writer.0
}

/// Reads a meta.
pub(super) fn decode_info(bytes: &[u8]) -> Result<InvitationInfo> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != FORMAT {
        return Err(Error::new(ErrorKind::Unsupported, "the invitation was made by a newer version"));
    }
    let organization = OrganizationId::new(text(&mut reader)?).map_err(|_| garbled())?;
    let invitee = read_invitee(&mut reader)?;
    let human_handle = read_handle(&mut reader)?;
    let threshold = reader.u8()?;
    let greeters = reader.list(|reader| {
        let user = UserId::from_bytes(reader.array()?);
        let shares = reader.u8()?;
        Ok(Greeter { user, human_handle: read_handle(reader)?, shares })
    })?;
    Ok(InvitationInfo { organization, invitee, human_handle, greeters, threshold })
}

/// Reads a card and a meta.
#[cfg(feature = "fuzzing")]
pub(in crate::objects) fn read(bytes: &[u8]) {
    if let Some((card, said, signature)) = Card::read(bytes) {
        assert_eq!([&card.body().0[..], &signature].concat(), bytes, "a card is written otherwise");
        assert_eq!(said.len() + SIGNATURE_BYTES, bytes.len());
    }
    if let Ok(info) = decode_info(bytes) {
        assert_eq!(decode_info(&encode_info(&info)).expect("what was written is read"), info);
    }
}
