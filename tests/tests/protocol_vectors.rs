//! Exchanges that were captured from a real server replay: what this client sends is what the server took, and what the
//! server answered is understood. A file that the table does not know is a failure.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use parsecfs_backends::{
    conformance::World,
    parsec::{
        Limits, Options, ParsecStorage,
        command::{Reply, Request},
        http::{self, Refused},
        server::{Family, Server},
    },
};
use parsecfs_core::{
    document::{from_msgpack, to_msgpack},
    id::{BlockId, DeviceId, InvitationToken, RealmId, VlobId},
    name::OrganizationId,
    storage::{BlockStore, CertificateCursor, CertificateStore, ErrorKind, Event, EventSource, Signer, VlobStore},
    time::Timestamp,
    url::Address,
};
use parsecfs_crypto::{
    PrivateKey, PublicKey, SecretKey, SigningKey,
    kx::{claimer_shared_key, greeter_shared_key},
    sas::{SasCode, SasCodes},
};
use parsecfs_tests::{
    canned::{Answer, Asked, Canned},
    vectors::{hex, hex_array, text, unhex},
};
use rmpv::Value as Msgpack;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/vectors/protocol")
}

fn load(name: &str) -> Value {
    let text = fs::read_to_string(folder().join(name)).expect("a vector file");
    serde_json::from_str(&text).expect("a vector file is JSON")
}

#[test]
fn every_file_of_captured_exchanges_replays() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut files: Vec<_> = fs::read_dir(folder()).expect("vectors").flatten().map(|file| file.file_name()).collect();
    files.sort();
    assert_eq!(files.len(), 11, "none is missing");
    for file in files {
        let name = file.to_str().expect("UTF-8").to_owned();
        let vectors = load(&name);
        let replayed = runtime.block_on(async {
            match name.as_str() {
                // Secrets of the others.
                "keys.json" => Ok(()),
                "auth.json" => headers_are_those_that_were_accepted(&vectors).await,
                "bootstrap.json" | "realm_vlob_block.json" | "share_revoke.json" | "invite_user.json" => {
                    exchanges(&vectors, "exchanges").await
                }
                "http_status.json" => {
                    exchanges(&vectors, "tos_exchanges").await?;
                    statuses(&vectors)
                }
                "msgpack.json" => encodings(&vectors),
                "sas.json" => codes(&vectors),
                "sse.json" => streams(&vectors).await,
                "urls.json" => addresses(&vectors),
                _ => bail!("nobody reads this file"),
            }
        });
        replayed.with_context(|| name).expect("replays");
    }
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field].as_array().with_context(|| format!("a list {field}"))
}

fn clock() -> parsecfs_backends::parsec::server::Clock {
    Arc::new(|| Timestamp::from_micros(1_700_000_000_000_000).expect("in range"))
}

fn organization() -> OrganizationId {
    OrganizationId::new("VecOrg").expect("a name")
}

fn server(canned: &Canned) -> Server {
    Server::new(&canned.address(), Some(&organization()), clock(), Limits::default()).expect("a client")
}

fn storage(canned: &Canned) -> Arc<ParsecStorage> {
    let options = Options {
        server: canned.address(),
        organization: organization(),
        root: [0; 32],
        bootstrap_token: None,
        signer: Arc::new(World::founder()),
        clock: clock(),
        limits: Limits::default(),
    };
    ParsecStorage::open(options).expect("a client")
}

/// Signs as the vectors do.
struct Device(DeviceId, SigningKey);

impl Signer for Device {
    fn device_id(&self) -> DeviceId {
        self.0
    }

    fn user_id(&self) -> parsecfs_core::id::UserId {
        parsecfs_core::id::UserId::from_bytes([0; 16])
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.1.sign_detached(message)
    }
}

async fn headers_are_those_that_were_accepted(vectors: &Value) -> Result<()> {
    let ok: Answer = (200, Vec::new(), unhex(&Value::from("81a6737461747573a26f6b"))?);
    let canned = Canned::new(vec![ok.clone(), ok]);
    let server = server(&canned);
    let case = &vectors["device"];
    let device = Device(
        DeviceId::from_bytes(hex_array(case, "device_id")?),
        SigningKey::from_seed(hex_array(case, "signing_key_seed")?),
    );
    server.call(Family::Authenticated(&device), Request::new("organization_info")).await?;
    let token = InvitationToken::from_bytes(hex_array(&vectors["invited"], "token")?);
    server.call(Family::Invited(token), Request::new("invite_info")).await?;
    let asked = canned.asked();
    ensure!(asked[0].header("authorization") == Some(text(case, "header")?), "{:?}", asked[0]);
    ensure!(asked[1].header("authorization") == Some(text(&vectors["invited"], "header")?), "{:?}", asked[1]);
    Ok(())
}

async fn exchanges(vectors: &Value, field: &str) -> Result<()> {
    for case in list(vectors, field)? {
        exchange(case).await.with_context(|| case["name"].to_string())?;
        typed(case).await.with_context(|| format!("{} as the storage contract has it", case["name"]))?;
    }
    Ok(())
}

fn answer(case: &Value) -> Result<Answer> {
    let status = u16::try_from(case["http"]["status"].as_u64().context("a status")?)?;
    Ok((status, Vec::new(), hex(case, "response_hex")?))
}

/// The same command with the same fields is the same request, and its answer has the status that it had.
async fn exchange(case: &Value) -> Result<()> {
    let Msgpack::Map(fields) = from_msgpack(&hex(case, "request_hex")?)? else { bail!("a request is a map") };
    let command = fields.iter().find(|(key, _)| key.as_str() == Some("cmd")).context("a command")?.1.clone();
    let mut request = Request::new(Box::leak(command.as_str().context("a name")?.to_owned().into_boxed_str()));
    for (key, value) in fields.into_iter().filter(|(key, _)| key.as_str() != Some("cmd")) {
        request = request.with_value(key.as_str().context("a field")?, value);
    }
    let identity = World::founder();
    let path = text(&case["http"], "path")?;
    let family = match path {
        "/anonymous/VecOrg" => Family::Anonymous,
        "/invited/VecOrg" => Family::Invited(InvitationToken::from_bytes([1; 16])),
        "/authenticated/VecOrg" => Family::Authenticated(&identity),
        "/authenticated/VecOrg/tos" => Family::Tos(&identity),
        "/anonymous_server" => Family::AnonymousServer,
        _ => bail!("another path: {path}"),
    };
    let canned = Canned::new(vec![answer(case)?]);
    let replied = server(&canned).call(family, request).await;
    let asked = canned.asked();
    ensure!(asked[0].line == format!("POST {path}"), "{:?}", asked[0]);
    for name in ["Api-Version", "Content-Type"] {
        let expected = case["http"]["request_headers"][name].as_str();
        ensure!(asked[0].header(&name.to_ascii_lowercase()) == expected, "another {name}");
    }
    ensure!(same(&asked[0], &hex(case, "request_hex")?)?, "another request");
    match (replied, case["http"]["status"].as_u64()) {
        (Ok(reply), Some(200)) => ensure!(reply.status() == text(&case["response"], "status")?, "another status"),
        (Err(error), Some(461)) => ensure!(error.to_string().contains("revoked"), "{error}"),
        (Err(error), Some(410)) => ensure!(error.kind() == ErrorKind::NotFound, "{error}"),
        (Ok(_), _) => bail!("an error was expected"),
        (Err(error), _) => return Err(error.into()),
    }
    Ok(())
}

/// The order of fields means nothing.
fn same(asked: &Asked, expected: &[u8]) -> Result<bool> {
    let sorted = |bytes: &[u8]| -> Result<Vec<(String, Msgpack)>> {
        let Msgpack::Map(fields) = from_msgpack(bytes)? else { bail!("a request is a map") };
        let mut fields: Vec<_> = fields.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(fields)
    };
    Ok(sorted(&asked.body)? == sorted(expected)?)
}

fn id(case: &Value, field: &str) -> Result<[u8; 16]> {
    hex_array(&case["request"][field], "$uuid")
}

/// What reads asks for the same and gives what the server gave.
async fn typed(case: &Value) -> Result<()> {
    let (request, response) = (&case["request"], &case["response"]);
    if response["status"] != "ok" {
        return Ok(());
    }
    let canned = Canned::new(vec![answer(case)?]);
    let storage = storage(&canned);
    let realm = || Ok::<_, anyhow::Error>(RealmId::from_bytes(id(case, "realm_id")?));
    match text(request, "cmd")? {
        "certificate_get" => {
            let batch = storage.certificates(&CertificateCursor::default()).await?;
            ensure!(batch.common.len() == list(response, "common_certificates")?.len(), "other certificates");
            return Ok(());
        }
        "realm_get_keys_bundle" => {
            let index = request["key_index"].as_u64().context("an index")?;
            let bundle = storage.keys_bundle(realm()?, index).await?;
            ensure!(*bundle.bundle == *hex(&response["keys_bundle"], "$bin")?, "another bundle");
        }
        "block_read" => {
            let block = storage.get(realm()?, BlockId::from_bytes(id(case, "block_id")?)).await?;
            ensure!(*block.bytes == *hex(&response["block"], "$bin")?, "another block");
            ensure!(response["key_index"] == block.key_index, "another key");
        }
        "vlob_poll_changes" => {
            let since = request["last_checkpoint"].as_u64().context("a checkpoint")?;
            let changes = storage.changes(realm()?, since).await?;
            ensure!(response["current_checkpoint"] == changes.checkpoint, "another checkpoint");
            ensure!(list(response, "changes")?.len() == changes.items.len(), "other changes");
        }
        "vlob_read_batch" if request["at"].is_null() => {
            let ids = list(request, "vlobs")?.iter();
            let ids = ids.map(|id| Ok(VlobId::from_bytes(hex_array(id, "$uuid")?))).collect::<Result<Vec<_>>>()?;
            let records = storage.read(realm()?, &ids).await?;
            for (record, item) in records.iter().zip(list(response, "items")?) {
                ensure!(item[1] == record.key_index && item[3] == record.version, "another version");
                ensure!(item[4]["$dt"] == record.timestamp.as_micros(), "another time");
                ensure!(*record.blob == *hex(&item[5], "$bin")?, "another blob");
            }
            ensure!(records.len() == list(response, "items")?.len(), "other records");
        }
        _ => return Ok(()),
    }
    ensure!(same(&canned.asked()[0], &hex(case, "request_hex")?)?, "another request");
    Ok(())
}

/// What each outcome means to whoever asked.
fn statuses(vectors: &Value) -> Result<()> {
    for case in list(vectors, "cases")? {
        let status = u16::try_from(case["status"].as_u64().context("a status")?)?;
        let expected = match status {
            200 => {
                if let Ok(bytes) = hex(case, "response_hex")
                    .map_err(drop)
                    .and_then(|bytes| if bytes.is_empty() { Err(()) } else { Ok(bytes) })
                {
                    Reply::read("organization_info", &bytes)?.ok()?;
                }
                continue;
            }
            401 | 406 | 413 => ErrorKind::Internal,
            403 | 460 | 462 | 463 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            415 | 422 => ErrorKind::Unsupported,
            498 => continue, // needs the clock: tests/tests/parsec_server.rs
            _ => bail!("nobody knows status {status}"),
        };
        let versions = case["response_headers"]["supported-api-versions"].as_str().map(str::to_owned);
        ensure!(versions.is_some() == (status == 422), "versions come with 422");
        let error = http::refusal(&Refused { status, versions, date: None });
        ensure!(error.kind() == expected, "{}: {:?}", case["name"], error.kind());
        ensure!(status != 422 || error.to_string().contains("5.5"), "{error}");
    }
    Ok(())
}

fn encodings(vectors: &Value) -> Result<()> {
    for case in list(vectors, "vectors")? {
        let bytes = hex(case, "hex")?;
        ensure!(to_msgpack(&from_msgpack(&bytes)?) == bytes, "{}", case["name"]);
    }
    Ok(())
}

fn codes(vectors: &Value) -> Result<()> {
    for pair in list(vectors, "number_to_code")? {
        let number = u32::try_from(pair[0].as_u64().context("a number")?)?;
        ensure!(Some(SasCode::from_number(number)?.to_string().as_str()) == pair[1].as_str(), "{number}");
    }
    for case in list(vectors, "vectors")? {
        let key = |field| -> Result<PrivateKey> { Ok(PrivateKey::from_bytes(hex_array(case, field)?)) };
        let public = |field| -> Result<PublicKey> { Ok(PublicKey::from_bytes(hex_array(case, field)?)) };
        let shared = SecretKey::from_bytes(hex_array(case, "shared_secret_key")?);
        ensure!(greeter_shared_key(&key("greeter_private_key")?, &public("claimer_public_key")?)? == shared, "greeter");
        ensure!(claimer_shared_key(&key("claimer_private_key")?, &public("greeter_public_key")?)? == shared, "claimer");
        let codes = SasCodes::new(&shared, &hex(case, "claimer_nonce")?, &hex(case, "greeter_nonce")?);
        ensure!(codes.greeter.to_string() == text(case, "greeter_sas")?, "another code of the greeter");
        ensure!(codes.claimer.to_string() == text(case, "claimer_sas")?, "another code of the claimer");
    }
    Ok(())
}

async fn streams(vectors: &Value) -> Result<()> {
    for case in list(vectors, "streams")?.iter().chain(list(vectors, "special_streams")?) {
        let kind = vec![("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned())];
        let canned = Canned::new(vec![(200, kind, hex(case, "raw_hex")?)]);
        let storage = storage(&canned);
        let heard: Vec<_> =
            storage.events().skip(1).take_while(|e| std::future::ready(*e != Event::Offline)).collect().await;
        let mut expected = vec![Event::Online];
        for event in case["events"].as_array().into_iter().flatten() {
            match event["decoded"]["event"].as_str() {
                Some("VLOB") => {
                    let realm = hex_array(&event["decoded"]["realm_id"], "$uuid")?;
                    expected.push(Event::Vlobs(RealmId::from_bytes(realm)));
                }
                Some(name) if name.ends_with("_CERTIFICATE") => expected.push(Event::Certificates),
                _ => {}
            }
        }
        let records = case["records"].as_array().into_iter().flatten();
        expected.extend(records.filter(|record| record["event"] == "missed_events").map(|_| Event::Missed));
        ensure!(heard == expected, "{heard:?}");
        ensure!(canned.asked()[0].header("accept") == Some("text/event-stream"), "another header");
    }
    Ok(())
}

fn addresses(vectors: &Value) -> Result<()> {
    for case in list(vectors, "valid")? {
        let url = text(case, "url")?;
        if case["kind"] == "server" {
            let server = parsecfs_core::url::ServerAddr::parse(url)?;
            ensure!(server.http_url() == text(case, "http_base")?, "{url}");
            continue;
        }
        let address = Address::parse(url)?;
        ensure!(address.to_string() == url, "{url} is written otherwise");
        if let Some(redirection) = case["http_redirection"].as_str() {
            ensure!(address.http_redirection() == redirection, "{url}");
            ensure!(Address::parse(redirection)? == address, "{url}");
        }
    }
    for case in list(vectors, "accepted_variants")? {
        Address::parse(text(case, "url")?)?;
    }
    for case in list(vectors, "invalid_invitation")? {
        ensure!(Address::parse(text(case, "url")?).is_err(), "{}", case["why"]);
    }
    Ok(())
}
