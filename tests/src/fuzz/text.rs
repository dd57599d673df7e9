//! Text from elsewhere: addresses, names, names of objects, and what a command and the agent say to each other.

use mountctl::rpc::{Greeting, Reply, Request};
use parsecfs_backends::objects::fuzzing::read_name;
use parsecfs_core::{
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    url::{Address, InvitationLink, ServerAddr, is_storage_address, open_path},
};
use parsecfs_crypto::SecretKey;

/// Addresses and names.
pub(super) fn read(bytes: &[u8]) {
    let key = SecretKey::from_bytes([7; 32]);
    drop(open_path(&key.seal(bytes), &key));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(address) = Address::parse(text) {
        assert!(Address::parse(&address.to_string()).as_ref() == Ok(&address), "an address is written otherwise");
        assert!(Address::parse(&address.http_redirection()).as_ref() == Ok(&address), "redirected elsewhere");
    }
    for server in [ServerAddr::parse(text), ServerAddr::from_http(text)].into_iter().flatten() {
        assert!(ServerAddr::parse(&server.to_string()).as_ref() == Ok(&server), "a server is written otherwise");
        assert!(ServerAddr::from_http(&server.http_url()).as_ref() == Ok(&server), "another server over http");
    }
    if let Ok(link) = InvitationLink::parse(text) {
        assert!(InvitationLink::parse(&link.reveal()).as_ref() == Ok(&link), "a link is written otherwise");
    }
    let _is_storage = is_storage_address(text);
    if let Ok(name) = EntryName::new(text) {
        assert!(EntryName::new(name.reveal()).as_ref() == Ok(&name), "a name is not what it says");
    }
    drop(OrganizationId::new(text));
    drop(DeviceLabel::new(text));
    if let Ok(email) = Email::new(text) {
        drop(HumanHandle::new(email, text));
    }
    read_name(text);
}

/// One line of the conversation between a command and the agent.
pub(super) fn read_agent(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        let again = serde_json::to_vec(&request).expect("a request is plain JSON");
        assert!(serde_json::from_slice::<Request>(&again).is_ok(), "a request is not read as it is written");
    }
    drop(serde_json::from_slice::<Reply>(bytes));
    drop(serde_json::from_slice::<Greeting>(bytes));
    drop(mountctl::mountpoint::parse(bytes));
}
