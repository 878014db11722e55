"""Who sends a review request, as the review routes see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Depends, HTTPException

from db.models import Role, User
from db.workspace import Workspace
from review.roles import NotAllowed, require, role_of


@dataclass(frozen=True)
class Reviewer:
    """The user of a request and what they may do."""

    id: int
    name: str
    role: Role

    @property
    def sees_others(self) -> bool:
        """Whether they may see what others have said: annotators judge blind."""
        return self.role is not Role.ANNOTATOR

    def check(self, needed: Role, what: str) -> None:
        """Answers 403 unless the role suffices; ``what`` is the subject of the sentence."""
        try:
            require(self.role, needed, what)
        except NotAllowed as error:
            raise HTTPException(403, str(error)) from error


def reviewer_dependency(workspace: Workspace, current_user: Callable[..., int]) -> Callable[..., Reviewer]:
    """A FastAPI dependency from ``current_user``, one that gives the user's id."""

    def reviewer(user_id: int = Depends(current_user)) -> Reviewer:
        with workspace.read() as session:
            user = session.get_one(User, user_id)
        return Reviewer(user.id, user.name, role_of(user))

    return reviewer
