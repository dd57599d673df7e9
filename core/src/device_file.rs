//! Device files: who a device is in clear, its secrets sealed (formats.md 8.3). Raw msgpack: no frame.
//!
//! Every kind is read and written; that a key lies on a service or a smart card is told, not acted on. `keyfile` is our
//! own kind: the passphrase lies in a file beside the device file, for servers that nobody types a password at.
//! What stands in clear is not authenticated before the file is opened.

use std::fmt;

use parsecfs_crypto::{Argon2id, SecretKey, passphrase};
use rmpv::Value;

use crate::{
    document::{Fields, Writer, from_msgpack, malformed, take_type, to_msgpack, type_of},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, OpaqueKeyId, UserId},
    local_device::LocalDevice,
    name::{DeviceLabel, HumanHandle, OrganizationId},
    time::Timestamp,
    url::read_storage_address,
};

/// A device file.
#[derive(Clone, PartialEq)]
pub struct DeviceFile {
    /// When the device was saved first.
    pub created_on: Timestamp,
    /// When its protection was last changed.
    pub protected_on: Timestamp,
    /// Address of the storage.
    pub server_url: String,
    /// Which organization.
    pub organization_id: OrganizationId,
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub device_id: DeviceId,
    /// The person.
    pub human_handle: HumanHandle,
    /// What the person calls it.
    pub device_label: DeviceLabel,
    /// Where the key of `ciphertext` is.
    pub protection: FileProtection,
    /// The sealed [`LocalDevice`].
    pub ciphertext: Vec<u8>,
    /// When there is one, `ciphertext` is sealed twice, and the server gives the second key for a one-time code.
    pub totp_opaque_key_id: Option<OpaqueKeyId>,
}

/// Prints whose it is and how it is protected; not what a guesser of passwords needs.
impl fmt::Debug for DeviceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceFile({}, {})", self.device_id, self.protection.kind())
    }
}

/// Where the key of a device file is.
#[derive(Clone, PartialEq)]
pub enum FileProtection {
    /// In a head: derived from a password.
    Password(Argon2id),
    /// In the operating system's keyring, as a recovery passphrase.
    Keyring {
        /// Name of the service.
        service: String,
        /// Name of the user.
        user: String,
    },
    /// On paper: a recovery passphrase.
    Recovery,
    /// In a file beside this one, as a recovery passphrase.
    Keyfile,
    /// In the vault of an account on the server.
    AccountVault {
        /// Which key of the vault.
        ciphertext_key_id: OpaqueKeyId,
    },
    /// On an OpenBao server.
    OpenBao {
        /// How the person last signed in there.
        preferred_auth_id: String,
        /// The person there.
        entity_id: String,
        /// Where the key lies.
        ciphertext_key_path: String,
    },
    /// Beside the ciphertext, for the private key of a smart card (RSAES-OAEP-SHA256).
    SmartCard {
        /// Names the card's certificate.
        certificate: CertificateRef,
        /// The sealed key.
        encrypted_key: Vec<u8>,
    },
}

/// Its kind alone prints.
impl fmt::Debug for FileProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// Names an X.509 certificate; kept as it was read.
#[derive(Clone, PartialEq)]
pub struct CertificateRef(Value);

const TOTP: &str = "totp_opaque_key_id";
const SMART_CARD_ALGORITHM: &str = "RSAES-OAEP-SHA256";

macro_rules! names {
    ($($own:literal),*) => {
        &[
            "created_on",
            "protected_on",
            "server_url",
            "organization_id",
            "user_id",
            "device_id",
            "human_handle",
            "device_label",
            $($own),*
        ]
    };
}

/// The fields of a kind of file after `type`, in the order of the format.
fn names_of(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "password" => names!("algorithm", "ciphertext", "totp_opaque_key_id"),
        "keyring" => names!("keyring_service", "keyring_user", "ciphertext", "totp_opaque_key_id"),
        "recovery" | "keyfile" => names!("ciphertext"),
        "account_vault" => names!("ciphertext_key_id", "ciphertext", "totp_opaque_key_id"),
        "openbao" => names!(
            "openbao_preferred_auth_id",
            "openbao_entity_id",
            "openbao_ciphertext_key_path",
            "ciphertext",
            "totp_opaque_key_id"
        ),
        "pki" => names!("certificate_ref", "algorithm", "encrypted_key", "ciphertext", "totp_opaque_key_id"),
        _ => return None,
    })
}

impl DeviceFile {
    /// Reads a device file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let document = from_msgpack(bytes)?;
        let kind = type_of(&document).ok_or(malformed("not a device file"))?.to_owned();
        let names = names_of(&kind).ok_or(malformed("unknown kind of device file"))?;
        let mut fields = Fields::document(document, &kind, names)?;
        Ok(Self {
            created_on: fields.get("created_on")?,
            protected_on: fields.get("protected_on")?,
            server_url: fields.get_with("server_url", read_storage_address)?,
            organization_id: fields.get("organization_id")?,
            user_id: fields.get("user_id")?,
            device_id: fields.get("device_id")?,
            human_handle: fields.get("human_handle")?,
            device_label: fields.get("device_label")?,
            protection: FileProtection::read(&kind, &mut fields)?,
            ciphertext: fields.get("ciphertext")?,
            totp_opaque_key_id: if names.contains(&TOTP) { fields.get_if_there(TOTP)? } else { None },
        })
    }

    /// Writes a device file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = self.protection.kind();
        let common = Writer::document(kind)
            .field("created_on", &self.created_on)
            .field("protected_on", &self.protected_on)
            .field("server_url", &self.server_url)
            .field("organization_id", &self.organization_id)
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .field("human_handle", &self.human_handle)
            .field("device_label", &self.device_label);
        let document = self.protection.write(common).field("ciphertext", &self.ciphertext);
        let has_totp = names_of(kind).is_some_and(|names| names.contains(&TOTP));
        let document = if has_totp { document.field(TOTP, &self.totp_opaque_key_id) } else { document };
        to_msgpack(&document.finish())
    }

    /// A file of `device`, sealed with the key that `protection` leads to.
    #[must_use]
    pub fn seal(device: &LocalDevice, protection: FileProtection, key: &SecretKey, now: Timestamp) -> Self {
        Self {
            created_on: now,
            protected_on: now,
            server_url: device.server_url.clone(),
            organization_id: device.organization_id.clone(),
            user_id: device.user_id,
            device_id: device.device_id,
            human_handle: device.human_handle.clone(),
            device_label: device.device_label.clone(),
            protection,
            ciphertext: device.seal(key),
            totp_opaque_key_id: None,
        }
    }

    /// The key that follows from what a person types or a machine keeps: the password, or the passphrase of a keyring,
    /// a key file or a recovery file. `Algorithm` when the file asks for a derivation that is refused, `Decryption` when
    /// this is no whole passphrase, `Unsupported` when the key is somewhere that text does not lead to.
    pub fn key_from(&self, secret: &str) -> Result<SecretKey> {
        match &self.protection {
            FileProtection::Password(algorithm) => algorithm
                .derive(secret.as_bytes())
                .map_err(|_| Error::new(ErrorKind::Algorithm, "password derivation is refused")),
            FileProtection::Keyring { .. } | FileProtection::Recovery | FileProtection::Keyfile => {
                passphrase::read(secret).map_err(|_| Error::new(ErrorKind::Decryption, "not a whole passphrase"))
            }
            FileProtection::AccountVault { .. } | FileProtection::OpenBao { .. } | FileProtection::SmartCard { .. } => {
                Err(Error::new(ErrorKind::Unsupported, "the key of this device file is kept elsewhere"))
            }
        }
    }

    /// Opens the sealed part. `Decryption` when the key is another one, `Unsupported` when a one-time code is needed as
    /// well, `DeviceId` when it is not the device that the file names in clear.
    pub fn open(&self, key: &SecretKey) -> Result<LocalDevice> {
        if self.totp_opaque_key_id.is_some() {
            return Err(Error::new(ErrorKind::Unsupported, "device file needs a one-time code"));
        }
        let device = LocalDevice::open(&self.ciphertext, key)?;
        if device.device_id != self.device_id {
            return Err(Error::new(ErrorKind::DeviceId, "device file holds another device than it says"));
        }
        Ok(device)
    }
}

impl FileProtection {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Password(_) => "password",
            Self::Keyring { .. } => "keyring",
            Self::Recovery => "recovery",
            Self::Keyfile => "keyfile",
            Self::AccountVault { .. } => "account_vault",
            Self::OpenBao { .. } => "openbao",
            Self::SmartCard { .. } => "pki",
        }
    }

    fn read(kind: &str, fields: &mut Fields) -> Result<Self> {
        Ok(match kind {
            "password" => Self::Password(fields.get_with("algorithm", read_argon2id)?),
            "keyring" => Self::Keyring { service: fields.get("keyring_service")?, user: fields.get("keyring_user")? },
            "recovery" => Self::Recovery,
            "keyfile" => Self::Keyfile,
            "account_vault" => Self::AccountVault { ciphertext_key_id: fields.get("ciphertext_key_id")? },
            "openbao" => Self::OpenBao {
                preferred_auth_id: fields.get("openbao_preferred_auth_id")?,
                entity_id: fields.get("openbao_entity_id")?,
                ciphertext_key_path: fields.get("openbao_ciphertext_key_path")?,
            },
            "pki" => {
                if fields.get::<String>("algorithm")? != SMART_CARD_ALGORITHM {
                    return Err(malformed("unknown algorithm of a smart card"));
                }
                Self::SmartCard {
                    certificate: fields.get_with("certificate_ref", CertificateRef::read)?,
                    encrypted_key: fields.get("encrypted_key")?,
                }
            }
            _ => return Err(malformed("unknown kind of device file")),
        })
    }

    fn write(&self, document: Writer) -> Writer {
        match self {
            Self::Password(algorithm) => document.value("algorithm", write_argon2id(algorithm)),
            Self::Keyring { service, user } => document.field("keyring_service", service).field("keyring_user", user),
            Self::Recovery | Self::Keyfile => document,
            Self::AccountVault { ciphertext_key_id } => document.field("ciphertext_key_id", ciphertext_key_id),
            Self::OpenBao { preferred_auth_id, entity_id, ciphertext_key_path } => document
                .field("openbao_preferred_auth_id", preferred_auth_id)
                .field("openbao_entity_id", entity_id)
                .field("openbao_ciphertext_key_path", ciphertext_key_path),
            Self::SmartCard { certificate, encrypted_key } => document
                .value("certificate_ref", certificate.0.clone())
                .value("algorithm", SMART_CARD_ALGORITHM.into())
                .field("encrypted_key", encrypted_key),
        }
    }
}

impl CertificateRef {
    fn read(value: Value) -> Result<Self> {
        if let Value::Map(entries) = &value
            && entries.iter().any(|(name, value)| name.as_str() == Some("hash") && value.is_str())
        {
            return Ok(Self(value));
        }
        Err(malformed("not a reference to a certificate"))
    }
}

fn read_argon2id(value: Value) -> Result<Argon2id> {
    let (kind, fields) = match value {
        Value::Map(entries) => take_type(entries)?,
        Value::Array(mut values) if !values.is_empty() => (values.remove(0), Value::Array(values)),
        _ => return Err(malformed("not a password algorithm")),
    };
    if kind.as_str() != Some("ARGON2ID") {
        return Err(malformed("unknown password algorithm"));
    }
    let mut fields = Fields::structure(fields, &["memlimit_kb", "opslimit", "parallelism", "salt"])?;
    let refused_salt = Error::new(ErrorKind::Algorithm, "salt of another size");
    Ok(Argon2id {
        memlimit_kb: fields.get("memlimit_kb")?,
        opslimit: fields.get("opslimit")?,
        parallelism: fields.get("parallelism")?,
        salt: fields.get::<Vec<u8>>("salt")?.try_into().map_err(|_| refused_salt)?,
    })
}

fn write_argon2id(algorithm: &Argon2id) -> Value {
    Writer::document("ARGON2ID")
        .field("memlimit_kb", &algorithm.memlimit_kb)
        .field("opslimit", &algorithm.opslimit)
        .field("parallelism", &algorithm.parallelism)
        .field("salt", &algorithm.salt)
        .finish()
}

#[cfg(test)]
mod tests {
    use parsecfs_crypto::{PrivateKey, SigningKey};

    use super::*;
    use crate::{certificate::UserProfile, id::RealmId, name::Email};

    fn device() -> LocalDevice {
        LocalDevice {
            server_url: "file:///srv/store".to_owned(),
            organization_id: OrganizationId::new("Org").unwrap(),
            root_verify_key: SigningKey::generate().verify_key(),
            user_id: UserId::from_bytes([1; 16]),
            device_id: DeviceId::from_bytes([2; 16]),
            device_label: DeviceLabel::new("laptop").unwrap(),
            human_handle: HumanHandle::new(Email::new("alice@example.com").unwrap(), "Alice").unwrap(),
            signing_key: SigningKey::generate(),
            private_key: PrivateKey::generate(),
            initial_profile: UserProfile::Admin,
            user_realm_id: RealmId::from_bytes([3; 16]),
            user_realm_key: SecretKey::generate(),
            local_symkey: SecretKey::generate(),
            organization_key: Some(SecretKey::generate()),
        }
    }

    fn file(protection: FileProtection, key: &SecretKey) -> DeviceFile {
        DeviceFile::seal(&device(), protection, key, Timestamp::from_micros(5).unwrap())
    }

    fn cheap() -> Argon2id {
        Argon2id { memlimit_kb: 8, opslimit: 1, parallelism: 1, salt: [7; 16] }
    }

    fn kinds() -> Vec<FileProtection> {
        vec![
            FileProtection::Password(cheap()),
            FileProtection::Keyring { service: "s".to_owned(), user: "u".to_owned() },
            FileProtection::Recovery,
            FileProtection::Keyfile,
            FileProtection::AccountVault { ciphertext_key_id: OpaqueKeyId::from_bytes([4; 16]) },
            FileProtection::OpenBao {
                preferred_auth_id: "HEXAGONE".to_owned(),
                entity_id: "e".to_owned(),
                ciphertext_key_path: "p".to_owned(),
            },
            FileProtection::SmartCard {
                certificate: CertificateRef(Value::Map(vec![("hash".into(), "sha256-x".into())])),
                encrypted_key: vec![1],
            },
        ]
    }

    #[test]
    fn every_kind_is_read_as_it_was_written_and_opens_with_its_key() {
        let key = SecretKey::generate();
        for protection in kinds() {
            let file = file(protection, &key);
            assert_eq!(DeviceFile::from_bytes(&file.to_bytes()).as_ref(), Ok(&file));
            assert!(file.open(&key).is_ok());
            assert_eq!(file.open(&SecretKey::generate()).unwrap_err().kind(), ErrorKind::Decryption);
        }
    }

    #[test]
    fn what_helps_to_guess_a_password_does_not_print() {
        let file = file(FileProtection::Password(cheap()), &SecretKey::generate());
        let printed = format!("{file:?}");
        assert_eq!(printed, format!("DeviceFile({}, password)", file.device_id));
    }

    #[test]
    fn a_derivation_that_eats_the_machine_is_refused() {
        for greedy in [Argon2id { memlimit_kb: u32::MAX, ..cheap() }, Argon2id { opslimit: u32::MAX, ..cheap() }] {
            let file = file(FileProtection::Password(greedy), &SecretKey::generate());
            assert_eq!(file.key_from("x").unwrap_err().kind(), ErrorKind::Algorithm);
        }
    }

    #[test]
    fn a_device_comes_out_as_it_went_in() {
        let (key, device) = (SecretKey::generate(), device());
        let again = LocalDevice::open(&device.seal(&key), &key).unwrap();
        assert_eq!(again.server_url, device.server_url);
        assert_eq!(again.root_verify_key, device.root_verify_key);
        assert_eq!(again.signing_key, device.signing_key);
        assert_eq!(again.private_key, device.private_key);
        assert_eq!(again.user_realm_key, device.user_realm_key);
        assert_eq!(again.local_symkey, device.local_symkey);
        assert_eq!(again.organization_key, device.organization_key);
    }

    #[test]
    fn text_leads_to_the_key_where_people_or_keyrings_hold_it() {
        let key = SecretKey::generate();
        let text = passphrase::write(&key);
        for protection in kinds() {
            let file = file(protection, &key);
            let found = file.key_from(&text);
            match file.protection.kind() {
                "password" => assert_eq!(found, Ok(cheap().derive(text.as_bytes()).unwrap())),
                "keyring" | "recovery" | "keyfile" => {
                    assert_eq!(found, Ok(key.clone()));
                    assert_eq!(file.key_from(&text[1..]).unwrap_err().kind(), ErrorKind::Decryption);
                }
                _ => assert_eq!(found.unwrap_err().kind(), ErrorKind::Unsupported),
            }
        }
    }

    #[test]
    fn refused_derivations_are_told_apart_from_wrong_passwords() {
        for algorithm in [Argon2id { parallelism: 2, ..cheap() }, Argon2id { memlimit_kb: 7, ..cheap() }] {
            let file = file(FileProtection::Password(algorithm), &SecretKey::generate());
            assert_eq!(file.key_from("x").unwrap_err().kind(), ErrorKind::Algorithm);
        }
    }

    #[test]
    fn a_file_with_a_second_factor_is_read_but_does_not_open() {
        let key = SecretKey::generate();
        let mut file = file(FileProtection::Password(cheap()), &key);
        file.totp_opaque_key_id = Some(OpaqueKeyId::from_bytes([9; 16]));
        let file = DeviceFile::from_bytes(&file.to_bytes()).unwrap();
        assert!(file.totp_opaque_key_id.is_some());
        assert_eq!(file.open(&key).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn another_device_than_the_file_says_is_refused() {
        let key = SecretKey::generate();
        let file = DeviceFile { device_id: DeviceId::from_bytes([9; 16]), ..file(FileProtection::Recovery, &key) };
        assert_eq!(file.open(&key).unwrap_err().kind(), ErrorKind::DeviceId);
    }

    #[test]
    fn an_address_that_is_no_storage_is_refused_outside_and_inside() {
        let key = SecretKey::generate();
        for url in ["parsec3://example.com", "https://example.com/path", ""] {
            let inside = LocalDevice { server_url: url.to_owned(), ..device() };
            assert_eq!(LocalDevice::open(&inside.seal(&key), &key).unwrap_err().kind(), ErrorKind::Deserialization);
            let outside = DeviceFile { server_url: url.to_owned(), ..file(FileProtection::Recovery, &key) };
            assert_eq!(DeviceFile::from_bytes(&outside.to_bytes()).unwrap_err().kind(), ErrorKind::Deserialization);
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = file(FileProtection::Password(cheap()), &SecretKey::generate()).to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(DeviceFile::from_bytes(&bytes[..len]).unwrap_err().kind(), ErrorKind::Deserialization);
        }
    }

    #[test]
    fn neither_secrets_nor_the_person_print() {
        let key = SecretKey::generate();
        let printed = format!("{:?} {:?}", device(), file(FileProtection::Recovery, &key));
        assert!(!printed.contains("Alice") && !printed.contains("alice") && !printed.contains("laptop"));
    }
}
