//! The storage as sync sees it: verified manifests out, sealed ones in. Knows nothing of the local tree.

use std::{collections::HashMap, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use parsecfs_core::{
    id::{RealmId, VlobId},
    manifest::{BlockAccess, Manifest},
    storage::VlobRecord,
};
use tokio::runtime::Handle;

use crate::{
    error::{Error, ErrorKind, Result},
    organization::Organization,
    tree::BlockSource,
};

/// Runs work that computes or waits for the disk on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    handle: &Handle,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = handle.spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Internal, "blocking work of sync ended early").caused_by(error))?
}

/// A manifest, or why this one entry cannot be read.
pub(super) type Opened = (VlobId, Result<Manifest>);

/// Opens and verifies records. A bad one hurts itself only; an error is one that hurts all.
pub(super) async fn open_all(
    organization: &Arc<Organization>,
    realm: RealmId,
    handle: &Handle,
    records: Vec<VlobRecord>,
) -> Result<Vec<Opened>> {
    let records = Arc::new(records);
    let mut opened = open_now(organization, realm, handle, &records).await?;
    let stale = |opened: &Opened| matches!(&opened.1, Err(error) if error.kind() == ErrorKind::Stale);
    if opened.iter().any(stale) {
        // An author or a key that is not known here yet.
        organization.refresh().await?;
        organization.realm_keys(realm).await?;
        opened = open_now(organization, realm, handle, &records).await?;
    }
    for (_, result) in &mut opened {
        if matches!(result, Err(error) if error.kind() == ErrorKind::Stale) {
            *result = Err(Error::new(ErrorKind::Untrusted, "author or key of the version is not known"));
        }
    }
    Ok(opened)
}

async fn open_now(
    organization: &Arc<Organization>,
    realm: RealmId,
    handle: &Handle,
    records: &Arc<Vec<VlobRecord>>,
) -> Result<Vec<Opened>> {
    let (organization, records) = (organization.clone(), records.clone());
    let open_each =
        move || Ok(records.iter().map(|record| (record.id, organization.open_manifest(realm, record))).collect());
    blocking(handle, open_each).await
}

/// Block bytes shared by everybody who asked, or what kind of failure it was.
type Fetch = Shared<BoxFuture<'static, std::result::Result<Arc<Vec<u8>>, ErrorKind>>>;

/// Brings clear blocks from the storage. Who asks for a block that is on its way waits for the same one.
pub struct RemoteBlocks {
    organization: Arc<Organization>,
    realm: RealmId,
    handle: Handle,
    /// Blocks on their way.
    fetches: Mutex<HashMap<BlockAccess, Fetch>>,
}

impl RemoteBlocks {
    /// Blocks of this realm.
    #[must_use]
    pub fn new(organization: Arc<Organization>, realm: RealmId, handle: Handle) -> Self {
        Self { organization, realm, handle, fetches: Mutex::new(HashMap::new()) }
    }

    fn start(&self, access: BlockAccess) -> Fetch {
        let (organization, realm, handle) = (self.organization.clone(), self.realm, self.handle.clone());
        async move {
            let fetched = fetch_block(organization, realm, handle, access).await;
            fetched.map(Arc::new).map_err(|error| {
                tracing::debug!(block = %access.id, %error, "block not fetched");
                error.kind()
            })
        }
        .boxed()
        .shared()
    }
}

impl BlockSource for RemoteBlocks {
    fn fetch<'a>(&'a self, access: &'a BlockAccess) -> BoxFuture<'a, Result<Vec<u8>>> {
        async move {
            let fetch = self.fetches.lock().entry(*access).or_insert_with(|| self.start(*access)).clone();
            let fetched = fetch.clone().await;
            let mut fetches = self.fetches.lock();
            if fetches.get(access).is_some_and(|current| current.ptr_eq(&fetch)) {
                fetches.remove(access);
            }
            drop(fetches);
            drop(fetch);
            let bytes = fetched.map_err(|kind| Error::new(kind, format!("block {}", access.id)))?;
            Ok(Arc::try_unwrap(bytes).unwrap_or_else(|shared| shared.to_vec()))
        }
        .boxed()
    }
}

async fn fetch_block(
    organization: Arc<Organization>,
    realm: RealmId,
    handle: Handle,
    access: BlockAccess,
) -> Result<Vec<u8>> {
    organization.realm_keys(realm).await?;
    let block = Arc::new(organization.storage().get(realm, access.id).await?);
    let open = |organization: Arc<Organization>, block: Arc<_>| {
        blocking(&handle, move || organization.open_block(realm, &access, &block))
    };
    match open(organization.clone(), block.clone()).await {
        Err(error) if error.kind() == ErrorKind::Stale => {
            organization.refresh().await?;
            organization.realm_keys(realm).await?;
            open(organization, block).await
        }
        opened => opened,
    }
}
