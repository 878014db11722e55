"""The kaggle package's client, made to fail loudly.

As it comes, the package signs in as soon as it is imported (over the network, where a token is set), leaves a file that
could not be uploaded out of the dataset and reports success, tries an expired upload again for a week, and ends the
process when there is no token. Its requests, resumable uploads and checks are used here, and none of that.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import logging
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from exports.publishing.plan import PublishError

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

SETTINGS = "https://www.kaggle.com/settings"


class NoToken(PublishError):
    """There is no token, or it is not accepted. No message ever holds it."""


class ServiceFailed(PublishError):
    """The service refused, failed or could not be reached; what it has received is kept, and the next run goes on."""


def connect(tell: Callable[[str], None]) -> KaggleApi:
    """A client signed in with the user's own token; ``tell`` gets the name of each file before it is sent.

    Raises :class:`NoToken` and :class:`ServiceFailed`.
    """
    api = _strict_api()(tell)
    with service_errors("signing in"):
        try:
            # The package prints its own help on a missing token, then exits.
            with contextlib.redirect_stdout(io.StringIO()):
                api.authenticate()
        except SystemExit:
            if importlib.import_module("kagglesdk.kaggle_env").get_access_token_from_env()[0]:
                raise _wrong_token() from None
            raise NoToken(
                f"There is no Kaggle token. Make one at {SETTINGS} and set it as KAGGLE_API_TOKEN, or keep it in "
                "~/.kaggle/access_token (KAGGLE_USERNAME with KAGGLE_KEY, or kaggle.json, do too)."
            ) from None
    return api


@contextlib.contextmanager
def service_errors(what: str) -> Iterator[None]:
    """Turn what requests raises into sentences that name ``what`` was tried and never a token or a signed address."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise _wrong_token() from None
        if status == 403:
            raise ServiceFailed(
                f"Kaggle refuses {what} (403): the token's user may not do that there, or the owner's name is wrong. "
                "The owner stands in dataset-metadata.json; export again with --owner to change it."
            ) from None
        raise ServiceFailed(f"Kaggle answered {status} to {what}. Run the same command again; it goes on.") from None
    except (requests.RequestException, ConnectionError) as error:
        raise ServiceFailed(
            f"Kaggle cannot be reached for {what} ({type(error).__name__}). Run the same command again; it goes on."
        ) from None


def _wrong_token() -> NoToken:
    return NoToken(
        f"Kaggle does not accept the token: it may have expired or been revoked. Make another at {SETTINGS}."
    )


@contextlib.contextmanager
def _no_addresses() -> Iterator[None]:
    """Keep back what the package prints, and urllib3 logs, of a broken connection: the upload's signed address."""
    log = logging.getLogger("urllib3.connectionpool")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


def package() -> ModuleType:
    """``kaggle.api.kaggle_api_extended``, imported without running the package's ``__init__``, which would sign in."""
    if "kaggle" not in sys.modules:
        spec = importlib.util.find_spec("kaggle")
        if spec is None:
            raise PublishError("The package kaggle is not installed; run `uv sync`.")
        bare = importlib.util.module_from_spec(spec)
        bare.__version__ = importlib.metadata.version("kaggle")
        sys.modules["kaggle"] = bare
    return importlib.import_module("kaggle.api.kaggle_api_extended")


@cache
def _strict_api() -> type[KaggleApi]:
    """The subclass; made here because its base can only be imported when something is to be sent."""
    extended = package()
    sdk = importlib.import_module("kagglesdk")
    get_env = importlib.import_module("kagglesdk.kaggle_env").get_env
    incomplete = extended.ResumableUploadResult.INCOMPLETE

    class StrictKaggleApi(extended.KaggleApi):
        def __init__(self, tell: Callable[[str], None]) -> None:
            super().__init__()
            self._tell = tell
            self._last_result: int | None = None

        def build_kaggle_client(self):
            # The package's own way knows production alone, whatever KAGGLE_API_ENVIRONMENT says.
            return sdk.KaggleClient(
                env=get_env(),
                username=self.config_values.get(self.CONFIG_NAME_USER),
                password=self.config_values.get(self.CONFIG_NAME_KEY),
                api_token=self.config_values.get(self.CONFIG_NAME_TOKEN),
            )

        def upload_complete(self, path, url, quiet, resume=False):
            # Its bar of bytes goes to stderr.
            with _no_addresses():
                self._last_result = super().upload_complete(path, url, not sys.stderr.isatty(), resume)
            return self._last_result

        def _upload_blob(self, path, quiet, blob_type, upload_context, content_type=None):
            name = Path(path).name
            self._tell(name)
            for _ in range(2):
                with service_errors(f"the upload of {name}"):
                    token = super()._upload_blob(path, quiet, blob_type, upload_context, content_type)
                if token is not None:
                    return token
                if self._last_result == incomplete:
                    raise ServiceFailed(
                        f"{name} was cut off again and again. What arrived is kept; run the same command again, and it "
                        "goes on there."
                    )
                # Expired or refused: what is remembered of it would be tried for a week.
                upload_context._file_uploads[-1].cleanup()
            raise ServiceFailed(
                f"Kaggle refused {name} twice, so no dataset was made of the rest. The files before it are kept for a "
                "while; run the same command again."
            )

    return StrictKaggleApi
