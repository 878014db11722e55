"""Who may do what: accounts with passwords and roles, signed-in browsers, and the local user of a server without them.

``user_of``, ``current_user`` and ``require`` are what routes and pages ask; app/gate.py answers before them.
"""

from app.accounts.access import CurrentUser, current_user, current_user_id, require, signed_in_user_id, user_of

__all__ = ["CurrentUser", "current_user", "current_user_id", "require", "signed_in_user_id", "user_of"]
