//! What the kernel asks, decoded. Total: any bytes give a request or a reason why not, never a panic.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::wire::{
    AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, ForgetOne, GetXattrIn, InHeader, InitIn, LinkIn,
    LseekIn, MkdirIn, MknodIn, RESENT, ReadIn, Rename2In, SetAttrIn, SetXattrIn, WriteIn, opcode,
};

/// One request. Not printable: it holds names and content.
pub(super) struct Request<'a> {
    /// What an answer is sent to.
    pub(super) unique: u64,
    /// The inode it is about, where it is about one.
    pub(super) ino: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The thread that asks, 0 for the kernel itself.
    pub(super) program: u32,
    pub(super) operation: Operation<'a>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) enum Operation<'a> {
    Init(InitIn),
    Lookup {
        name: &'a [u8],
    },
    Forget {
        lookups: u64,
    },
    BatchForget(&'a [ForgetOne]),
    GetAttr,
    SetAttr(SetAttrIn),
    ReadLink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    MakeNode {
        name: &'a [u8],
        mode: u32,
        rdev: u32,
    },
    /// A file without a name.
    MakeUnnamed {
        mode: u32,
    },
    MakeFolder {
        name: &'a [u8],
        mode: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    RemoveFolder {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        new_parent: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    Link {
        /// The inode that gets the name.
        inode: u64,
        name: &'a [u8],
    },
    Read {
        offset: u64,
        size: u32,
    },
    Write {
        offset: u64,
        flags: u32,
        data: &'a [u8],
    },
    StatFs,
    Release,
    Sync,
    SetXattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
    },
    GetXattr {
        name: &'a [u8],
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: &'a [u8],
    },
    List {
        offset: u64,
        size: u32,
        with_attributes: bool,
    },
    Allocate {
        offset: u64,
        length: u64,
        mode: u32,
    },
    Seek {
        offset: u64,
        whence: u32,
    },
    Access {
        mask: u32,
    },
    /// Bytes of this inode into another one.
    Copy {
        target: u64,
    },
    Interrupt,
    Destroy,
    /// Something that this program does not do.
    Other,
}

/// Why bytes are no request: the kernel and this program speak differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// What to send the refusal to, as far as that could be read.
    pub(super) unique: Option<u64>,
}

impl<'a> Request<'a> {
    /// The number under which it was asked the first time.
    pub(super) fn number(&self) -> u64 {
        self.unique & !RESENT
    }

    /// Whether another process was asked before and did not answer.
    pub(super) fn is_resent(&self) -> bool {
        self.unique & RESENT != 0
    }

    /// Whether it moves no more than so many bytes of content.
    pub(super) fn is_within(&self, bytes: usize) -> bool {
        match self.operation {
            Operation::Read { size, .. } => usize::try_from(size).is_ok_and(|size| size <= bytes),
            Operation::Write { data, .. } => data.len() <= bytes,
            _ => true,
        }
    }

    /// Decodes what was read from the device.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) = InHeader::read_from_prefix(bytes).map_err(|_| Malformed { unique: None })?;
        let body = usize::try_from(header.len).ok().filter(|len| *len == bytes.len()).map(|_| body);
        // Extensions stand behind the body; none was asked for.
        let body = body.filter(|_| header.extensions == 0);
        let operation = body.and_then(|body| Operation::decode(header.opcode, Body(body)));
        let operation = operation.ok_or(Malformed { unique: Some(header.unique) })?;
        let InHeader { unique, nodeid: ino, uid, gid, pid: program, .. } = header;
        Ok(Self { unique, ino, uid, gid, program, operation })
    }
}

impl<'a> Operation<'a> {
    fn decode(opcode: u32, mut body: Body<'a>) -> Option<Self> {
        Some(match opcode {
            // Older kernels say less.
            opcode::INIT if body.0.len() < size_of::<InitIn>() => {
                let mut whole = [0; size_of::<InitIn>()];
                whole.get_mut(..body.0.len())?.copy_from_slice(body.0);
                Self::Init(Body(&whole).take().filter(|_| body.0.len() >= size_of::<InitIn>() - 4)?)
            }
            opcode::INIT => Self::Init(body.take()?),
            opcode::LOOKUP => Self::Lookup { name: body.text()? },
            opcode::FORGET => Self::Forget { lookups: body.take()? },
            opcode::BATCH_FORGET => {
                let head: BatchForgetIn = body.take()?;
                let count = usize::try_from(head.count).ok()?;
                Self::BatchForget(<[ForgetOne]>::ref_from_prefix_with_elems(body.0, count).ok()?.0)
            }
            opcode::GETATTR => Self::GetAttr,
            opcode::SETATTR => Self::SetAttr(body.take()?),
            opcode::READLINK => Self::ReadLink,
            opcode::SYMLINK => Self::Symlink { name: body.text()?, target: body.text()? },
            opcode::MKNOD => {
                let MknodIn { mode, rdev, .. } = body.take()?;
                Self::MakeNode { name: body.text()?, mode, rdev }
            }
            opcode::TMPFILE => {
                // The name behind it is the kernel's own, and nobody's to see.
                let CreateIn { mode, .. } = body.take()?;
                Self::MakeUnnamed { mode }
            }
            opcode::MKDIR => {
                let MkdirIn { mode, .. } = body.take()?;
                Self::MakeFolder { name: body.text()?, mode }
            }
            opcode::UNLINK => Self::Unlink { name: body.text()? },
            opcode::RMDIR => Self::RemoveFolder { name: body.text()? },
            opcode::RENAME => {
                let new_parent = body.take()?;
                Self::Rename { name: body.text()?, new_parent, new_name: body.text()?, flags: 0 }
            }
            opcode::RENAME2 => {
                let Rename2In { new_dir, flags, .. } = body.take()?;
                Self::Rename { name: body.text()?, new_parent: new_dir, new_name: body.text()?, flags }
            }
            opcode::LINK => {
                let LinkIn { old_nodeid } = body.take()?;
                Self::Link { inode: old_nodeid, name: body.text()? }
            }
            opcode::READ => {
                let ReadIn { offset, size, .. } = body.take()?;
                Self::Read { offset, size }
            }
            opcode::WRITE => {
                let WriteIn { offset, size, write_flags, .. } = body.take()?;
                let data = body.0.get(..usize::try_from(size).ok()?)?;
                Self::Write { offset, flags: write_flags, data }
            }
            opcode::STATFS => Self::StatFs,
            opcode::RELEASE | opcode::RELEASEDIR => Self::Release,
            opcode::FSYNC | opcode::FSYNCDIR => Self::Sync,
            opcode::SETXATTR => {
                let SetXattrIn { size, flags } = body.take()?;
                let name = body.text()?;
                Self::SetXattr { name, value: body.0.get(..usize::try_from(size).ok()?)?, flags }
            }
            opcode::GETXATTR => {
                let GetXattrIn { size, .. } = body.take()?;
                Self::GetXattr { name: body.text()?, size }
            }
            opcode::LISTXATTR => {
                let GetXattrIn { size, .. } = body.take()?;
                Self::ListXattr { size }
            }
            opcode::REMOVEXATTR => Self::RemoveXattr { name: body.text()? },
            opcode::READDIR | opcode::READDIRPLUS => {
                let ReadIn { offset, size, .. } = body.take()?;
                Self::List { offset, size, with_attributes: opcode == opcode::READDIRPLUS }
            }
            opcode::ACCESS => {
                let AccessIn { mask, .. } = body.take()?;
                Self::Access { mask }
            }
            opcode::FALLOCATE => {
                let FallocateIn { offset, length, mode, .. } = body.take()?;
                Self::Allocate { offset, length, mode }
            }
            opcode::LSEEK => {
                let LseekIn { offset, whence, .. } = body.take()?;
                Self::Seek { offset, whence }
            }
            opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => {
                let CopyFileRangeIn { nodeid_out, .. } = body.take()?;
                Self::Copy { target: nodeid_out }
            }
            opcode::INTERRUPT => Self::Interrupt,
            opcode::DESTROY => Self::Destroy,
            _ => Self::Other,
        })
    }
}

/// What is left of a request's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }

    /// Bytes up to a zero.
    fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(40 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend(1u64.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn names_end_at_their_zero() {
        let bytes = message(opcode::SYMLINK, b"name\0the target\0");
        let request = Request::decode(&bytes).ok().unwrap();
        assert_eq!(request.unique, 7);
        assert!(matches!(request.operation, Operation::Symlink { name: b"name", target: b"the target" }));
    }

    #[test]
    fn a_write_holds_exactly_the_bytes_it_names() {
        let mut body = vec![0; 40];
        body[16..20].copy_from_slice(&3u32.to_ne_bytes());
        body.extend(b"abc");
        let bytes = message(opcode::WRITE, &body);
        let request = Request::decode(&bytes).ok().unwrap();
        assert!(matches!(request.operation, Operation::Write { data: b"abc", .. }));
        let longer = message(opcode::WRITE, &body[..42]);
        assert_eq!(Request::decode(&longer).err(), Some(Malformed { unique: Some(7) }));
    }

    #[test]
    fn whatever_is_cut_off_or_claims_another_length_is_refused() {
        for code in 0..60 {
            let whole = message(code, &[1; 88]);
            for length in 0..whole.len() {
                assert!(Request::decode(&whole[..length]).is_err());
                let mut short = whole[..length].to_vec();
                if let Some(len) = short.get_mut(..4) {
                    len.copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
                }
                // Whatever it says: no panic.
                let _ = Request::decode(&short);
            }
        }
    }

    #[test]
    fn a_count_of_forgets_beyond_the_message_is_refused() {
        let mut body = vec![0; 8 + 16];
        body[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(Request::decode(&message(opcode::BATCH_FORGET, &body)).is_err());
        body[..4].copy_from_slice(&1u32.to_ne_bytes());
        let bytes = message(opcode::BATCH_FORGET, &body);
        assert!(matches!(Request::decode(&bytes).ok().unwrap().operation, Operation::BatchForget([_])));
    }
}
