//! One device's view of one organization: who belongs to it, who may do what, and the keys that follow from it.
//!
//! | module | holds |
//! |---|---|
//! | [`keys`] | what a storage borrows of the device: signatures, seals of its logs |
//! | [`found`] | a new organization |
//! | [`workspace`], [`realm_keys`] | making and listing workspaces; their keys |
//! | [`people`] | roles, profiles, the end of a user, new keys when somebody is gone |
//! | [`documents`] | manifests and blocks between their clear and their sealed form |
//! | [`audit`] | what certificates tell of the past |
//! | [`recovery`] | further devices of the same person |
//! | [`shared_recovery`] | a way back that several people hold together |
//! | [`verify`] | reading all of the storage to find damage |
//! | [`device_store`] | device files on disk |
//! | `certificate_store` | the local copy that an offline start needs |
//!
//! Invariants: what is in memory was verified, and is on disk before anybody sees it; a batch of certificates is taken
//! whole or not at all; [`Trust`] only grows, but for names that are hidden from outsiders. Nothing here knows a path inside a workspace.
//!
//! Statements are made by one loop (`append`): decide on what is known, send, and when somebody was faster or the answer
//! was lost, look and decide again. So every operation may be repeated, and a crash between two statements leaves
//! something that the next call or [`Organization::refresh`] carries on.

pub mod audit;
mod certificate_store;
pub mod device_store;
pub mod documents;
pub mod found;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub mod keys;
pub mod people;
pub mod realm_keys;
pub mod recovery;
pub mod shared_recovery;
pub mod verify;
pub mod workspace;

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use parking_lot::Mutex;
use parsecfs_core::{
    certificate::{DeviceCertificate, DevicePurpose, UserProfile},
    id::{DeviceId, RealmId, UserId},
    local_device::LocalDevice,
    name::{DeviceLabel, HumanHandle, OrganizationId},
    statement::Author,
    storage::{self, Barred, CertificateBatch, CertificateCursor, Statement, Storage},
    time::Timestamp,
    trust::{Trust, UserTrust},
};
use parsecfs_crypto::{random_bytes, sha256};
use tokio::sync::Mutex as AsyncMutex;

use self::certificate_store::{Appended, CertificateDatabase, Row};
pub use self::{
    audit::Duty,
    device_store::{AvailableDevice, DeviceList, DeviceStore, Keyring, Protection, Unlock},
    found::{Founding, NewOrganization},
    keys::OrganizationKeys,
    people::MemberSummary,
    recovery::{Recovery, open_recovery},
    shared_recovery::{SharedRecovery, plan_shares},
    workspace::WorkspaceSummary,
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
};

/// How often a statement is decided anew when others are faster. Each round means that somebody else's was accepted.
const APPEND_ROUNDS_MAX: usize = 16;

/// One device's view of one organization.
pub struct Organization {
    device: LocalDevice,
    keys: Arc<OrganizationKeys>,
    storage: Arc<dyn Storage>,
    disk: Arc<CertificateDatabase>,
    clock: Arc<dyn Clock>,
    /// What is known now; replaced as a whole.
    known: RwLock<Known>,
    /// Held while certificates are fetched and accepted, so that one answer is checked on top of the other.
    refreshing: AsyncMutex<()>,
    /// A time that the storage wants statements to follow though no certificate has it: that of the last manifest.
    not_before: Mutex<Option<Timestamp>>,
    /// Why the storage did not serve this device when it was last asked for certificates.
    barred: Mutex<Option<Barred>>,
}

#[derive(Clone)]
struct Known {
    trust: Arc<Trust>,
    /// Last row of the database that is part of `trust`.
    seq: u64,
}

/// An organization in a few words.
#[derive(Clone, Debug)]
pub struct OrganizationSummary {
    /// Its name.
    pub organization_id: OrganizationId,
    /// Where it is kept.
    pub server_url: String,
    /// This device.
    pub device_id: DeviceId,
    /// Its user.
    pub user_id: UserId,
    /// SHA-256 of the root key in hex: equal for everybody who belongs to the same organization.
    pub root_fingerprint: String,
    /// Users that are not revoked.
    pub users: usize,
    /// Devices of users that are not revoked.
    pub devices: usize,
    /// Workspaces in which this user has a role.
    pub workspaces: usize,
}

/// A person.
#[derive(Clone, Debug)]
pub struct UserSummary {
    /// Who.
    pub id: UserId,
    /// Name and address; `None` where they are hidden from this user.
    pub human_handle: Option<HumanHandle>,
    /// What the person may do now.
    pub profile: UserProfile,
    /// Since when the person does not belong any more.
    pub revoked: Option<Timestamp>,
    /// Whether it is this device's user.
    pub own: bool,
}

/// A device.
#[derive(Clone, Debug)]
pub struct DeviceSummary {
    /// Which.
    pub id: DeviceId,
    /// Whose.
    pub user: UserId,
    /// Its label; `None` where it is hidden from this user.
    pub label: Option<DeviceLabel>,
    /// What it was made for.
    pub purpose: DevicePurpose,
    /// When it was made.
    pub created: Timestamp,
    /// Whether its user is revoked.
    pub revoked: bool,
    /// Whether it is this device.
    pub own: bool,
}

impl Organization {
    /// Opens the organization of `device` with its local copy in `dir`, then asks the storage for news. Without network
    /// the local copy is enough once there is one. `keys` must be made from the same device and be those of `storage`.
    ///
    /// `NotFound` when the organization does not know this device, `Untrusted` when certificates do not hold.
    pub async fn open(
        device: LocalDevice,
        keys: Arc<OrganizationKeys>,
        storage: Arc<dyn Storage>,
        dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        let (disk, known) = open_local(&device, dir).await?;
        let organization = Arc::new(Self {
            device,
            keys,
            storage,
            disk: Arc::new(disk),
            clock,
            known: RwLock::new(known),
            refreshing: AsyncMutex::new(()),
            not_before: Mutex::new(None),
            barred: Mutex::new(None),
        });
        match organization.refresh().await {
            // What is wrong there keeps nobody from what is here; whoever asks the storage for something hears of it.
            Err(error) if leaves_what_is_here(&error) && organization.knows_itself() => {
                tracing::info!(kind = ?error.kind(), "the storage cannot be read: certificates are those of the last time");
            }
            answer => answer?,
        }
        if organization.knows_itself() {
            Ok(organization)
        } else {
            let device = organization.device_id();
            Err(Error::new(ErrorKind::NotFound, format!("the organization does not know device {device}")))
        }
    }

    /// Takes in new certificates, all or none of an answer, and remembers them; then does what an owner owes to
    /// workspaces: what was begun, and a new key where somebody is gone. `Untrusted` names the rule that does not hold
    /// and changes nothing.
    pub async fn refresh(&self) -> Result<()> {
        self.poll().await?;
        self.finish_workspaces().await
    }

    /// What is known now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        self.known().trust
    }

    /// Why the storage did not serve this device when it was last asked for certificates, if so: its word, which no
    /// certificate proves.
    #[must_use]
    pub fn barred(&self) -> Option<Barred> {
        *self.barred.lock()
    }

    /// Where it is kept.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// This device with its secrets.
    #[must_use]
    pub fn device(&self) -> &LocalDevice {
        &self.device
    }

    /// This device.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.device.device_id
    }

    /// This device's user.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.device.user_id
    }

    /// Which organization.
    #[must_use]
    pub fn organization_id(&self) -> &OrganizationId {
        &self.device.organization_id
    }

    /// What time it is.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The timestamp of a manifest that is signed now: the time, but after every certificate that it rests on.
    #[must_use]
    pub fn next_timestamp(&self, realm: RealmId) -> Timestamp {
        self.statement_time(&self.trust(), Some(realm))
    }

    /// The organization in a few words.
    #[must_use]
    pub fn summary(&self) -> OrganizationSummary {
        let (users, devices) = (self.users(), self.devices());
        OrganizationSummary {
            organization_id: self.device.organization_id.clone(),
            server_url: self.device.server_url.clone(),
            device_id: self.device_id(),
            user_id: self.user_id(),
            root_fingerprint: hex(sha256(self.device.root_verify_key.as_bytes()).as_bytes()),
            users: users.iter().filter(|user| user.revoked.is_none()).count(),
            devices: devices.iter().filter(|device| !device.revoked).count(),
            workspaces: self.own_realms(&self.trust()).len(),
        }
    }

    /// Everybody who belongs or belonged to it.
    #[must_use]
    pub fn users(&self) -> Vec<UserSummary> {
        let summary = |user: &UserTrust| {
            let own = user.certificate().user_id == self.user_id();
            // One's own is never hidden: this device has it.
            let known = user.certificate().human_handle.as_ref().or(own.then_some(&self.device.human_handle));
            UserSummary {
                id: user.certificate().user_id,
                human_handle: known.cloned(),
                profile: user.profile(),
                revoked: user.revoked(),
                own,
            }
        };
        self.trust().users().map(summary).collect()
    }

    /// Every device of everybody.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceSummary> {
        let trust = self.trust();
        let revoked = |user| trust.user(user).is_some_and(|user| user.revoked().is_some());
        let summary = |device: &DeviceCertificate| DeviceSummary {
            id: device.device_id,
            user: device.user_id,
            label: device.device_label.clone(),
            purpose: device.purpose,
            created: device.timestamp,
            revoked: revoked(device.user_id),
            own: device.device_id == self.device_id(),
        };
        trust.devices().map(summary).collect()
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn knows_itself(&self) -> bool {
        self.trust().device(self.device_id()).is_some_and(|device| device.user_id == self.user_id())
    }

    /// After every certificate that a statement about `realm`, or about users and devices, must follow.
    fn statement_time(&self, trust: &Trust, realm: Option<RealmId>) -> Timestamp {
        let cursor = trust.cursor();
        let last = cursor.common.max(realm.and_then(|realm| cursor.realm.get(&realm).copied()));
        let last = last.max(*self.not_before.lock());
        last.map_or_else(|| self.clock.now(), |last| self.clock.now().max(last.next()))
    }

    fn sign_after(&self, last: Option<Timestamp>) {
        let mut not_before = self.not_before.lock();
        *not_before = last.max(*not_before);
    }

    /// This device as the author of a statement about `realm`, or about users and devices.
    fn author(&self, trust: &Trust, realm: Option<RealmId>) -> Author<'_> {
        Author { device: self.device_id(), key: &self.device.signing_key, timestamp: self.statement_time(trust, realm) }
    }

    /// Fetches and accepts certificates until nothing stands in the way of remembering them.
    pub(crate) async fn poll(&self) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        loop {
            let known = self.catch_up().await?;
            let asked = self.storage.certificates(&known.trust.cursor()).await;
            *self.barred.lock() = asked.as_ref().err().and_then(storage::Error::barred);
            let batch = asked?;
            if batch == CertificateBatch::default() {
                return Ok(());
            }
            let mut row = Row { afresh: false, batch };
            let mut trust = accept(&known.trust, &row.batch)?;
            if known.seq > 0 && trust.hides_names() != known.trust.hides_names() {
                (row, trust) = self.fetch_afresh(&trust).await?;
            }
            let seq = known.seq;
            if self.on_disk(move |disk| disk.append(seq, &row)).await? == Appended::Yes {
                self.publish(Known { trust: Arc::new(trust), seq: seq + 1 });
                return Ok(());
            }
        }
    }

    /// Everything once more. Whoever becomes an outsider is to see nobody's name from now on, and whoever was one is to
    /// see those of before; the storage tells each what it may see. It may not leave out what is known already.
    async fn fetch_afresh(&self, known: &Trust) -> Result<(Row, Trust)> {
        let batch = self.storage.certificates(&CertificateCursor::default()).await?;
        let row = Row { afresh: true, batch };
        let trust = accept(&known.without_certificates(), &row.batch)?;
        if trust.reaches(&known.cursor()) {
            Ok((row, trust))
        } else {
            Err(Error::new(ErrorKind::Untrusted, "the storage takes certificates back"))
        }
    }

    /// Takes in what another process of this device has remembered since.
    async fn catch_up(&self) -> Result<Known> {
        let known = self.known();
        let seq = known.seq;
        let rows = self.on_disk(move |disk| disk.rows_after(seq)).await?;
        if rows.is_empty() {
            return Ok(known);
        }
        let known = replay(known, &rows)?;
        self.publish(known.clone());
        Ok(known)
    }

    fn publish(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Sends the statement that `decide` makes of what is known, until it is applied or `decide` finds nothing to do.
    async fn append(&self, decide: impl Fn(&Trust) -> Result<Option<Statement>>) -> Result<()> {
        for _ in 0..APPEND_ROUNDS_MAX {
            let before = self.trust();
            let Some(statement) = decide(&before)? else { return Ok(()) };
            match self.storage.append(statement).await {
                Ok(()) => {
                    self.poll().await?;
                    return self.require_news(&before);
                }
                Err(error) => match error.kind() {
                    storage::ErrorKind::VersionConflict | storage::ErrorKind::OutcomeUnknown => {
                        self.sign_after(error.after());
                        self.poll().await?;
                    }
                    _ => return Err(error.into()),
                },
            }
        }
        Err(Error::new(ErrorKind::Busy, "others keep changing the organization: try again"))
    }

    /// A statement that the storage calls done shows. Otherwise somebody believes to have revoked a person who goes on.
    fn require_news(&self, before: &Trust) -> Result<()> {
        if self.trust().cursor() == before.cursor() {
            let what = "the storage says that it is done, and does not show it";
            return Err(Error::new(ErrorKind::Untrusted, what));
        }
        Ok(())
    }

    /// Works on the local copy where waiting for a disk is allowed.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CertificateDatabase) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        blocking(move || work(&disk)).await
    }
}

/// Whether the organization goes on as it is known here. A storage that does not serve this device is no worse than one
/// that cannot be reached.
fn leaves_what_is_here(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Offline | ErrorKind::Corrupt | ErrorKind::Denied | ErrorKind::NotFound)
}

/// The local copy, verified. One that is damaged is put aside: everything in it is on the storage too.
async fn open_local(device: &LocalDevice, dir: &Path) -> Result<(CertificateDatabase, Known)> {
    let (dir, key, root) = (dir.to_owned(), device.local_symkey.clone(), device.root_verify_key);
    let user = device.user_id;
    blocking(move || {
        let load = || -> Result<_> {
            let disk = CertificateDatabase::open(&dir, &key)?;
            let rows = disk.rows_after(0)?;
            Ok((disk, rows))
        };
        let (disk, rows) = match load() {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!("the local certificates are damaged: they are put aside and fetched again");
                CertificateDatabase::put_aside(&dir)?;
                load()
            }
            loaded => loaded,
        }?;
        let nothing = Known { trust: Arc::new(Trust::new(root, user)), seq: 0 };
        Ok((disk, replay(nothing, &rows)?))
    })
    .await
}

fn replay(Known { mut trust, mut seq }: Known, rows: &[Row]) -> Result<Known> {
    for row in rows {
        let before = if row.afresh { &trust.without_certificates() } else { &*trust };
        trust = Arc::new(accept(before, &row.batch)?);
        seq += 1;
    }
    Ok(Known { trust, seq })
}

fn accept(trust: &Trust, batch: &CertificateBatch) -> Result<Trust> {
    trust.apply(batch).map_err(|error| Error::new(ErrorKind::Untrusted, "certificates were refused").caused_by(error))
}

/// A document that did not pass, in terms of what the caller does next.
pub(crate) fn refused(what: String, error: parsecfs_core::error::Error) -> Error {
    use parsecfs_core::error::ErrorKind as Step;
    let kind = match error.kind() {
        // The seal holds, so this came from somebody with the key: forged, not damaged.
        Step::Signature | Step::Author | Step::Timestamp | Step::Id | Step::Version | Step::Untrusted => {
            ErrorKind::Untrusted
        }
        Step::UserId | Step::RealmId | Step::DeviceId => ErrorKind::Untrusted,
        Step::Unsupported => ErrorKind::UnsupportedVersion,
        Step::Decryption | Step::Format | Step::Zstd | Step::Deserialization | Step::Integrity => ErrorKind::Corrupt,
        Step::Invalid | Step::TooLong | Step::Algorithm | Step::Size | Step::Digest => ErrorKind::Corrupt,
    };
    Error::new(kind, what).caused_by(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, "work on the disk was broken off").caused_by(error))?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A fresh id (UUID version 4).
pub(crate) fn random_id() -> [u8; 16] {
    let mut id = random_bytes::<16>();
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}
