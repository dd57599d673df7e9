//! Recovery by shares through the real program: `device recovery setup`, `shares` and `delete`, what the doctor tells of
//! ways back, and coming back by `invite recovery` and `join`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use parsecfs_tests::{
    cli::CliHome,
    company::Company,
    dialog::{Person, Terminal, call_in_turn},
};
use serde_json::{Value, json};

const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";

/// Alice, Bob and Carol; the organization lives as long as the first of the answer.
fn company() -> (Company, [CliHome; 3]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let company = runtime.block_on(Company::in_a_directory(&["bob", "carol"])).unwrap();
    let homes = [0, 1, 2].map(|person| company.home(person).unwrap());
    (company, homes)
}

fn finding(home: &CliHome, check: &str) -> Option<Value> {
    let findings = home.run(&["doctor"]).json();
    findings.as_array().unwrap().iter().find(|finding| finding["check"] == check).cloned()
}

#[test]
fn shares_are_given_out_looked_at_and_taken_back() {
    let (_company, [alice, bob, carol]) = &company();
    assert_eq!(alice.ok(&["device", "recovery", "shares"]), json!({"own": null, "held": []}));
    let recipients = format!("{BOB},{CAROL}:2");
    let made = alice.ok(&["device", "recovery", "setup", "--recipients", &recipients, "--threshold", "2"]);
    let said = carol.run(&["device", "recovery", "shares"]);
    assert_eq!(said.json()["held"][0]["user"]["email"], "alice@example.com");
    assert_eq!((&made["threshold"], &made["shares_left"], &made["possible"]), (&json!(2), &json!(3), &json!(true)));
    let mut holders: Vec<_> = made["holders"].as_array().unwrap().clone();
    holders.sort_by_key(|holder| holder["email"].to_string());
    assert_eq!((&holders[0]["email"], &holders[0]["shares"]), (&json!(BOB), &json!(1)));
    assert_eq!((&holders[1]["email"], &holders[1]["shares"]), (&json!(CAROL), &json!(2)));
    assert_eq!(alice.ok(&["device", "recovery", "shares"])["own"], made);
    let held = &bob.ok(&["device", "recovery", "shares"])["held"];
    assert_eq!(held[0]["user"]["email"], "alice@example.com");
    let again = ["device", "recovery", "setup", "--recipients", BOB, "--threshold", "1"];
    let error = alice.fails(1, &again);
    assert_eq!(error["kind"], "exists");
    assert!(error["hint"].as_str().unwrap().contains("delete"), "{error}");
    assert_eq!(alice.fails(2, &["device", "recovery", "delete"])["kind"], "usage", "it asks first");
    alice.ok(&["device", "recovery", "delete", "--yes"]);
    assert_eq!(alice.fails(10, &["device", "recovery", "delete", "--yes"])["kind"], "not_found");
    assert_eq!(carol.ok(&["device", "recovery", "shares"]), json!({"own": null, "held": []}));
    alice.ok(&again);
}

#[test]
fn what_cannot_work_is_refused_and_named() {
    let (_company, [alice, _, _]) = &company();
    alice.ok(&["user", "revoke", CAROL, "--yes"]);
    let recipients = |list: &'static str, threshold: &'static str| {
        ["device", "recovery", "setup", "--recipients", list, "--threshold", threshold]
    };
    let cases = [
        ("bob@example.com,alice@example.com", "1", 14, "alice@example.com cannot hold shares"),
        ("carol@example.com", "1", 14, "carol@example.com cannot hold shares"),
        ("nobody@example.com", "1", 10, "nobody@example.com"),
        ("bob@example.com:2", "3", 2, "more shares are needed than there are"),
        ("bob@example.com,bob@example.com", "1", 2, "named twice"),
        ("bob@example.com", "0", 2, "threshold"),
        ("bob@example.com:0", "1", 2, "1 to 255 shares"),
        ("bob@example.com:256", "1", 2, "1 to 255 shares"),
    ];
    for (list, threshold, code, words) in cases {
        let said = alice.run(&recipients(list, threshold));
        assert_eq!(said.code, Some(code), "{list} {threshold}: {said:?}");
        assert!(said.stderr.contains(words), "{list} {threshold}: {said:?}");
    }
    assert_eq!(alice.ok(&["device", "recovery", "shares"])["own"], json!(null));
}

#[test]
fn the_doctor_tells_who_has_no_way_back_and_when_too_few_are_left() {
    let (_company, [alice, _, _]) = &company();
    let recovery = finding(alice, "recovery").unwrap();
    assert_eq!(recovery["verdict"], "warning");
    assert!(recovery["hint"].as_str().unwrap().contains("device recovery setup"), "{recovery}");
    let recipients = format!("{BOB},{CAROL}");
    alice.ok(&["device", "recovery", "setup", "--recipients", &recipients, "--threshold", "2"]);
    assert_eq!(finding(alice, "recovery").unwrap()["verdict"], "ok");
    assert_eq!(finding(alice, "recovery_shares"), None);
    alice.ok(&["user", "revoke", BOB, "--yes"]);
    assert_eq!(finding(alice, "recovery").unwrap()["verdict"], "warning");
    let shares = finding(alice, "recovery_shares").unwrap();
    assert_eq!(shares["verdict"], "warning");
    assert!(shares["message"].as_str().unwrap().contains("2 shares are needed and 1 are left"), "{shares}");
    let view = alice.ok(&["device", "recovery", "shares"]);
    assert_eq!(view["own"]["possible"], false);
    assert!(view["own"]["holders"].as_array().unwrap().iter().any(|holder| holder["revoked"] == true));
}

#[test]
fn the_audit_tells_of_setups_and_ends() {
    let (_company, [alice, bob, _]) = &company();
    alice.ok(&["device", "recovery", "setup", "--recipients", BOB, "--threshold", "1"]);
    alice.ok(&["device", "recovery", "delete", "--yes"]);
    let events = |home: &CliHome| {
        let audit = home.ok(&["audit"]);
        let events = audit["events"].as_array().unwrap().clone();
        let words = events.into_iter().map(|event| event["event"].as_str().unwrap().to_owned());
        words.filter(|word| word.contains("recovery")).collect::<Vec<_>>()
    };
    assert_eq!(events(alice), ["shared_recovery_set_up", "shared_recovery_ended"]);
    assert_eq!(events(bob), ["shared_recovery_set_up", "recovery_share_given", "shared_recovery_ended"]);
}

/// Alice loses her laptop; Bob and Carol bring her back.
fn back_by_shares(company: &Company) {
    let [alice, bob, carol] = [0, 1, 2].map(|person| company.home(person).unwrap());
    alice.ok(&["workspace", "create", "Photos"]);
    let recipients = format!("{BOB},{CAROL}");
    alice.ok(&["device", "recovery", "setup", "--recipients", &recipients, "--threshold", "2"]);
    drop(alice);
    let error = bob.fails(10, &["invite", "recovery", CAROL]);
    assert_eq!(
        (&error["kind"], &error["message"]),
        (&json!("not_found"), &json!(format!("you hold no shares of {CAROL}")))
    );
    let invited = carol.ok(&["invite", "recovery", "alice@example.com"]);
    assert_eq!((&invited["type"], &invited["email"]), (&json!("recovery"), &json!("alice@example.com")));
    let (url, token) = (invited["url"].as_str().unwrap(), invited["token"].as_str().unwrap());
    let fresh = CliHome::new();
    let join = ["join", url, "--auth", "keyfile", "--device-label", "new laptop"];
    let greet = ["invite", "greet", token];

    // Carol's code does not fit: nothing that Bob gave is lost, and the same command goes on.
    let misheard = vec![
        Terminal::new(&bob, &greet, Person::ComesBack),
        Terminal::new(&carol, &["invite", "greet", "alice@example.com"], Person::Mishears),
    ];
    let (stopped, hosts) = call_in_turn(Terminal::new(&fresh, &join, Person::Careful), misheard);
    assert_eq!((hosts[0].code, hosts[1].code, stopped.code), (Some(0), Some(12), Some(12)), "{hosts:?} {stopped:?}");
    assert!(stopped.stderr.contains("gave is kept"), "{stopped:?}");
    let given = hosts[0].json();
    assert_eq!((&given["email"], given.get("device_id")), (&json!("alice@example.com"), None));

    let careful = vec![Terminal::new(&carol, &greet, Person::Careful)];
    let (joined, hosts) = call_in_turn(Terminal::new(&fresh, &join, Person::Careful), careful);
    assert_eq!((joined.code, hosts[0].code), (Some(0), Some(0)), "{joined:?} {hosts:?}");
    assert_eq!(joined.json()["email"], "alice@example.com");
    assert_eq!(fresh.ok(&["workspace", "list"])[0]["name"], "Photos");
    assert_eq!(fresh.ok(&["device", "list"]).as_array().unwrap().len(), 1, "the way back leaves no trace");
    assert_eq!(bob.ok(&["invite", "list"])[0]["status"], "finished");
    assert_eq!(fresh.fails(10, &join)["kind"], "not_found", "it was used");
}

#[test]
fn who_lost_every_device_comes_back_in_a_directory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    back_by_shares(&runtime.block_on(Company::in_a_directory(&["bob", "carol"])).unwrap());
}

#[test]
fn who_lost_every_device_comes_back_on_a_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(company) = runtime.block_on(Company::on_a_server(&["bob", "carol"])).unwrap() {
        back_by_shares(&company);
    }
}
