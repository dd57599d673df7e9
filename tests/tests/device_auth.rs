//! What protects a device's keys, and changing it: each way opens the device and no other does, a crash in between leaves
//! one that works, and a machine that cannot do it says so before anything is made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use parsecfs_core::local_device::LocalDevice;
use parsecfs_tests::{
    cli::CliHome,
    parsec_server::{ADMINISTRATION_TOKEN, ParsecServer},
    world::World,
};
use parsecfs_vfs::{
    clock::SystemClock,
    error::{ErrorKind, Result},
    organization::{DeviceStore, Keyring, Unlock},
};
use tempfile::TempDir;

#[derive(Default)]
struct MapKeyring(Mutex<HashMap<(String, String), String>>);

impl Keyring for MapKeyring {
    fn get(&self, service: &str, user: &str) -> Result<Option<String>> {
        Ok(self.0.lock().unwrap().get(&(service.to_owned(), user.to_owned())).cloned())
    }

    fn set(&self, service: &str, user: &str, secret: &str) -> Result<()> {
        self.0.lock().unwrap().insert((service.to_owned(), user.to_owned()), secret.to_owned());
        Ok(())
    }

    fn remove(&self, service: &str, user: &str) -> Result<()> {
        self.0.lock().unwrap().remove(&(service.to_owned(), user.to_owned()));
        Ok(())
    }
}

/// A device and a place for its file.
struct Desk {
    device: LocalDevice,
    dir: TempDir,
    keyring: MapKeyring,
}

impl Desk {
    async fn new() -> Self {
        let device = World::found().await.unwrap().1.organization.device().clone();
        Self { device, dir: tempfile::tempdir().unwrap(), keyring: MapKeyring::default() }
    }

    fn store(&self) -> DeviceStore {
        DeviceStore::open(self.dir.path().to_owned())
    }

    fn ways(&self) -> [Unlock<'_>; 3] {
        [Unlock::Password("secret"), Unlock::Keyfile, Unlock::Keyring(&self.keyring)]
    }

    fn save(&self, way: &Unlock<'_>) -> PathBuf {
        self.store().save(&self.device, way, &SystemClock).unwrap()
    }

    fn load(&self, way: &Unlock<'_>) -> Result<LocalDevice> {
        self.store().load(self.device.device_id, way)
    }

    fn opens(&self, way: &Unlock<'_>) -> bool {
        self.load(way).is_ok_and(|opened| opened.signing_key.expose() == self.device.signing_key.expose())
    }

    fn keyfile(&self) -> PathBuf {
        self.dir.path().join(format!("{}.keyfile", self.device.device_id))
    }
}

#[tokio::test]
async fn device_files_open_with_what_protects_them_and_nothing_else() {
    let desk = Desk::new().await;
    assert!(desk.store().list().unwrap().devices.is_empty());
    for (index, way) in desk.ways().iter().enumerate() {
        let path = desk.save(way);
        assert_eq!(desk.ways().iter().map(|way| desk.opens(way)).collect::<Vec<_>>(), [0, 1, 2].map(|at| at == index));
        assert!(desk.load(way).unwrap().organization_key == desk.device.organization_key);
        assert_eq!(desk.load(&Unlock::Password("wrong")).err().unwrap().kind(), ErrorKind::Locked);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(desk.keyfile().exists(), index == 1, "a key file goes with what it opens");
    }
    let path = desk.save(&Unlock::Keyfile);
    fs::write(desk.dir.path().join("broken.keys"), b"rubbish").unwrap();
    let list = desk.store().list().unwrap();
    assert_eq!((list.devices.len(), list.unreadable.len()), (1, 1));
    assert_eq!(list.devices[0].device_id, desk.device.device_id);
    fs::write(path, b"torn").unwrap();
    assert_eq!(desk.load(&Unlock::Keyfile).err().unwrap().kind(), ErrorKind::Corrupt);
    assert_eq!(desk.store().list().unwrap().unreadable.len(), 2);
}

/// A switch writes the new key, then the device file, then takes the old key away. After each step one way works, and the
/// switch can be done again.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_switch_leaves_one_way_in() {
    for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
        let desk = Desk::new().await;
        let (before, after) = (&desk.ways()[from], &desk.ways()[to]);
        let file = desk.save(before);
        let read = |path: &Path| fs::read(path).ok();
        let (old_file, old_keyfile) = (read(&file).unwrap(), read(&desk.keyfile()));
        desk.save(after);
        let (new_file, new_keyfile) = (read(&file).unwrap(), read(&desk.keyfile()));
        let put = |bytes: &Option<Vec<u8>>| {
            if let Some(bytes) = bytes {
                fs::write(desk.keyfile(), bytes).unwrap();
                fs::set_permissions(desk.keyfile(), fs::Permissions::from_mode(0o600)).unwrap();
            }
        };
        fs::write(&file, &old_file).unwrap();
        put(&old_keyfile);
        put(&new_keyfile);
        assert!(desk.opens(before), "{from} to {to}: the new key is there, the device file is not");
        fs::write(&file, &new_file).unwrap();
        put(&old_keyfile);
        put(&new_keyfile);
        assert!(desk.opens(after), "{from} to {to}: the old key is still there");
        desk.save(after);
        assert!(desk.opens(after) && desk.keyfile().exists() == (to == 1), "{from} to {to}");
    }
}

#[tokio::test]
async fn a_key_file_that_others_may_read_is_refused_until_they_may_not() {
    let desk = Desk::new().await;
    desk.save(&Unlock::Keyfile);
    for mode in [0o644, 0o640, 0o606] {
        fs::set_permissions(desk.keyfile(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(desk.load(&Unlock::Keyfile).err().unwrap().kind(), ErrorKind::NotPermitted, "{mode:o}");
    }
    fs::set_permissions(desk.keyfile(), fs::Permissions::from_mode(0o400)).unwrap();
    assert!(desk.opens(&Unlock::Keyfile));
}

#[tokio::test]
async fn a_key_leaves_the_keyring_once_it_protects_nothing() {
    let desk = Desk::new().await;
    let id = desk.device.device_id;
    desk.save(&Unlock::Keyring(&desk.keyring));
    assert_eq!(desk.store().forget_key(id, &desk.keyring).unwrap_err().kind(), ErrorKind::Busy);
    assert!(desk.opens(&Unlock::Keyring(&desk.keyring)));
    desk.save(&Unlock::Keyfile);
    desk.store().forget_key(id, &desk.keyring).unwrap();
    assert!(desk.keyring.0.lock().unwrap().is_empty());
}

#[test]
fn methods_are_switched_on_the_command_line_and_a_wrong_password_changes_nothing() {
    let home = CliHome::new();
    let file = |name: &str, content: &str| {
        fs::write(home.path(name), content).unwrap();
        home.path(name).to_str().unwrap().to_owned()
    };
    let (one, two, empty) = (file("one", "first\n"), file("two", "second\n"), file("empty", "\n"));
    let create = ["org", "create", "Org", "--backend", &home.storage(), "--email", "a@example.com", "--name", "A"];
    home.ok(&[&create[..], &["--password-file", &one]].concat());
    let locked = |arguments: &[&str]| {
        home.kill_agent();
        assert_eq!(home.fails(11, arguments)["kind"], "locked", "{arguments:?}");
    };
    home.kill_agent();
    let change = ["device", "auth", "password", "--new-password-file"];
    locked(&[&change[..], &[&two, "--password-file", &two]].concat());
    assert_eq!(home.fails(2, &[&change[..], &[&empty, "--password-file", &one]].concat())["kind"], "usage");
    home.ok(&["workspace", "list", "--password-file", &one]);
    home.ok(&[&change[..], &[&two, "--password-file", &one]].concat());
    locked(&["workspace", "list", "--password-file", &one]);
    home.ok(&["device", "auth", "keyfile", "--password-file", &two]);
    home.kill_agent();
    home.ok(&["workspace", "list"]);
    let devices = home.home().join("config/devices");
    let mut files = fs::read_dir(devices).unwrap().map(|entry| entry.unwrap().path());
    let keyfile = files.find(|path| path.extension().is_some_and(|end| end == "keyfile")).unwrap();
    fs::set_permissions(&keyfile, fs::Permissions::from_mode(0o644)).unwrap();
    home.kill_agent();
    let error = home.fails(11, &["workspace", "list"]);
    assert!(error["hint"].as_str().unwrap().contains(&format!("chmod 600 {}", keyfile.display())), "{error}");
    fs::set_permissions(&keyfile, fs::Permissions::from_mode(0o600)).unwrap();
    home.ok(&[&change[..], &[&one]].concat());
    assert!(!keyfile.exists());
    locked(&["workspace", "list"]);
    home.ok(&["workspace", "list", "--password-file", &one]);
}

/// Tests run without a keyring service.
#[test]
fn a_machine_without_a_keyring_makes_nothing_that_would_be_of_no_use() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let file = home.path("me.psrk");
    let exported = home.ok(&["device", "recovery", "export", file.to_str().unwrap()]);
    let passphrase = home.path("passphrase");
    fs::write(&passphrase, exported["passphrase"].as_str().unwrap()).unwrap();
    let made = || {
        let audit = home.ok(&["audit"]);
        let events = audit["events"].as_array().unwrap().iter();
        events.filter(|event| event["event"] == "device_created").count()
    };
    let (before, second) = (made(), CliHome::new());
    let import = ["device", "recovery", "import", file.to_str().unwrap(), "--passphrase-file"];
    let import = [&import[..], &[passphrase.to_str().unwrap(), "--auth"]].concat();
    let error = second.fails(11, &[&import[..], &["keyring"]].concat());
    assert!(error["message"].as_str().unwrap().contains("keyring"), "{error}");
    assert_eq!(made(), before);
    second.ok(&[&import[..], &["keyfile"]].concat());
    assert_eq!(made(), before + 1);
}

#[test]
fn on_a_server_too_an_organization_is_made_only_with_a_device_that_can_be_saved() {
    let Some(server) = ParsecServer::start() else { return };
    let home = CliHome::new();
    let token = home.path("token");
    fs::write(&token, ADMINISTRATION_TOKEN).unwrap();
    let backend = format!("parsec3://127.0.0.1:{}?no_ssl=true", server.port());
    let create = ["org", "create", "Org", "--backend", &backend, "--admin-token-file", token.to_str().unwrap()];
    let create = [&create[..], &["--email", "a@example.com", "--name", "A", "--auth"]].concat();
    assert_eq!(home.fails(11, &[&create[..], &["keyring"]].concat())["kind"], "locked");
    assert_eq!(home.ok(&["device", "list"]), serde_json::json!([]));
    home.ok(&[&create[..], &["keyfile"]].concat());
    assert_eq!(home.ok(&["device", "list"])[0]["auth"], "keyfile");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let link = runtime.block_on(server.create_organization("Other")).to_string();
    let (second, password) = (CliHome::new(), home.path("password"));
    fs::write(&password, "secret\n").unwrap();
    let bootstrap = ["org", "bootstrap", &link, "--email", "b@example.com", "--name", "B"];
    assert_eq!(second.fails(11, &[&bootstrap[..], &["--auth", "keyring"]].concat())["kind"], "locked");
    second.ok(&[&bootstrap[..], &["--auth", "password", "--password-file", password.to_str().unwrap()]].concat());
    assert_eq!(second.ok(&["device", "list"])[0]["auth"], "password");
    second.kill_agent();
    second.fails(11, &["workspace", "list"]);
    second.ok(&["workspace", "list", "--password-file", password.to_str().unwrap()]);
}
