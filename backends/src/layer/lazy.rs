//! Opens a storage at the first call that reaches it: a device starts without its storage, and finds it when it is
//! there again.
//!
//! Until then every call answers what opening answers, so `Offline` while the storage cannot be reached.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use tokio::sync::OnceCell;

use super::names::*;

/// How often a listener looks whether the storage is there: as often as one would poll it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

type Open = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Storage>>> + Send + Sync>;

/// A storage that is opened when it can be.
pub struct Lazy {
    shared: Arc<Shared>,
    capabilities: Capabilities,
}

struct Shared {
    open: Open,
    opened: OnceCell<Arc<dyn Storage>>,
}

impl Shared {
    async fn storage(&self) -> Result<&Arc<dyn Storage>> {
        self.opened.get_or_try_init(|| (self.open)()).await
    }
}

impl Lazy {
    /// The storage that `open` opens, which has these capabilities.
    #[must_use]
    pub fn new(
        capabilities: Capabilities,
        open: impl Fn() -> BoxFuture<'static, Result<Arc<dyn Storage>>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { shared: Arc::new(Shared { open: Box::new(open), opened: OnceCell::new() }), capabilities })
    }
}

#[deny(clippy::missing_trait_methods)]
impl CertificateStore for Lazy {
    fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, Result<CertificateBatch>> {
        async move { self.shared.storage().await?.certificates(cursor).await }.boxed()
    }

    fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, Result<()>> {
        async move { self.shared.storage().await?.append(statement).await }.boxed()
    }

    fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, Result<KeysBundle>> {
        async move { self.shared.storage().await?.keys_bundle(realm, key_index).await }.boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
impl VlobStore for Lazy {
    fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        async move { self.shared.storage().await?.read(realm, ids).await }.boxed()
    }

    fn read_versions<'a>(
        &'a self,
        realm: RealmId,
        items: &'a [(VlobId, u32)],
    ) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        async move { self.shared.storage().await?.read_versions(realm, items).await }.boxed()
    }

    fn commit<'a>(&'a self, realm: RealmId, writes: Vec<VlobWrite>) -> BoxFuture<'a, Result<Vec<WriteOutcome>>> {
        async move { self.shared.storage().await?.commit(realm, writes).await }.boxed()
    }

    fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, Result<Changes>> {
        async move { self.shared.storage().await?.changes(realm, checkpoint).await }.boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
impl BlockStore for Lazy {
    fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, Result<()>> {
        async move { self.shared.storage().await?.put(realm, blocks).await }.boxed()
    }

    fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, Result<Block>> {
        async move { self.shared.storage().await?.get(realm, id).await }.boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Invitations for Lazy {
    fn invite<'a>(&'a self, invitee: &'a Invitee, write: bool) -> BoxFuture<'a, Result<(InvitationToken, Notice)>> {
        async move { self.shared.storage().await?.invite(invitee, write).await }.boxed()
    }

    fn invitations(&self) -> BoxFuture<'_, Result<Vec<Invitation>>> {
        async move { self.shared.storage().await?.invitations().await }.boxed()
    }

    fn cancel_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        async move { self.shared.storage().await?.cancel_invitation(token).await }.boxed()
    }

    fn complete_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        async move { self.shared.storage().await?.complete_invitation(token).await }.boxed()
    }

    fn start_greeting(&self, token: InvitationToken) -> BoxFuture<'_, Result<GreetingAttemptId>> {
        async move { self.shared.storage().await?.start_greeting(token).await }.boxed()
    }

    fn greet<'a>(
        &'a self,
        token: InvitationToken,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<StepAnswer>> {
        async move { self.shared.storage().await?.greet(token, attempt, step).await }.boxed()
    }

    fn cancel_greeting(
        &self,
        token: InvitationToken,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, Result<()>> {
        async move { self.shared.storage().await?.cancel_greeting(token, attempt, reason).await }.boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
impl EventSource for Lazy {
    fn events(&self) -> BoxStream<'static, Event> {
        let shared = Arc::clone(&self.shared);
        let online = async move {
            loop {
                match shared.storage().await {
                    Ok(storage) => return stream::iter([Event::Online]).chain(storage.events()),
                    // Whoever calls hears why; here it only means to look again.
                    Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        stream::iter([Event::Missed]).chain(stream::once(online).flatten()).boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Lazy {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn verify<'a>(&'a self, realms: &'a [RealmId], proof: Proof<'a>) -> BoxFuture<'a, Result<Option<Verified>>> {
        async move { self.shared.storage().await?.verify(realms, proof).await }.boxed()
    }
}
