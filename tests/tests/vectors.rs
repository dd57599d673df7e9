//! Shows that what we read and write is what the formats say: every case of every file of `formats.md` 11, with the
//! step at which a bad one must fail.
//!
//! Nothing is skipped in silence: a file, a kind or a field that the table does not know is a failure.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use parsecfs_tests::vectors::{
    certificate, crypto, device, keys_bundle, manifest, merge, scalar, shamir, snapshot, trust, url,
};
use serde_json::Value;

/// How the cases of one kind are run.
struct Runner {
    kind: &'static str,
    /// The fields that a case may have, besides [`COMMON_FIELDS`].
    fields: &'static [&'static str],
    run: fn(&str, &Value) -> Result<()>,
}

/// `source` and `notes` are for people. `ok` and `decoded_ok` say what the absence of `error` says.
const COMMON_FIELDS: &[&str] = &["name", "source", "notes", "ok", "decoded_ok", "error"];

const CERTIFICATE: &[&str] =
    &["signing_seed", "verify_key", "verify_key_der", "signed", "payload", "decoded", "expected"];
const MANIFEST: &[&str] = &[
    "realm_key",
    "user_realm_key",
    "vlob_id",
    "derived_key",
    "signing_seed",
    "verify_key",
    "signed",
    "encrypted",
    "decoded",
];
const MANIFEST_CHECKS: &[&str] = &["key", "encrypted", "verify_key", "expected", "children"];

const RUNNERS: &[Runner] = &[
    one("secretbox", &["key", "plaintext", "ciphertext"], |_, case| crypto::secretbox(case)),
    one("sealed box", &["private_key", "public_key", "plaintext", "ciphertext"], |_, case| crypto::sealed_box(case)),
    one("ed25519 sign", &["seed", "verify_key", "message", "signed"], |_, case| crypto::sign(case)),
    one("keyed blake2b-512", &["key", "data", "mac"], |_, case| crypto::mac512(case)),
    one("sha256", &["data", "digest"], |_, case| crypto::hash(case)),
    one("key derivation", &["master", "uuid", "secret_key", "derived_uuid"], |_, case| crypto::derivation(case)),
    one("argon2id", &["password", "email", "salt", "opslimit", "memlimit_kb", "parallelism", "key"], |_, case| {
        crypto::argon2id(case)
    }),
    one(
        "shared secret",
        &["claimer_private", "claimer_public", "greeter_private", "greeter_public", "shared_key"],
        |_, case| crypto::shared_secret(case),
    ),
    one(
        "SAS code",
        &["claimer_nonce", "greeter_nonce", "shared_key", "claimer_sas", "greeter_sas", "int", "code"],
        |_, case| crypto::sas(case),
    ),
    one("recovery passphrase", &["passphrase", "key"], |_, case| crypto::recovery_passphrase(case)),
    one(
        "sequester",
        &[
            "private_key_der",
            "public_key_der",
            "plaintext",
            "ciphertext",
            "signing_key_der",
            "verify_key_der",
            "message",
            "signed",
        ],
        |_, case| crypto::sequester(case),
    ),
    one("shamir", &["threshold", "shares", "secret", "decoded"], |_, case| shamir::secret(case)),
    one("datetime", &["micros", "rfc3339", "uuid", "msgpack"], scalar::run),
    one("entry name", &["input", "value"], scalar::run),
    one("organization id", &["input", "value"], scalar::run),
    one("device label", &["input", "value"], scalar::run),
    one("email", &["input", "value"], scalar::run),
    one("human handle", &["email", "label", "value_label", "display", "uuid", "device_label"], scalar::run),
    one("frame", &["raw", "decoded"], |_, case| scalar::frame(case)),
    one("user_certificate", CERTIFICATE, certificate::run),
    one("device_certificate", CERTIFICATE, certificate::run),
    one("user_update_certificate", CERTIFICATE, certificate::run),
    one("revoked_user_certificate", CERTIFICATE, certificate::run),
    one("realm_role_certificate", CERTIFICATE, certificate::run),
    one("realm_name_certificate", CERTIFICATE, certificate::run),
    one("realm_key_rotation_certificate", CERTIFICATE, certificate::run),
    one("realm_archiving_certificate", CERTIFICATE, certificate::run),
    one("sequester_authority_certificate", CERTIFICATE, certificate::run),
    one("sequester_service_certificate", CERTIFICATE, certificate::run),
    one("sequester_revoked_service_certificate", CERTIFICATE, certificate::run),
    one("shamir_recovery_brief_certificate", CERTIFICATE, certificate::run),
    one("shamir_recovery_share_certificate", CERTIFICATE, certificate::run),
    one("shamir_recovery_deletion_certificate", CERTIFICATE, certificate::run),
    one("certificate chain", &["reader", "root_verify_key", "certificates", "may_reject"], |_, case| trust::run(case)),
    one(
        "keys bundle",
        &[
            "recipient_private_key",
            "keys_bundle_access",
            "keys_bundle",
            "author_verify_key",
            "keys_bundle_key",
            "decoded",
            "canaries",
        ],
        |_, case| keys_bundle::run(case),
    ),
    one(
        "realm name / canary",
        &["realm_key", "derivation_uuid", "derived_key", "encrypted", "plaintext"],
        |_, case| keys_bundle::name_or_canary(case),
    ),
    one("block", &["realm_key", "block_id", "derived_key", "encrypted", "size", "digest", "data"], |_, case| {
        manifest::block(case)
    }),
    one("file manifest", MANIFEST, manifest::run),
    one("folder manifest", MANIFEST, manifest::run),
    one("user manifest", MANIFEST, manifest::run),
    one("manifest checks", MANIFEST_CHECKS, manifest::run),
    one("folder manifest checks", MANIFEST_CHECKS, manifest::run),
    one("user manifest checks", MANIFEST_CHECKS, manifest::run),
    one("device file", &["file", "password", "passphrase", "keyring_secret", "key", "local_device"], |_, case| {
        device::file(case)
    }),
    one("invite payload", &["shared_key", "payload", "decoded"], |_, case| device::invite(case)),
    one(
        "shamir share data",
        &["recipient_private_key", "author_verify_key", "ciphered_share", "decoded"],
        |_, case| shamir::share(case),
    ),
    one("url", &["url", "http_url", "http_redirection", "class", "fields", "canonical"], |_, case| url::run(case)),
    one("conflict name", &["kind", "original", "taken", "result"], |_, case| merge::conflict_name(case)),
];

const fn one(kind: &'static str, fields: &'static [&'static str], run: fn(&str, &Value) -> Result<()>) -> Runner {
    Runner { kind, fields, run }
}

/// The files that exist, with their kinds. Any other is a failure; the copy holds all of them.
const FILES: &[(&str, &str)] = &[
    ("block", "block"),
    ("captured_org_snapshot", SNAPSHOT),
    ("cert_device_certificate", "device_certificate"),
    ("cert_realm_archiving_certificate", "realm_archiving_certificate"),
    ("cert_realm_key_rotation_certificate", "realm_key_rotation_certificate"),
    ("cert_realm_name_certificate", "realm_name_certificate"),
    ("cert_realm_role_certificate", "realm_role_certificate"),
    ("cert_revoked_user_certificate", "revoked_user_certificate"),
    ("cert_sequester_authority_certificate", "sequester_authority_certificate"),
    ("cert_sequester_revoked_service_certificate", "sequester_revoked_service_certificate"),
    ("cert_sequester_service_certificate", "sequester_service_certificate"),
    ("cert_shamir_recovery_brief_certificate", "shamir_recovery_brief_certificate"),
    ("cert_shamir_recovery_deletion_certificate", "shamir_recovery_deletion_certificate"),
    ("cert_shamir_recovery_share_certificate", "shamir_recovery_share_certificate"),
    ("cert_user_certificate", "user_certificate"),
    ("cert_user_update_certificate", "user_update_certificate"),
    ("certificate_chains", "certificate chain"),
    ("conflict_names", "conflict name"),
    ("crypto_argon2id", "argon2id"),
    ("crypto_hash", "sha256"),
    ("crypto_kdf", "key derivation"),
    ("crypto_kx", "shared secret"),
    ("crypto_mac512", "keyed blake2b-512"),
    ("crypto_sealedbox", "sealed box"),
    ("crypto_secretbox", "secretbox"),
    ("crypto_sign", "ed25519 sign"),
    ("device_file", "device file"),
    ("invite_payloads", "invite payload"),
    ("keys_bundle", "keys bundle"),
    ("manifest_block_rules", "manifest checks"),
    ("manifest_file", "file manifest"),
    ("manifest_folder", "folder manifest"),
    ("manifest_folder_rules", "folder manifest checks"),
    ("manifest_negative", "manifest checks"),
    ("manifest_tolerance", "manifest checks"),
    ("manifest_user", "user manifest"),
    ("manifest_user_negative", "user manifest checks"),
    ("passphrase", "recovery passphrase"),
    ("realm_name_canary", "realm name / canary"),
    ("sas", "SAS code"),
    ("scalars_datetime", "datetime"),
    ("scalars_device_label", "device label"),
    ("scalars_email", "email"),
    ("scalars_entry_name", "entry name"),
    ("scalars_human_handle", "human handle"),
    ("scalars_organization_id", "organization id"),
    ("sequester_crypto", "sequester"),
    ("serialization_frame", "frame"),
    ("shamir", "shamir"),
    ("shamir_share_data", "shamir share data"),
    ("urls", "url"),
];

/// The one kind whose file is a single case.
const SNAPSHOT: &str = "organization snapshot";
const SNAPSHOT_FIELDS: &[&str] = &[
    "kind",
    "organization_id",
    "device_file_password",
    "second_device_file_password",
    "recovery_device",
    "certificates",
    "workspace_id",
    "keys_bundles",
    "vlobs",
    "blocks",
    "user_realm_vlobs",
    "expected",
    "outsider",
];

/// The folder that holds `formats`: named by `PARSECFS_VECTORS`, else beside the workspace, else the project's copy.
fn folder() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = tests.join("../../shared/parsec/vectors");
    match env::var_os("PARSECFS_VECTORS") {
        // Relative to the workspace, wherever the test runner stands.
        Some(named) => tests.join("..").join(named).join("formats"),
        None if beside.is_dir() => beside.join("formats"),
        None => copy(),
    }
}

fn copy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vectors/formats")
}

/// Runs a folder; returns the number of cases and what failed.
fn run_folder(folder: &Path) -> Result<(usize, Vec<String>)> {
    let entries = fs::read_dir(folder).context("the folder of vectors cannot be read")?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    ensure!(!paths.is_empty(), "the folder of vectors is empty");
    let (mut count, mut failures) = (0, Vec::new());
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match fs::read(&path).map_err(Into::into).and_then(|bytes| run_file(&name, &bytes)) {
            Ok((cases, failed)) => {
                count += cases;
                failures.extend(failed.into_iter().map(|failed| format!("{name}: {failed}")));
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    Ok((count, failures))
}

fn run_file(name: &str, bytes: &[u8]) -> Result<(usize, Vec<String>)> {
    let known = FILES.iter().find(|(file, _)| name.strip_suffix(".json") == Some(file));
    let (_, kind) = known.context("unknown file")?;
    let file: Value = serde_json::from_slice(bytes)?;
    ensure!(file["kind"] == *kind, "unknown kind {}", file["kind"]);
    if *kind == SNAPSHOT {
        only(&file, SNAPSHOT_FIELDS)?;
        snapshot::run(&file)?;
        return Ok((1, Vec::new()));
    }
    only(&file, &["kind", "cases"])?;
    let runner = RUNNERS.iter().find(|runner| runner.kind == *kind).context("no runner")?;
    let cases = file["cases"].as_array().context("no list of cases")?;
    ensure!(!cases.is_empty(), "no cases");
    let failed = cases.iter().filter_map(|case| {
        let error = run_case(runner, case).err()?;
        Some(format!("{}: {error:#}", case["name"]))
    });
    Ok((cases.len(), failed.collect()))
}

fn run_case(runner: &Runner, case: &Value) -> Result<()> {
    only(case, runner.fields)?;
    (runner.run)(runner.kind, case)
}

/// A field that we do not know may say something that we then do not check.
fn only(case: &Value, fields: &[&str]) -> Result<()> {
    for field in case.as_object().context("not a map")?.keys() {
        if !fields.contains(&field.as_str()) && !COMMON_FIELDS.contains(&field.as_str()) {
            bail!("unknown field {field}");
        }
    }
    Ok(())
}

#[test]
fn vectors_all_pass() {
    let folder = folder();
    let (count, failures) = run_folder(&folder).unwrap();
    println!("{count} cases of {}", folder.display());
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn vectors_of_every_known_file_are_in_the_copy() {
    for (file, kind) in FILES {
        assert!(copy().join(format!("{file}.json")).is_file(), "{file} is missing");
        assert!(*kind == SNAPSHOT || RUNNERS.iter().any(|runner| runner.kind == *kind), "{kind} has no runner");
    }
}

#[test]
fn vectors_that_nobody_knows_are_failures() {
    let empty = tempfile::tempdir().unwrap();
    assert!(run_folder(empty.path()).is_err());
    assert!(run_folder(&empty.path().join("absent")).is_err());
    let hash = r#"{"name":"a","data":"","digest":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
    let run = |name, text: &str| run_file(name, text.as_bytes());
    let cases = |case: &str| format!(r#"{{"kind":"sha256","cases":[{case}]}}"#);
    assert_eq!(run("crypto_hash.json", &cases(hash)).unwrap(), (1, vec![]));
    assert!(run("crypto_hash2.json", &cases(hash)).is_err());
    assert!(run("crypto_hash.txt", &cases(hash)).is_err());
    assert!(run("crypto_kdf.json", &cases(hash)).is_err());
    assert!(run("crypto_hash.json", &cases("")).is_err());
    for (is, was) in [(r#""more":1,"data""#, r#""data""#), ("00", "e3"), (r#""x""#, r#""digest""#)] {
        assert_eq!(run("crypto_hash.json", &cases(&hash.replacen(was, is, 1))).unwrap().1.len(), 1);
    }
}
