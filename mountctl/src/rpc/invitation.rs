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
    /// It is done.
    Done(T),
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
    /// The guest's address, where one is invited to become a user.
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
}

/// Who was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomedView {
    /// 32 hexadecimal digits.
    pub user_id: String,
    /// Address.
    pub email: String,
    /// Name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub device_id: String,
    /// Name of the device.
    pub device: String,
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
