"""TLS and logins as librdkafka takes them."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
import time
from typing import Any

from quixframes.errors import AuthenticationError
from quixframes.security import Hidden, Security
from quixframes.tls import context_of, pem_text
from quixframes.tokens import Tokens

__all__ = ["TokenSource", "security_settings"]

_TOKEN_LIFE = 300.0  # seconds after which a token is asked for anew that does not say how long it is valid


def security_settings(security: Security | None) -> dict[str, Any]:
    """librdkafka's settings for it.

    Raises:
        SettingsError: a file of it cannot be used.
        AuthenticationError: there is no token that is valid.
    """
    if security is None:
        return {}
    settings: dict[str, Any] = {"security.protocol": security.protocol}
    if security.encrypted:
        settings |= _tls(security)
    if security.mechanism is None:
        return settings
    settings["sasl.mechanism"] = security.mechanism
    if security.token is not None:
        settings["oauth_cb"] = TokenSource(security)
    elif security.password is not None:
        settings["sasl.username"] = security.user
        settings["sasl.password"] = Hidden(security.password.reveal())
    return settings


def _tls(security: Security) -> dict[str, Any]:
    context_of(security)  # says what is wrong with the files, which librdkafka does in its own words
    settings: dict[str, Any] = {
        "enable.ssl.certificate.verification": True,
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.cipher.suites": "TLSv1.2:!aNULL:!eNULL:!PSK",  # so TLS 1.2 is the least; those of 1.3 are not named here
    }
    if security.ca is not None:
        settings["ssl.ca.pem"] = pem_text(security.ca, "ca")
    else:  # librdkafka looks for the system's at places of its own, and not where SSL_CERT_FILE says
        places = ssl.get_default_verify_paths()
        if system := places.cafile or places.capath:
            settings["ssl.ca.location"] = system
    if security.certificate is not None:
        certificate = Hidden(pem_text(security.certificate, "certificate"))  # the key may be with it
        settings["ssl.certificate.pem"] = certificate
        settings["ssl.key.pem"] = certificate if security.key is None else Hidden(pem_text(security.key, "key"))
        if security.key_password is not None:
            settings["ssl.key.password"] = Hidden(security.key_password.reveal())
    return settings


class TokenSource:
    """What librdkafka calls for a token and the time of its end, before the last one ends."""

    failure: AuthenticationError | None = None
    """Why there was none the last time: librdkafka tells only that there was none, and goes on with the old one."""

    def __init__(self, security: Security) -> None:
        self._tokens = Tokens(security)
        # Fetched now: confluent-kafka would wait for 10 s for one that does not come, or is over, and not say why.
        self._first: str | None = self._tokens.new()
        if _end_of(self._first) <= time.time():
            raise AuthenticationError("no token could be had: the function given as token returned one that has ended")

    def __call__(self, config: str) -> tuple[str, float]:
        token, self._first = self._first, None
        try:
            token = token or self._tokens.new()
        except AuthenticationError as exc:
            self.failure = exc
            raise
        self.failure = None
        return token, _end_of(token)


def _end_of(token: str) -> float:
    """When a token says that it ends, in seconds since 1970. What is no JSON web token says nothing."""
    try:
        claims = token.split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return time.time() + _TOKEN_LIFE
    return float(end) if isinstance(end, int | float) else time.time() + _TOKEN_LIFE
