//! What two people say to each other beside the storage, while each drives a side of an exchange.

use parsecfs_crypto::sas::SasCode;
use parsecfs_vfs::invitation::Person;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// One end of a call.
pub struct Phone {
    says: UnboundedSender<SasCode>,
    hears: UnboundedReceiver<SasCode>,
    /// Understands every code wrong.
    pub is_deaf: bool,
}

impl Phone {
    /// Both ends.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let ((says, other_hears), (other_says, hears)) = (unbounded_channel(), unbounded_channel());
        (Self { says, hears, is_deaf: false }, Self { says: other_says, hears: other_hears, is_deaf: false })
    }

    /// Reads this code to the other one.
    pub fn say(&self, code: SasCode) {
        self.says.send(code).expect("the other one listens");
    }

    /// The code that the other one read, if it is among these and was understood.
    pub async fn find(&mut self, codes: &[SasCode]) -> Option<SasCode> {
        let heard = self.hears.recv().await?;
        codes.iter().copied().find(|code| (*code == heard) != self.is_deaf)
    }

    /// Reads this code for a side.
    pub fn tell(&self, side: &mut impl Person, code: SasCode) {
        self.say(code);
        side.told();
    }

    /// Picks a code for a side.
    pub async fn pick(&mut self, side: &mut impl Person, codes: &[SasCode]) {
        side.choose(self.find(codes).await);
    }
}
