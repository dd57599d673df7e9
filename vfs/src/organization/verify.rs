//! Reading all that the storage keeps of this device's workspaces, to name what is damaged there.
//!
//! Nothing here repairs, and nothing is believed that was not believed before.

use parsecfs_core::{
    id::RealmId,
    verify::{Item, Sealed, Verified},
};

use super::Organization;
use crate::error::Result;

impl Organization {
    /// Whether the storage shows a workspace as this device saw it before: an alarm is the error. Reads nothing of it.
    pub async fn check_realm(&self, realm: RealmId) -> Result<()> {
        Ok(self.storage.read(realm, &[]).await.map(drop)?)
    }

    /// Reads both logs, checkpoints, blocks and large manifests of `realms`. `None` when the storage looks after that
    /// itself. Load each realm's keys before: what is sealed with a key that is not known here counts as damaged.
    pub async fn verify(&self, realms: &[RealmId]) -> Result<Option<Verified>> {
        let opens = |sealed: &Sealed<'_>| {
            let keys = self.keys.realm(sealed.realm);
            let id = match &sealed.what {
                Item::Block(id) => id.as_bytes(),
                Item::Manifest(id) => id.as_bytes(),
            };
            let key = keys.as_ref().and_then(|keys| keys.key(sealed.key_index));
            key.is_some_and(|key| key.derive(id).open(sealed.bytes).is_ok())
        };
        Ok(self.storage.verify(realms, &opens).await?)
    }
}
