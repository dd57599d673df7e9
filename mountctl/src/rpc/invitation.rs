//! What commands and the agent say about invitations. A dialog goes question by question: each request carries what the
//! person said to the last one, and the reply comes when there is the next.

use serde::{Deserialize, Serialize};

use super::DeviceView;
use crate::secret::Secret;

/// Whom to invite.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invite {
    /// Somebody who becomes a user.
    User {
        /// The person's address.
        email: String,
        /// Whether the storage is to write to the person.
        write: bool,
    },
    /// A further device of one's own.
    Device,
    /// Somebody who lost every device, of whom one holds shares.
    Recovery {
        /// Address, id, or start of the id.
        user: String,
    },
}

/// What the person said to the last question of a dialog.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Nothing yet: the dialog begins, or goes on where it was.
    Nothing,
    /// The code was read to the other person.
    Told,
    /// The code that the other person read; absent when it was none of those shown.
    Heard(Option<String>),
}

/// Where a dialog is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn<T> {
    /// Read this code to the other person.
    Tell(String),
    /// Find the code that the other person reads.
    Choose(Vec<String>),
    /// Somebody gave shares; ask on for the next one.
    Given(GivenView),
    /// What this person gave is not of this recovery; it goes on without.
    Misled(String),
    /// It is done.
    Done(T),
}

/// Shares that were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenView {
    /// Address of who gave them, or id where that is not known.
    pub by: String,
    /// How many more are needed.
    pub missing: u8,
    /// Names and addresses of those who may still give.
    pub others: Vec<String>,
}

/// An invitation, for those who may greet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationView {
    /// The link for the guest.
    pub url: String,
    /// 32 hexadecimal digits.
    pub token: String,
    /// `user`, `device`, `recovery`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Address of who is invited to become a user, or to come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// `pending`, `finished`, `cancelled`.
    pub status: String,
    /// When it was made, RFC 3339; absent for one that was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Whether the storage wrote to the guest; absent where nobody asked it to, or it never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_sent: Option<bool>,
}

/// An invitation as its guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedView {
    /// To which organization.
    pub organization: String,
    /// `user`, `device`, `recovery`.
    pub kind: String,
    /// The address that is invited, or of the person whose device it will be.
    pub email: Option<String>,
    /// Name of the person whose device it will be.
    pub name: Option<String>,
    /// Names of those who may greet, where they are known.
    pub greeters: Vec<String>,
    /// Shares that a recovery needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u8>,
}

/// Who was let in, or who was given shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomedView {
    /// 32 hexadecimal digits.
    pub user_id: String,
    /// Address.
    pub email: String,
    /// Name.
    pub name: String,
    /// 32 hexadecimal digits; absent when shares were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Name of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// The guest's part of a dialog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The link.
    pub link: Secret,
    /// Name of the person who becomes a user.
    pub name: Option<String>,
    /// The device to be.
    pub device: super::NewDevice,
    /// What the person said.
    pub said: Said,
}

/// Where the guest's dialog is.
pub type JoinTurn = Turn<DeviceView>;

/// Where the host's dialog is.
pub type GreetTurn = Turn<WelcomedView>;
