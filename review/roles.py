"""What a user may do in review. The local user of a server without accounts may do everything."""

from __future__ import annotations

from db.models import Role, User
from db.queries import LOCAL_USER

_ORDER = (Role.ANNOTATOR, Role.ADJUDICATOR, Role.ADMIN)


class NotAllowed(PermissionError):
    """The user's role does not allow it; the message names the role that does."""


def role_of(user: User) -> Role:
    """The user's role; admin for the local user, whom nobody can sign in as."""
    return Role.ADMIN if user.name == LOCAL_USER and not user.password_hash else user.role


def may(role: Role, needed: Role) -> bool:
    """Whether ``role`` is the one needed or one above it."""
    return _ORDER.index(role) >= _ORDER.index(needed)


def require(role: Role, needed: Role, what: str) -> None:
    """Raises :class:`NotAllowed` unless ``role`` suffices. ``what`` is the subject of the sentence it then says."""
    if not may(role, needed):
        raise NotAllowed(f"{what} is for the role {needed.value}; yours is {role.value}. Ask an admin.")
