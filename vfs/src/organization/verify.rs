//! Reading all that the storage keeps of this device's workspaces, to name what is damaged there.
//!
//! Nothing here repairs, and nothing is believed that was not believed before.

use parsecfs_core::{
    block,
    id::{BlockId, RealmId},
    storage::Block,
    verify::Verified,
};

use super::Organization;
use crate::error::Result;

impl Organization {
    /// Reads both logs, checkpoints and blocks of `realms`. `None` when the storage looks after that itself. Load each
    /// realm's keys before: blocks sealed with a key that is not known here count as damaged.
    pub async fn verify(&self, realms: &[RealmId]) -> Result<Option<Verified>> {
        let opens = |realm: RealmId, id: BlockId, sealed: &Block| {
            let keys = self.keys.realm(realm);
            keys.as_ref()
                .and_then(|keys| keys.key(sealed.key_index))
                .is_some_and(|key| block::is_whole(&sealed.bytes, id, key))
        };
        Ok(self.storage.verify(realms, &opens).await?)
    }
}
