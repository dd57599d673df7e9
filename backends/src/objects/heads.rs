//! What other devices say they saw: the signed head of a log, in the bell that each writer rings.
//!
//! A store can show two devices two histories, and neither can know alone. So a writer leaves in its bell how far it saw
//! the log, and readers compare that with what the store shows them. An honest head is on everybody's chain, because its
//! entry was durable before the bell rang. It may lag for ever: a lower head says no more than that its entry is there.
//!
//! Only devices that may speak in the log are asked, so that nobody else can raise an alarm. A bell that is absent or
//! says nothing readable counts as none: a store that hides the bells too is not found out here.

use futures::future::join_all;
use parsecfs_core::{
    id::{DeviceId, RealmId},
    storage::{Bytes, Error, ErrorKind, LogId, Result, Signer},
    time::Timestamp,
};
use parsecfs_crypto::VerifyKey;

use super::{
    Shared,
    chain::{WINDOW_MAX, broken},
    entry::{Head, RawEntry, log_bytes},
    follow::{OrganizationLog, RealmLog, RealmState, boundary},
    key,
    organization::{Device, Organization},
    verbs::Verbs,
    watch,
    wire::{Reader, Writer},
};

/// Also tells these signatures from those of entries, checkpoints and documents, which begin with other bytes.
const MAGIC: &[u8; 4] = b"PFLH";
const FORMAT: u8 = 1;
const SIGNATURE_BYTES: usize = 64;
/// Heads are compared at the first catch-up with a log, and again after this long.
const AGAIN_AFTER_US: i64 = 3_600_000_000;

/// How far a device saw a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    device: DeviceId,
    head: Head,
    /// Head of the organization's log that it knew then, for a realm's log.
    organization: Head,
}

impl Seen {
    fn beginning(log: LogId, device: DeviceId) -> Writer {
        let (kind, id) = log_bytes(log);
        let mut writer = Writer::default();
        writer.raw(MAGIC).u8(FORMAT).u8(kind).raw(&id).raw(device.as_bytes());
        writer
    }

    fn sign(self, log: LogId, signer: &dyn Signer) -> Bytes {
        let mut writer = Self::beginning(log, self.device);
        for head in [self.head, self.organization] {
            writer.u64(head.seq).raw(&head.hash);
        }
        let signature = signer.sign(&writer.0);
        writer.raw(&signature);
        writer.0.into()
    }

    /// `None` for what this device did not say about this log.
    fn read(object: &[u8], log: LogId, device: DeviceId, verify_key: [u8; 32]) -> Option<Self> {
        let (said, signature) = object.split_last_chunk::<SIGNATURE_BYTES>()?;
        VerifyKey::from_bytes(verify_key).verify_detached(signature, said).ok()?;
        let mut reader = Reader::new(said.strip_prefix(Self::beginning(log, device).0.as_slice())?);
        let mut head = || Some(Head { seq: reader.u64().ok()?, hash: reader.array().ok()? });
        let seen = Self { device, head: head()?, organization: head()? };
        reader.is_empty().then_some(seen)
    }

    fn saw_more(&self, log: LogId) -> Error {
        let (device, log) = (self.device, name(log));
        broken(&format!("the storage withholds entries of {log} that device {device} saw"))
    }

    fn saw_another(&self, log: LogId) -> Error {
        let (device, log) = (self.device, name(log));
        broken(&format!("the storage shows device {device} another history of {log} than this one"))
    }
}

/// A log in an alarm.
pub(super) fn name(log: LogId) -> String {
    match log {
        LogId::Organization => "the organization".to_owned(),
        LogId::Realm(realm) => format!("workspace {realm}"),
    }
}

/// When the heads of others were compared last; in a new session not yet.
#[derive(Default)]
pub(super) struct Compared(Option<Timestamp>);

impl Compared {
    fn is_due(&self, now: Timestamp) -> bool {
        self.0.is_none_or(|last| now.as_micros().abs_diff(last.as_micros()) >= AGAIN_AFTER_US.unsigned_abs())
    }
}

/// What the store shows where a head says that an entry was.
pub(super) enum Shown {
    /// The very entry.
    Same,
    /// Another one.
    Other,
    /// Nothing.
    Nothing,
    /// It was truncated: whatever lies there is not believed.
    Truncated,
}

/// Looks at the entry below a head that is not empty.
pub(super) async fn shown_below(verbs: &dyn Verbs, log: LogId, head: Head) -> Result<Shown> {
    let last = head.seq.saturating_sub(1);
    let object = verbs.get(&key::entry(log, last)).await?.bytes;
    let there = object.map(|object| RawEntry::parse(log, last, object)).transpose();
    if let Ok(Some(entry)) = &there
        && entry.head_after() == head
    {
        return Ok(Shown::Same);
    }
    if last < boundary(verbs, log).await? {
        return Ok(Shown::Truncated);
    }
    Ok(there?.map_or(Shown::Nothing, |_| Shown::Other))
}

impl Shared {
    /// Tells others, and listeners of this connection, that a log grew, and how far this device saw it. Called once the
    /// entry is durable.
    pub(super) async fn ring(&self, log: LogId, head: Head, organization: Head) {
        let signer = &*self.options.signer;
        let seen = Seen { device: signer.device_id(), head, organization };
        let bell = key::bell(log, seen.device.as_bytes());
        // A bell is a hint: who does not hear it polls.
        let _ = self.verbs.put_hint(&bell, seen.sign(log, signer)).await;
        for event in watch::events_of(log) {
            // Nobody listening is not a failure.
            let _ = self.rung.send(event);
        }
    }

    /// The same for a realm's log: says too how far this device saw the organization's.
    pub(super) async fn ring_realm(&self, realm: RealmId, head: Head) {
        let organization = self.organization.lock().await.state.head;
        self.ring(LogId::Realm(realm), head, organization).await;
    }

    /// What these devices say of a log, this one left out.
    async fn heads_of(&self, log: LogId, devices: impl Iterator<Item = (DeviceId, Device)>) -> Vec<Seen> {
        let own = self.options.signer.device_id();
        let others: Vec<_> = devices.filter(|(id, _)| *id != own).collect();
        let mut heads = Vec::new();
        for some in others.chunks(usize::try_from(WINDOW_MAX).unwrap_or(1)) {
            let read = some.iter().map(|(id, device)| async {
                // What cannot be read now is asked for again the next time.
                let object = self.verbs.get(&key::bell(log, id.as_bytes())).await.ok()?.bytes?;
                Seen::read(&object, log, *id, device.verify_key)
            });
            heads.extend(join_all(read).await.into_iter().flatten());
        }
        heads.retain(|seen| seen.head.seq > 0);
        heads
    }

    /// Compares what the organization's devices saw of its log with what the store shows this one.
    pub(super) async fn compare_organization(&self, log: &mut OrganizationLog) -> Result<()> {
        let now = (self.options.clock)();
        if !log.compared.is_due(now) {
            return Ok(());
        }
        let heads = self.heads_of(LogId::Organization, log.state.devices()).await;
        if heads.iter().any(|seen| log.state.contains(seen.head).is_none()) {
            self.read_organization(log).await?;
        }
        for seen in heads {
            match log.state.contains(seen.head) {
                Some(true) => {}
                Some(false) => return Err(seen.saw_another(LogId::Organization)),
                None => return Err(seen.saw_more(LogId::Organization)),
            }
        }
        log.compared = Compared(Some(now));
        Ok(())
    }

    /// The same for the members of a realm, who also say what they saw of the organization.
    pub(super) async fn compare_realm(&self, log: &RealmLog, state: &mut RealmState) -> Result<()> {
        let now = (self.options.clock)();
        if !state.compared.is_due(now) {
            return Ok(());
        }
        let organization = self.organization_now().await?;
        let heads = self.heads_of(LogId::Realm(log.realm), speakers(state, &organization)).await;
        if heads.iter().any(|seen| seen.head.seq > state.head().seq) {
            self.read_realm_to_its_end(log, state).await?;
        }
        for seen in heads {
            self.compare_head(log, state, &seen).await?;
        }
        state.compared = Compared(Some(now));
        Ok(())
    }

    async fn compare_head(&self, log: &RealmLog, state: &RealmState, seen: &Seen) -> Result<()> {
        let (id, own) = (LogId::Realm(log.realm), state.head());
        if seen.head.seq > own.seq {
            return Err(seen.saw_more(id));
        }
        let shown = if seen.head.seq == own.seq {
            if seen.head == own { Shown::Same } else { Shown::Other }
        } else {
            match shown_below(&*self.verbs, id, seen.head).await {
                // Damage far back in the log is for a deep check to tell.
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
                shown => shown?,
            }
        };
        match shown {
            Shown::Same | Shown::Truncated => {}
            Shown::Other => return Err(seen.saw_another(id)),
            Shown::Nothing => return Err(seen.saw_more(id)),
        }
        match self.organization_at(seen.organization).await {
            Err(error) if error.kind() == ErrorKind::Rollback => {
                Err(seen.saw_another(LogId::Organization).caused_by(error))
            }
            other => other.map(drop),
        }
    }
}

/// Devices of the members. While the log is empty nobody is known to be one: then all are asked, so that a log that is
/// withheld whole is missed too.
fn speakers<'a>(
    state: &'a RealmState,
    organization: &'a Organization,
) -> impl Iterator<Item = (DeviceId, Device)> + 'a {
    let at = state.head().seq;
    organization.devices().filter(move |(_, device)| at == 0 || state.certificates.role_at(device.user, at).is_some())
}

#[cfg(test)]
mod tests {
    use parsecfs_core::id::UserId;
    use parsecfs_crypto::SigningKey;

    use super::*;

    struct Pen(SigningKey);

    impl Signer for Pen {
        fn device_id(&self) -> DeviceId {
            DEVICE
        }

        fn user_id(&self) -> UserId {
            UserId::from_bytes([2; 16])
        }

        fn sign(&self, message: &[u8]) -> [u8; 64] {
            self.0.sign_detached(message)
        }
    }

    const DEVICE: DeviceId = DeviceId::from_bytes([1; 16]);
    const LOG: LogId = LogId::Realm(RealmId::from_bytes([3; 16]));

    #[test]
    fn a_head_counts_only_as_said_by_its_device_of_its_log() {
        let pen = Pen(SigningKey::generate());
        let key = *pen.0.verify_key().as_bytes();
        let head = |seq, byte| Head { seq, hash: [byte; 32] };
        let seen = Seen { device: DEVICE, head: head(7, 1), organization: head(3, 2) };
        let object = seen.sign(LOG, &pen);
        assert_eq!(Seen::read(&object, LOG, DEVICE, key), Some(seen));
        assert_eq!(Seen::read(&object, LogId::Organization, DEVICE, key), None, "another log");
        assert_eq!(Seen::read(&object, LOG, DeviceId::from_bytes([9; 16]), key), None, "another device");
        assert_eq!(Seen::read(&object, LOG, DEVICE, *SigningKey::generate().verify_key().as_bytes()), None);
        for length in 0..object.len() {
            assert_eq!(Seen::read(&object[..length], LOG, DEVICE, key), None, "cut at {length}");
        }
        for at in 0..object.len() {
            let mut flipped = object.to_vec();
            flipped[at] ^= 1;
            assert_eq!(Seen::read(&flipped, LOG, DEVICE, key), None, "flipped at {at}");
        }
    }

    #[test]
    fn heads_are_compared_at_first_and_then_hourly() {
        let at = |us| Timestamp::from_micros(us).expect("in range");
        assert!(Compared::default().is_due(at(0)));
        let compared = Compared(Some(at(AGAIN_AFTER_US)));
        assert!(!compared.is_due(at(2 * AGAIN_AFTER_US - 1)));
        assert!(compared.is_due(at(2 * AGAIN_AFTER_US)));
        assert!(compared.is_due(at(0)), "a clock that was set back does not put it off");
    }
}
