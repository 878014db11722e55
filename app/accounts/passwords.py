"""Passwords: argon2id with argon2-cffi's parameters, and what a password must be."""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH = 10
MAX_LENGTH = 256

_hasher = PasswordHasher()


class PasswordRefused(ValueError):
    """A password that may not be set; the message says what to choose instead."""


def hash_new_password(password: str) -> str:
    """The hash to store for a password that somebody chose. Raises :class:`PasswordRefused`."""
    length = len(_normal(password))
    if length < MIN_LENGTH:
        raise PasswordRefused(f"The password has {length} characters; choose one with at least {MIN_LENGTH}.")
    if length > MAX_LENGTH:
        raise PasswordRefused(f"The password has more than {MAX_LENGTH} characters; choose a shorter one.")
    return hash_password(password)


def hash_password(password: str) -> str:
    """The argon2id hash of any password. Takes about a tenth of a second and 64 MiB."""
    return _hasher.hash(_normal(password))


def verify_password(stored: str, password: str) -> bool:
    """Whether the password belongs to the stored hash; takes equally long either way."""
    try:
        return _hasher.verify(stored, _normal(password))
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(stored: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def _normal(password: str) -> str:
    # One letter may be typed as one code point or as two, depending on the keyboard.
    return unicodedata.normalize("NFKC", password)
