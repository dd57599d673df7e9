"""Opens documents with the published server package and writes each anew with it.

Reads one JSON document from standard input and writes one to standard output. All bytes are in hex.
  in:  {"signing_key", "author", "documents": [{"kind", "bytes", "key", "timestamp" (microseconds)}]}
  out: [bytes]
A document that the package does not take ends this program with its reason.
"""

import json
import sys

from parsec import _parsec as package

given = json.load(sys.stdin)
signing_key = package.SigningKey(bytes.fromhex(given["signing_key"]))
author = package.DeviceID.from_hex(given["author"])

# What each kind is made of, in the words of the package.
CERTIFICATES = {
    "UserCertificate": "author timestamp user_id human_handle public_key algorithm profile",
    "DeviceCertificate": "author timestamp purpose user_id device_id device_label verify_key algorithm",
    "UserUpdateCertificate": "author timestamp user_id new_profile",
    "RevokedUserCertificate": "author timestamp user_id",
    "RealmRoleCertificate": "author timestamp realm_id user_id role",
    "RealmNameCertificate": "author timestamp realm_id key_index encrypted_name",
    "RealmKeyRotationCertificate": "author timestamp realm_id key_index encryption_algorithm hash_algorithm key_canary",
    "RealmArchivingCertificate": "author timestamp realm_id configuration",
    "ShamirRecoveryBriefCertificate": "author timestamp user_id threshold per_recipient_shares",
    "ShamirRecoveryShareCertificate": "author timestamp user_id recipient ciphered_share",
    "ShamirRecoveryDeletionCertificate":
        "author timestamp setup_to_delete_timestamp setup_to_delete_user_id share_recipients",
}


def certificate(kind, fields, document):
    read = getattr(package, kind).verify_and_load(document, signing_key.verify_key, author)
    values = {field: getattr(read, field) for field in fields.split()}
    if getattr(read, "is_redacted", False):
        # The package shows a stand-in for what is withheld.
        values |= {field: None for field in ("human_handle", "device_label") if field in values}
    return type(read)(**values).dump_and_sign(signing_key)


def manifest(document, secret_key, timestamp):
    """As a client that changes the entry: it keeps what it knows and drops the rest."""
    load = package.child_manifest_decrypt_verify_and_load
    read = load(document, secret_key, signing_key.verify_key, author, timestamp)
    changed = read.evolve(version=read.version + 1, timestamp=timestamp.add(seconds=1), updated=timestamp.add(seconds=1))
    return changed.dump_sign_and_encrypt(signing_key, secret_key)


def user_manifest(document, secret_key, timestamp):
    load = package.UserManifest.decrypt_verify_and_load
    read = load(document, secret_key, signing_key.verify_key, author, timestamp)
    changed = read.evolve(version=read.version + 1, timestamp=timestamp.add(seconds=1))
    return changed.dump_sign_and_encrypt(signing_key, secret_key)


def rewrite(kind, document, key, timestamp):
    if kind in CERTIFICATES:
        return certificate(kind, CERTIFICATES[kind], document)
    secret_key = package.SecretKey(key)
    timestamp = package.DateTime.from_timestamp_micros(timestamp)
    match kind:
        case "Manifest":
            return manifest(document, secret_key, timestamp)
        case "UserManifest":
            return user_manifest(document, secret_key, timestamp)
        case "Sealed":
            return secret_key.encrypt(secret_key.decrypt(document))
        case "SealedForUser":
            private_key = package.PrivateKey(key)
            return private_key.public_key.encrypt_for_self(private_key.decrypt_from_self(document))
        case "ShareData":
            # The package has no type for the document inside: its frame goes back as it is.
            private_key = package.PrivateKey(key)
            frame = signing_key.verify_key.verify(private_key.decrypt_from_self(document))
            return private_key.public_key.encrypt_for_self(signing_key.sign(frame))
        case "Passphrase":
            # With the key that the passphrase stands for.
            return package.SecretKey.from_recovery_passphrase(document.decode()).encrypt(document)
    raise ValueError(f"unknown kind {kind}")


def each(document):
    key, timestamp = bytes.fromhex(document["key"]), document["timestamp"]
    return rewrite(document["kind"], bytes.fromhex(document["bytes"]), key, timestamp).hex()


json.dump([each(document) for document in given["documents"]], sys.stdout)
