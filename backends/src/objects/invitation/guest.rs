//! The guest's side of an invitation: nothing but the token and the way to the store.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::{
    id::{GreetingAttemptId, InvitationToken, RevealToken, UserId},
    invite::{CancelReason, Side, Step},
    storage::{Bytes, Error, ErrorKind, InvitationInfo, Invited, Result, StepAnswer},
};

use super::{
    super::{directory::DirectoryVerbs, directory_of, format, recovery::reveal, verbs::Verbs},
    Mailbox, decode_info,
};

/// Somebody with a link to an organization without a server.
pub struct Guest {
    verbs: Arc<dyn Verbs>,
    token: InvitationToken,
}

impl Guest {
    /// Makes ready to use an invitation to the organization in a directory.
    ///
    /// # Errors
    /// Those of [`inspect`](super::super::inspect).
    pub async fn open(location: &str, token: InvitationToken) -> Result<Arc<Self>> {
        Self::over(Arc::new(DirectoryVerbs::open(directory_of(location)?)?), token).await
    }

    /// [`open`](Self::open) over any store.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn over(verbs: Arc<dyn Verbs>, token: InvitationToken) -> Result<Arc<Self>> {
        format::read(&*verbs).await?;
        Ok(Arc::new(Self { verbs, token }))
    }

    fn mailbox(&self) -> Mailbox<'_> {
        Mailbox::new(&*self.verbs, self.token)
    }
}

impl Invited for Guest {
    fn info(&self) -> BoxFuture<'_, Result<InvitationInfo>> {
        async move {
            let mailbox = self.mailbox();
            let unknown = || Error::new(ErrorKind::NotFound, "there is no such invitation to this organization");
            let meta = mailbox.get("meta").await?.ok_or_else(unknown)?;
            match mailbox.end().await? {
                Some(end) => Err(end.told()),
                None => decode_info(&meta),
            }
        }
        .boxed()
    }

    fn start_claim(&self, greeter: UserId) -> BoxFuture<'_, Result<GreetingAttemptId>> {
        async move { self.mailbox().greeting(greeter, Side::Claimer).start().await }.boxed()
    }

    fn claim<'a>(
        &'a self,
        greeter: UserId,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<StepAnswer>> {
        async move { self.mailbox().greeting(greeter, Side::Claimer).post(attempt, step).await }.boxed()
    }

    fn cancel_claim(
        &self,
        greeter: UserId,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, Result<()>> {
        async move { self.mailbox().greeting(greeter, Side::Claimer).cancel(attempt, reason).await }.boxed()
    }

    fn reveal(&self, token: RevealToken) -> BoxFuture<'_, Result<Bytes>> {
        reveal(&*self.verbs, token).boxed()
    }
}
