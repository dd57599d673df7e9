//! A way back that several people hold together, in a directory and on the real Parsec server: set up, looked at, ended,
//! refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{num::NonZeroU8, path::Path, sync::Arc};

use parsecfs_backends::{
    layer::fault::{Fault, Faulty},
    memory::MemoryServer,
};
use parsecfs_core::{
    certificate::{DevicePurpose, UserProfile},
    local_device::LocalDevice,
    name::{DeviceLabel, Email, HumanHandle, OrganizationId},
    shamir::SharePlan,
    storage::Storage,
};
use parsecfs_tests::{company::Company, world::bring_in};
use parsecfs_vfs::{
    clock::SystemClock,
    error::{ErrorKind, Result},
    organization::{Founding, NewOrganization, Organization, OrganizationKeys, plan_shares},
};

fn count(number: u8) -> NonZeroU8 {
    NonZeroU8::new(number).unwrap()
}

fn plan(threshold: u8, recipients: &[(&Organization, u8)]) -> SharePlan {
    let recipients = recipients.iter().map(|(person, shares)| (person.user_id(), count(*shares)));
    plan_shares(count(threshold), recipients.collect()).unwrap()
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn shares_devices(of: &Organization) -> usize {
    of.devices().into_iter().filter(|device| device.purpose == DevicePurpose::ShamirRecovery).count()
}

#[tokio::test]
async fn each_recipient_opens_the_own_shares_and_nobody_else_sees_any() {
    for company in Company::everywhere(&["bob", "carol", "dave"]).await.unwrap() {
        let [alice, bob, carol, dave] = company.people.as_slice() else { unreachable!() };
        alice.refresh().await.unwrap();
        alice.set_up_recovery(&plan(2, &[(bob, 2), (carol, 1)])).await.unwrap();
        let own = alice.recovery_of(alice.user_id()).unwrap();
        assert!(own.is_possible() && own.shares_left() == 3 && own.threshold.get() == 2);
        for (person, shares) in [(bob, 2), (carol, 1)] {
            person.refresh().await.unwrap();
            assert_eq!(person.recoveries_held().len(), 1);
            assert_eq!(person.open_shares(alice.user_id()).unwrap().shares().len(), shares);
        }
        dave.refresh().await.unwrap();
        assert!(dave.recovery_of(alice.user_id()).is_none());
        assert_eq!(kind(dave.open_shares(alice.user_id())), Some(ErrorKind::NotFound));
        assert_eq!(kind(bob.open_shares(carol.user_id())), Some(ErrorKind::NotFound));
        // A device that is new to it all sees the same.
        let again =
            company.open(bob.create_device(bob.device().device_label.clone(), DevicePurpose::Standard).await.unwrap());
        assert_eq!(again.await.unwrap().open_shares(alice.user_id()).unwrap().shares().len(), 2);
    }
}

#[tokio::test]
async fn a_recovery_ends_and_another_one_can_be_set_up() {
    for company in Company::everywhere(&["bob", "carol"]).await.unwrap() {
        let [alice, bob, carol] = company.people.as_slice() else { unreachable!() };
        assert_eq!(kind(alice.delete_recovery().await), Some(ErrorKind::NotFound));
        alice.set_up_recovery(&plan(1, &[(bob, 1)])).await.unwrap();
        assert_eq!(kind(alice.set_up_recovery(&plan(1, &[(carol, 1)])).await), Some(ErrorKind::Exists));
        assert_eq!(shares_devices(alice), 1, "a refusal makes no device");
        alice.delete_recovery().await.unwrap();
        bob.refresh().await.unwrap();
        assert!(alice.recovery_of(alice.user_id()).is_none() && bob.recoveries_held().is_empty());
        assert_eq!(kind(bob.open_shares(alice.user_id())), Some(ErrorKind::NotFound));
        alice.set_up_recovery(&plan(1, &[(carol, 1)])).await.unwrap();
        carol.refresh().await.unwrap();
        carol.open_shares(alice.user_id()).unwrap();
        // Bob's own is another one.
        bob.set_up_recovery(&plan(1, &[(alice, 1), (carol, 1)])).await.unwrap();
        carol.refresh().await.unwrap();
        assert_eq!(carol.recoveries_held().len(), 2);
    }
}

#[tokio::test]
async fn who_cannot_hold_shares_is_refused_before_anything_is_made() {
    for company in Company::everywhere(&["bob", "carol"]).await.unwrap() {
        let [alice, bob, carol] = company.people.as_slice() else { unreachable!() };
        let refused = |result: Result<()>, rule: &str| {
            let error = result.unwrap_err();
            assert!(error.kind() == ErrorKind::Denied && error.to_string().contains(rule), "{error}");
        };
        refused(alice.set_up_recovery(&plan(1, &[(alice, 1), (bob, 1)])).await, "user holds own shares");
        alice.revoke_user(carol.user_id()).await.unwrap();
        refused(alice.set_up_recovery(&plan(1, &[(bob, 1), (carol, 1)])).await, "user is revoked");
        let nobody = [(parsecfs_core::id::UserId::from_bytes([9; 16]), count(1))];
        let nobody = plan_shares(count(1), nobody.into()).unwrap();
        refused(alice.set_up_recovery(&nobody).await, "user is not known");
        assert_eq!(shares_devices(alice), 0);
        for (threshold, shares) in [(3, 2), (1, 0)] {
            let recipients = (0..shares).map(|id| (parsecfs_core::id::UserId::from_bytes([id; 16]), count(1)));
            assert_eq!(kind(plan_shares(count(threshold), recipients.collect())), Some(ErrorKind::InvalidArgument));
        }
    }
}

#[tokio::test]
async fn revoked_recipients_are_told_until_too_few_are_left() {
    for company in Company::everywhere(&["bob", "carol"]).await.unwrap() {
        let [alice, bob, carol] = company.people.as_slice() else { unreachable!() };
        alice.set_up_recovery(&plan(1, &[(bob, 1), (carol, 1)])).await.unwrap();
        alice.revoke_user(bob.user_id()).await.unwrap();
        let own = alice.recovery_of(alice.user_id()).unwrap();
        assert!(own.shares_left() == 1 && own.is_possible());
        alice.revoke_user(carol.user_id()).await.unwrap();
        let own = alice.recovery_of(alice.user_id()).unwrap();
        assert!(own.shares_left() == 0 && !own.is_possible());
        assert!(own.holders.iter().all(|(holder, _)| holder.revoked.is_some()));
        alice.delete_recovery().await.unwrap();
    }
}

/// Two devices of a person at the same moment: one of them sets it up, the other one hears so.
#[tokio::test]
async fn of_two_devices_one_sets_it_up() {
    for company in Company::everywhere(&["bob", "carol"]).await.unwrap() {
        let [alice, bob, carol] = company.people.as_slice() else { unreachable!() };
        let label = alice.device().device_label.clone();
        let second = company.open(alice.create_device(label, DevicePurpose::Standard).await.unwrap()).await.unwrap();
        let (one, two) = (plan(1, &[(bob, 1)]), plan(1, &[(carol, 1)]));
        let (one, two) = tokio::join!(alice.set_up_recovery(&one), second.set_up_recovery(&two));
        let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
        won.unwrap();
        assert_eq!(kind(lost), Some(ErrorKind::Exists));
        alice.refresh().await.unwrap();
        assert_eq!(alice.recovery_of(alice.user_id()).unwrap().holders.len(), 1);
    }
}

/// Alice on a storage in memory whose calls can go wrong, and Bob.
async fn over_faults() -> (Arc<Faulty>, Arc<Organization>, Arc<Organization>, [tempfile::TempDir; 2]) {
    let server = MemoryServer::new();
    let new = NewOrganization {
        organization_id: OrganizationId::new("Org").unwrap(),
        human_handle: HumanHandle::new(Email::new("alice@example.com").unwrap(), "Alice").unwrap(),
        device_label: DeviceLabel::new("laptop").unwrap(),
        server_url: "memory:".to_owned(),
    };
    let founding = Founding::prepare(new, &SystemClock).unwrap();
    let alice = founding.device().clone();
    let faulty = Faulty::new(server.connect(alice.device_id, alice.user_id));
    founding.publish(&*faulty).await.unwrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = async |device: LocalDevice, storage: Arc<dyn Storage>, dir: &Path| {
        let keys = OrganizationKeys::new(&device);
        Organization::open(device, keys, storage, dir, Arc::new(SystemClock)).await.unwrap()
    };
    let alice = open(alice, Arc::clone(&faulty) as _, dirs[0].path()).await;
    let bob = bring_in(&alice, "bob", UserProfile::Standard).await.unwrap();
    let storage = server.connect(bob.device_id, bob.user_id);
    let bob = open(bob, storage, dirs[1].path()).await;
    (faulty, alice, bob, dirs)
}

#[tokio::test]
async fn whatever_call_goes_wrong_one_recovery_is_set_up_in_the_end_and_its_shares_open() {
    for (nth, fault) in (0..7).flat_map(|nth| [(nth, Fault::FailBefore), (nth, Fault::FailAfter)]) {
        let (faulty, alice, bob, _dirs) = over_faults().await;
        let wanted = plan(1, &[(&bob, 1)]);
        faulty.plan(nth, fault);
        let first = alice.set_up_recovery(&wanted).await;
        faulty.clear();
        alice.refresh().await.unwrap();
        // Who heard of a failure looks, and does it again if it is not there.
        let is_there = alice.recovery_of(alice.user_id()).is_some();
        assert!(is_there || first.is_err(), "{nth} {fault:?}");
        let again = alice.set_up_recovery(&wanted).await;
        assert_eq!(kind(again), is_there.then_some(ErrorKind::Exists), "{nth} {fault:?}");
        bob.refresh().await.unwrap();
        assert_eq!(bob.open_shares(alice.user_id()).unwrap().shares().len(), 1, "{nth} {fault:?}");
    }
}
