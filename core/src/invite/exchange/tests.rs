use data_encoding::HEXLOWER;
use parsecfs_crypto::random_bytes;
use proptest::prelude::*;

use super::*;
use crate::invite::{InviteUserConfirmation, InviteUserData};

/// A user invitation between two real peers (`vectors/protocol/invite_user.json`), a line each: key and nonce of the
/// greeter, of the claimer, their codes, the shared key, nine steps of the greeter, nine of the claimer.
const CAPTURED: &str = include_str!("captured.txt");

fn bytes<const N: usize>(line: &str) -> [u8; N] {
    HEXLOWER.decode(line.as_bytes()).unwrap().try_into().unwrap()
}

fn fresh(side: Side) -> Exchange {
    Exchange::new(side, PrivateKey::generate(), random_bytes())
}

fn posted(side: &Exchange) -> Step {
    match side.next() {
        Next::Post(step) | Next::PostLast(step) => step,
        other => panic!("posts nothing: {other:?}"),
    }
}

/// Both post and receive until one of them needs something else.
fn run(greeter: &mut Exchange, claimer: &mut Exchange) {
    while let (Next::Post(ours), Next::Post(theirs) | Next::PostLast(theirs)) = (greeter.next(), claimer.next()) {
        greeter.receive(&theirs);
        claimer.receive(&ours);
    }
}

/// Both people find the code that the other reads aloud.
fn trust(greeter: &mut Exchange, claimer: &mut Exchange) {
    run(greeter, claimer);
    claimer.choose(greeter.own_code());
    run(greeter, claimer);
    greeter.choose(claimer.own_code());
    run(greeter, claimer);
}

#[test]
fn captured_peers_say_what_these_two_say() {
    let lines = CAPTURED.lines().collect::<Vec<_>>();
    let mut greeter = Exchange::new(Side::Greeter, PrivateKey::from_bytes(bytes(lines[0])), bytes(lines[1]));
    let mut claimer = Exchange::new(Side::Claimer, PrivateKey::from_bytes(bytes(lines[2])), bytes(lines[3]));
    let key = SecretKey::from_bytes(bytes(lines[6]));
    for number in 0..=LAST_STEP {
        let at = usize::from(number);
        let captured = |line: &str, side| {
            let message = HEXLOWER.decode(line.as_bytes()).unwrap();
            let step = Step::from_bytes(side, &message).unwrap();
            assert_eq!(step.number(), number);
            assert_eq!(step.to_bytes(), message);
            step
        };
        let (ours, theirs) = (captured(lines[7 + at], Side::Greeter), captured(lines[16 + at], Side::Claimer));
        if number == 4 {
            assert_eq!(greeter.own_code().unwrap().to_string(), lines[4]);
            assert_eq!(claimer.own_code(), None);
            claimer.choose(greeter.own_code());
        }
        if number == 5 {
            assert_eq!(claimer.own_code().unwrap().to_string(), lines[5]);
            greeter.choose(claimer.own_code());
        }
        if number == 6 {
            assert_eq!(claimer.shared_key(), Some(&key));
            assert_eq!(greeter.shared_key(), Some(&key));
            claimer.send(theirs.body().to_vec());
        }
        if number == 7 {
            assert!(InviteUserData::open(greeter.received().unwrap(), &key).is_ok());
            greeter.send(ours.body().to_vec());
        }
        assert_eq!((posted(&greeter), posted(&claimer)), (ours.clone(), theirs.clone()));
        greeter.receive(&theirs);
        claimer.receive(&ours);
    }
    assert!(InviteUserConfirmation::open(claimer.received().unwrap(), &key).is_ok());
    assert_eq!((greeter.next(), claimer.next()), (Next::Done, Next::Done));
}

#[test]
fn the_claimer_does_not_wait_for_an_answer_to_its_last_step() {
    let (mut greeter, mut claimer) = (fresh(Side::Greeter), fresh(Side::Claimer));
    trust(&mut greeter, &mut claimer);
    claimer.send(vec![1]);
    run(&mut greeter, &mut claimer);
    greeter.send(vec![2]);
    while claimer.next() != Next::Done {
        if let Next::PostLast(_) = claimer.next() {
            claimer.posted_last();
        } else {
            let (ours, theirs) = (posted(&greeter), posted(&claimer));
            greeter.receive(&theirs);
            claimer.receive(&ours);
        }
    }
    // The greeter hears only that the invitation is over, and before its last step never takes that for the end.
    assert!(matches!(greeter.next(), Next::Post(_)));
    greeter.posted_last();
    assert_eq!(greeter.next(), Next::Done);
    let mut early = fresh(Side::Greeter);
    early.posted_last();
    assert!(matches!(early.next(), Next::Post(_)));
    assert_eq!((greeter.received(), claimer.received()), (Some(&[1][..]), Some(&[2][..])));
}

#[test]
fn the_same_step_is_posted_until_it_is_answered() {
    let (greeter, mut claimer) = (fresh(Side::Greeter), fresh(Side::Claimer));
    assert_eq!(claimer.next(), claimer.next());
    let first = posted(&claimer);
    claimer.receive(&posted(&greeter));
    assert_ne!(posted(&claimer), first);
}

#[test]
fn a_code_that_is_wrong_or_not_found_ends_the_attempt_for_good() {
    for found in [None, Some(SasCode::from_number(7).unwrap())] {
        let (mut greeter, mut claimer) = (fresh(Side::Greeter), fresh(Side::Claimer));
        run(&mut greeter, &mut claimer);
        claimer.choose(found.filter(|code| Some(*code) != greeter.own_code()));
        assert_eq!(claimer.next(), Next::Ended(CancelReason::InvalidSasCode));
        claimer.choose(greeter.own_code());
        assert_eq!(claimer.next(), Next::Ended(CancelReason::InvalidSasCode));
        assert_eq!(claimer.shared_key(), None);
    }
}

#[test]
fn candidates_hold_the_code_of_the_other_side_and_stay_the_same() {
    let (mut greeter, mut claimer) = (fresh(Side::Greeter), fresh(Side::Claimer));
    run(&mut greeter, &mut claimer);
    let Next::Choose(codes) = claimer.next() else { panic!("asks for no code") };
    assert_eq!(codes.len(), CANDIDATES);
    assert!(codes.contains(&greeter.own_code().unwrap()));
    assert_eq!(claimer.next(), Next::Choose(codes));
}

#[test]
fn somebody_between_the_two_sides_makes_their_codes_differ() {
    let (mut greeter, mut claimer) = (fresh(Side::Greeter), fresh(Side::Claimer));
    let (mut to_greeter, mut to_claimer) = (fresh(Side::Claimer), fresh(Side::Greeter));
    run(&mut greeter, &mut to_greeter);
    run(&mut to_claimer, &mut claimer);
    // The claimer hears the real greeter's code. One run in 2²⁰ would be fooled.
    claimer.choose(greeter.own_code());
    assert_eq!(claimer.next(), Next::Ended(CancelReason::InvalidSasCode));
}

#[test]
fn a_nonce_other_than_the_promised_one_ends_the_attempt() {
    let (mut greeter, mut claimer) = (fresh(Side::Greeter), fresh(Side::Claimer));
    for _ in 0..3 {
        let (ours, theirs) = (posted(&greeter), posted(&claimer));
        greeter.receive(&theirs);
        claimer.receive(&ours);
    }
    greeter.receive(&Step::new(Side::Claimer, 3, vec![0; NONCE_BYTES]));
    assert_eq!(greeter.next(), Next::Ended(CancelReason::InvalidNonceHash));
}

#[test]
fn a_key_that_makes_the_secret_predictable_ends_the_attempt() {
    for side in [Side::Greeter, Side::Claimer] {
        let mut exchange = fresh(side);
        exchange.receive(&Step::new(side.other(), 0, vec![0; 32]));
        assert_eq!(exchange.next(), Next::Ended(CancelReason::InconsistentPayload));
    }
}

#[test]
fn a_step_out_of_turn_or_of_the_same_side_ends_the_attempt() {
    for step in [Step::new(Side::Claimer, 4, Vec::new()), posted(&fresh(Side::Greeter))] {
        let mut greeter = fresh(Side::Greeter);
        greeter.receive(&step);
        assert_eq!(greeter.next(), Next::Ended(CancelReason::InconsistentPayload));
    }
}

#[test]
fn no_key_is_given_before_both_people_said_yes() {
    let (mut greeter, mut claimer) = (fresh(Side::Greeter), fresh(Side::Claimer));
    run(&mut greeter, &mut claimer);
    assert!(greeter.shared_key().is_none() && claimer.shared_key().is_none());
    claimer.choose(greeter.own_code());
    run(&mut greeter, &mut claimer);
    assert!(greeter.shared_key().is_none() && claimer.shared_key().is_none());
    greeter.choose(claimer.own_code());
    run(&mut greeter, &mut claimer);
    assert!(greeter.shared_key().is_some() && greeter.shared_key() == claimer.shared_key());
}

proptest! {
    #[test]
    fn no_step_of_a_hostile_peer_panics_or_is_trusted(
        claims in any::<bool>(),
        steps in prop::collection::vec((any::<bool>(), 0..=LAST_STEP, prop::collection::vec(any::<u8>(), 0..70)), 0..12),
    ) {
        let mut exchange = fresh(if claims { Side::Claimer } else { Side::Greeter });
        for (own, number, body) in steps {
            let side = if own { exchange.side } else { exchange.side.other() };
            exchange.receive(&Step::new(side, number, body));
            exchange.choose(None);
            exchange.posted_last();
            prop_assert!(exchange.shared_key().is_none());
        }
    }

    #[test]
    fn no_bytes_make_reading_a_step_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for side in [Side::Greeter, Side::Claimer] {
            if let Ok(step) = Step::from_bytes(side, &bytes) {
                prop_assert_eq!(Step::from_bytes(side, &step.to_bytes()), Ok(step));
            }
        }
    }
}
