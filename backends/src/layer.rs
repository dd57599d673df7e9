//! Layers: each wraps a storage in a storage and keeps the contract.
//!
//! | module | does |
//! |---|---|
//! | [`record`] | counts calls, so that tests can assert costs |
//! | [`fault`] | makes the Nth call go wrong |
//! | [`lazy`] | opens the storage when it can be reached |

pub mod fault;
pub mod lazy;
pub mod record;

/// Which method of a storage was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `certificates`
    Certificates,
    /// `append`
    Append,
    /// `keys_bundle`
    KeysBundle,
    /// `read`
    Read,
    /// `read_versions`
    ReadVersions,
    /// `commit`
    Commit,
    /// `changes`
    Changes,
    /// `put`
    Put,
    /// `get`
    Get,
    /// `invite`
    Invite,
    /// `invitations`
    Invitations,
    /// `cancel_invitation`
    CancelInvitation,
    /// `complete_invitation`
    CompleteInvitation,
    /// `start_greeting`
    StartGreeting,
    /// `greet`
    Greet,
    /// `cancel_greeting`
    CancelGreeting,
}

/// Implements the storage traits for a layer whose `around(call, future)` wraps each answer; `get` has its own hook
/// `block(result)`.
macro_rules! layer {
    ($layer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl CertificateStore for $layer {
            fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, Result<CertificateBatch>> {
                self.around(Call::Certificates, self.inner.certificates(cursor))
            }

            fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, Result<()>> {
                self.around(Call::Append, self.inner.append(statement))
            }

            fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, Result<KeysBundle>> {
                self.around(Call::KeysBundle, self.inner.keys_bundle(realm, key_index))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl VlobStore for $layer {
            fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
                self.around(Call::Read, self.inner.read(realm, ids))
            }

            fn read_versions<'a>(
                &'a self,
                realm: RealmId,
                items: &'a [(VlobId, u32)],
            ) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
                self.around(Call::ReadVersions, self.inner.read_versions(realm, items))
            }

            fn commit<'a>(
                &'a self,
                realm: RealmId,
                writes: Vec<VlobWrite>,
            ) -> BoxFuture<'a, Result<Vec<WriteOutcome>>> {
                self.around(Call::Commit, self.inner.commit(realm, writes))
            }

            fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, Result<Changes>> {
                self.around(Call::Changes, self.inner.changes(realm, checkpoint))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl BlockStore for $layer {
            fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, Result<()>> {
                self.around(Call::Put, self.inner.put(realm, blocks))
            }

            fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, Result<Block>> {
                self.around_block(self.inner.get(realm, id))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl Invitations for $layer {
            fn invite<'a>(
                &'a self,
                invitee: &'a Invitee,
                write: bool,
            ) -> BoxFuture<'a, Result<(InvitationToken, Notice)>> {
                self.around(Call::Invite, self.inner.invite(invitee, write))
            }

            fn invitations(&self) -> BoxFuture<'_, Result<Vec<Invitation>>> {
                self.around(Call::Invitations, self.inner.invitations())
            }

            fn cancel_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
                self.around(Call::CancelInvitation, self.inner.cancel_invitation(token))
            }

            fn complete_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
                self.around(Call::CompleteInvitation, self.inner.complete_invitation(token))
            }

            fn start_greeting(&self, token: InvitationToken) -> BoxFuture<'_, Result<GreetingAttemptId>> {
                self.around(Call::StartGreeting, self.inner.start_greeting(token))
            }

            fn greet<'a>(
                &'a self,
                token: InvitationToken,
                attempt: GreetingAttemptId,
                step: &'a Step,
            ) -> BoxFuture<'a, Result<StepAnswer>> {
                self.around(Call::Greet, self.inner.greet(token, attempt, step))
            }

            fn cancel_greeting(
                &self,
                token: InvitationToken,
                attempt: GreetingAttemptId,
                reason: CancelReason,
            ) -> BoxFuture<'_, Result<()>> {
                self.around(Call::CancelGreeting, self.inner.cancel_greeting(token, attempt, reason))
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl EventSource for $layer {
            fn events(&self) -> BoxStream<'static, Event> {
                self.inner.events()
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl Storage for $layer {
            fn capabilities(&self) -> Capabilities {
                self.inner.capabilities()
            }

            fn verify<'a>(
                &'a self,
                realms: &'a [RealmId],
                proof: Proof<'a>,
            ) -> BoxFuture<'a, Result<Option<Verified>>> {
                self.inner.verify(realms, proof)
            }
        }
    };
}
use layer;

/// What [`layer`] names.
mod names {
    pub(super) use futures::{future::BoxFuture, stream::BoxStream};
    pub(super) use parsecfs_core::{
        id::{BlockId, GreetingAttemptId, InvitationToken, RealmId, VlobId},
        invite::{CancelReason, Step},
        storage::{
            Block, BlockStore, Capabilities, CertificateBatch, CertificateCursor, CertificateStore, Changes, Event,
            EventSource, Invitation, Invitations, Invitee, KeysBundle, Notice, Result, Statement, StepAnswer, Storage,
            VlobRecord, VlobStore, VlobWrite, WriteOutcome,
        },
        verify::{Proof, Verified},
    };
}
