"""Tokens from an identity provider, by OAuth 2's client credentials; needs the extra ``oauth``."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

from quixframes.errors import SettingsError
from quixframes.security import Secret

__all__ = ["ClientCredentials"]

_TIMEOUT = 5.0  # seconds that the provider may take
_EARLY = 0.8  # of a token's life, after which a new one is fetched


class ClientCredentials:
    """A ``token`` for :meth:`quixframes.Security.oauth`: fetched from the provider, and kept while it is valid.

    Args:
        token_url: the provider's token endpoint, which has to be https.
        client_id, client_secret: what the provider knows this program by.
        scope: what is asked for, where the provider wants to be told.

    Raises:
        SettingsError: a package is missing, or the endpoint is not https, or has a password in it.

    >>> tokens = ClientCredentials("https://id.example.org/token", "pace-model", "secret")
    >>> tokens
    <ClientCredentials of 'pace-model' at https://id.example.org/token>
    """

    def __init__(
        self, token_url: str, client_id: str, client_secret: str | Secret, *, scope: str | None = None
    ) -> None:
        if "@" in token_url.partition("//")[2].partition("/")[0]:
            raise SettingsError("token_url has a user or password in it: give them as client_id and client_secret")
        if not token_url.startswith("https://"):
            raise SettingsError(f"token_url={token_url!r} has to begin with https://: a secret is sent there")
        try:
            self._session_type: Any = importlib.import_module("authlib.integrations.requests_client").OAuth2Session
        except ImportError as exc:
            raise SettingsError('client credentials need the package authlib: pip install "quixframes[oauth]"') from exc
        self._url = token_url
        self._client_id = client_id
        self._secret = Secret(client_secret)
        self._scope = scope
        self._lock = threading.Lock()
        self._token: Secret | None = None
        self._until = 0.0

    def __call__(self) -> str:
        """A token that is valid now. What the provider refuses is raised as authlib or requests has it."""
        with self._lock:
            if self._token is None or time.monotonic() >= self._until:
                start = time.monotonic()
                with self._session_type(self._client_id, self._secret.reveal(), scope=self._scope) as session:
                    found = session.fetch_token(self._url, grant_type="client_credentials", timeout=_TIMEOUT)
                self._token = Secret(found["access_token"])
                self._until = start + _EARLY * float(found.get("expires_in", 0))
            return self._token.reveal()

    def __repr__(self) -> str:
        return f"<ClientCredentials of {self._client_id!r} at {self._url}>"
