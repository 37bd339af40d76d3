"""Signatures of a bundle, by OpenSSF model-signing with an elliptic-curve key.

The signature covers the name and sha256 of every file of the folder except itself. Keys are PEM files, made by
`make_key` or by openssl (``openssl ecparam -name prime256v1 -genkey``). Knows nothing of what is signed.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing, verifying

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError

SIGNATURE = "release.sig"
"""File of the signature in a bundle."""
PUBLIC_KEY = "release.pub"
"""File of the public key in a bundle."""
_PEM = serialization.Encoding.PEM


def make_key(private: Path) -> Path:
    """Writes a new key pair: `private`, readable by its owner alone, and beside it the public key (``.pub``).

    Raises:
        FoundryError: One of the files exists; a key is never overwritten.
    """
    public = private.with_suffix(".pub")
    for path in (private, public):
        if path.exists():
            raise FoundryError(f"{path} exists; a key is never overwritten.", hint="Give another file.")
    key = ec.generate_private_key(ec.SECP256R1())
    private.parent.mkdir(parents=True, exist_ok=True)
    secret = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # Private from its first byte on; O_EXCL follows no link.
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
    public.write_bytes(_public_pem(key.public_key()))
    return public


def public_half(private: Path) -> bytes:
    """Returns the public key, as PEM, of a private key.

    Raises:
        FoundryError: The file is missing or no private elliptic-curve key.
    """
    try:
        key = serialization.load_pem_private_key(private.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FoundryError(
            f"{private} is no private key: {error}", hint="Make one: `gme release key FILE`, or by openssl."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FoundryError(f"{private}: expected an elliptic-curve key.", hint="Make one: `gme release key FILE`.")
    return _public_pem(key.public_key())


def fingerprint(public: Path) -> str:
    """Returns the sha256 of a public key file, for people to compare."""
    return sha256_bytes(public.read_bytes())


def sign(folder: Path, private: Path) -> None:
    """Writes the public key and the signature of all files into `folder`."""
    (folder / PUBLIC_KEY).write_bytes(public_half(private))
    config = signing.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_signer(private_key=private)
    config.set_hashing_config(_hash_all_files()).sign(folder, folder / SIGNATURE)


def signature_problems(folder: Path, public: Path | None) -> list[str]:
    """Returns why the signature is invalid; empty if it is valid.

    Args:
        folder: The bundle.
        public: The public key of the expected signer. Without it the bundle's own key is used, which proves that
            nothing was changed since somebody signed, but not who did.
    """
    key = public or folder / PUBLIC_KEY
    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_hash_all_files()).verify(folder, folder / SIGNATURE)
    except Exception as error:  # the library raises whatever its parsers raise, and then the signature proves nothing
        return [f"{SIGNATURE}: {type(error).__name__}: {error}"]
    return []


def _hash_all_files() -> hashing.Config:
    """Returns the setting to hash all files but the signature; the library's default leaves out names that git uses."""
    config = hashing.Config()  # type: ignore[no-untyped-call]
    return config.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
