"""Who sends a review request, as the review routes see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Depends, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from app.accounts import user_of
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

    def read(user_id: int) -> Reviewer:
        with workspace.read() as session:
            user = session.get_one(User, user_id)
        return Reviewer(user.id, user.name, role_of(user))

    async def reviewer(request: Request, user_id: int = Depends(current_user)) -> Reviewer:
        # The gate has just read who it is: asking again would cost every verdict a thread and a query.
        found = user_of(request)
        if found is not None and found.id == user_id:
            return Reviewer(found.id, found.name, found.role)
        return await run_in_threadpool(read, user_id)

    return reviewer
