"""Name and password against the accounts, slowly for those who guess."""

from __future__ import annotations

import secrets
import threading
import time
import unicodedata
from collections.abc import Callable
from functools import cached_property

from sqlalchemy import select

from app.accounts.passwords import hash_password, is_outdated, verify_password
from app.accounts.throttle import Throttle, address_key
from db.models import User
from db.workspace import Workspace

FREE_TRIES_BY_NAME = 3
FREE_TRIES_BY_ADDRESS = 10
# Short for a name, or a stranger could keep its owner out; long for an address.
LONGEST_WAIT_BY_NAME = 60.0
LONGEST_WAIT_BY_ADDRESS = 300.0
CHECKED_AT_ONCE = 2  # each takes 64 MiB and a core


class SignInRefused(ValueError):
    """Signing in was refused; the message does not say whether the name or the password was wrong."""


class TooManyTries(SignInRefused):
    """Nothing was looked at: try again after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, round(seconds + 0.5))
        unit = "second" if self.seconds == 1 else "seconds"
        super().__init__(f"Too many tries. Wait {self.seconds} {unit}, then try again.")


class SignIn:
    """Checks passwords for one workspace. ``clock`` gives seconds."""

    def __init__(self, workspace: Workspace, clock: Callable[[], float] = time.monotonic) -> None:
        self._workspace = workspace
        self._by_name = Throttle(FREE_TRIES_BY_NAME, LONGEST_WAIT_BY_NAME, clock)
        self._by_address = Throttle(FREE_TRIES_BY_ADDRESS, LONGEST_WAIT_BY_ADDRESS, clock)
        self._slots = threading.BoundedSemaphore(CHECKED_AT_ONCE)

    def check(self, name: str, password: str, address: str) -> User:
        """The account that name and password belong to. Takes about a tenth of a second.

        Raises :class:`SignInRefused` and :class:`TooManyTries`.
        """
        name = unicodedata.normalize("NFKC", name).strip()
        name_key, place = name.casefold(), address_key(address)
        wait = self._by_address.begin(place)
        if wait == 0 and (wait := self._by_name.begin(name_key)) > 0:
            self._by_address.take_back(place)
        if wait > 0:
            raise TooManyTries(wait)
        with self._slots:
            user = self._verified(name, password)
        if user is None:
            raise SignInRefused("That name and password do not belong together. Check both and try again.")
        self._by_name.clear(name_key)
        self._by_address.take_back(place)
        return user

    def _verified(self, name: str, password: str) -> User | None:
        dummy = self._dummy
        with self._workspace.read() as session:
            user = session.scalar(select(User).where(User.name == name))
        stored = user.password_hash if user is not None and user.password_hash else dummy
        # An unknown name costs as much as a known one, so that the time does not tell which names exist.
        right = verify_password(stored, password)
        if not right or stored is dummy or not user.active:
            return None
        if is_outdated(stored):
            self._rehash(user.id, stored, password)
        return user

    def _rehash(self, user_id: int, stored: str, password: str) -> None:
        hashed = hash_password(password)
        with self._workspace.write() as session:
            user = session.get(User, user_id)
            if user.password_hash == stored:
                user.password_hash = hashed

    @cached_property
    def _dummy(self) -> str:
        return hash_password(secrets.token_urlsafe(16))
