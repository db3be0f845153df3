"""Where a cluster is and how to log in, from the environment or from a file, so that programs hold no passwords.

- Both have the same settings under the same names: ``user`` in a file is ``QUIXFRAMES_USER`` in the environment.
- A file that has a password or a private key in it and that others may read is refused.
- Errors name the setting and where it is, never its value.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from quixframes.errors import SettingsError
from quixframes.oauth import ClientCredentials
from quixframes.security import MECHANISMS, Mechanism, Secret, Security

__all__ = ["Profile", "config_path", "environment_profile", "named_profile"]

_SECRET = ("password", "key_password", "client_secret")
_FILES = ("ca", "certificate", "key")
_FLAGS = ("tls", "allow_plaintext")
_TEXTS = ("broker", "user", "mechanism", "token_url", "client_id", "scope", *_FILES)
_KNOWN = (*_TEXTS, *_FLAGS, *(name + end for name in _SECRET for end in ("", "_env", "_file")))
_SECURING = frozenset(_KNOWN) - {"broker", "allow_plaintext"}


@dataclass(frozen=True, slots=True)
class Profile:
    """A cluster's address, None where none is given; and how to connect there, None for neither TLS nor login."""

    broker: str | None
    security: Security | None


def environment_profile(environ: Mapping[str, str]) -> Profile:
    """What the variables ``QUIXFRAMES_BROKER``, ``QUIXFRAMES_USER``, ``QUIXFRAMES_PASSWORD`` and so on say.

    Raises:
        SettingsError: what does not go together.
    """
    if "QUIXFRAMES_MECHANISM" in environ:  # as the others are called
        raise SettingsError(f"QUIXFRAMES_MECHANISM is not read: it is {_variable('mechanism')}")
    values: dict[str, Any] = {}
    for name in _KNOWN:
        variable = _variable(name)
        if environ.get(variable) and not name.endswith("_env"):
            values[name] = environ[variable]
    for name in _FLAGS:
        if name in values:
            values[name] = _flag(values[name], _variable(name))
    if values.get("mechanism") not in (None, *MECHANISMS):
        variable = _variable("mechanism")
        raise SettingsError(f"{variable}={values['mechanism']!r} has to be one of {', '.join(MECHANISMS)}")
    return _profile(values, environ, Path.cwd(), "the environment (QUIXFRAMES_...)")


def named_profile(name: str, environ: Mapping[str, str]) -> Profile:
    """The table of that name in the configuration file.

    Raises:
        SettingsError: no file or no such table, a setting that nobody knows, or a password that others may read.
    """
    path = config_path(environ)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            tables = tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(
            f"profile {name!r}: there is no file {path}; make it, or name another one in QUIXFRAMES_CONFIG"
        ) from None
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path} is no TOML: {exc}") from None  # its error may hold the text of the file
    holds = any(_holds_secret(table) for table in tables.values() if isinstance(table, dict))
    if holds and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{path} has a password or key in it and may be read by others: chmod 600 {path}")
    values = tables.get(name)
    if not isinstance(values, dict):
        has = ", ".join(sorted(key for key, value in tables.items() if isinstance(value, dict))) or "none"
        raise SettingsError(f"{path} has no profile {name!r}; it has: {has}")
    where = f"profile {name!r} of {path}"
    unknown = sorted(values.keys() - set(_KNOWN))
    if unknown:
        raise SettingsError(f"{where}: {', '.join(unknown)} is not known; there are {', '.join(_KNOWN)}")
    for key, value in values.items():
        if not isinstance(value, bool if key in _FLAGS else str):
            raise SettingsError(f"{where}: {key} has to be {'true or false' if key in _FLAGS else 'a text'}")
    if "broker" not in values:
        raise SettingsError(f"{where} names no broker: add broker = 'host:port'")
    return _profile(values, environ, path.parent, where)


def _holds_secret(table: Mapping[str, Any]) -> bool:
    return any(name in table for name in _SECRET) or any("PRIVATE KEY-----" in str(table.get(name)) for name in _FILES)


def config_path(environ: Mapping[str, str]) -> Path:
    """The configuration file: ``QUIXFRAMES_CONFIG``, or ``~/.config/quixframes/config.toml``."""
    if given := environ.get("QUIXFRAMES_CONFIG"):
        return Path(given).expanduser()
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "quixframes" / "config.toml"


def _profile(values: Mapping[str, Any], environ: Mapping[str, str], folder: Path, where: str) -> Profile:
    broker = values.get("broker")
    if not values.keys() & _SECURING:
        return Profile(broker, None)
    try:
        return Profile(broker, _security(values, environ, folder))
    except SettingsError as exc:
        raise SettingsError(f"{where}: {exc}") from exc


def _security(values: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Security | None:
    token_url = values.get("token_url")
    encrypted = values.get("tls", True)
    mechanism = values.get("mechanism")
    if mechanism is None and token_url is not None:
        mechanism = "OAUTHBEARER"
    elif mechanism is None and (values.get("user") or _secret("password", values, environ, folder)):
        mechanism = "SCRAM-SHA-512"
    if mechanism not in (None, *MECHANISMS):
        raise SettingsError(f"mechanism={mechanism!r} has to be one of {', '.join(MECHANISMS)}")
    if mechanism is None and not encrypted and not values.keys() & set(_FILES):
        return None
    token = None
    if token_url is not None:
        secret = _secret("client_secret", values, environ, folder)
        if not values.get("client_id") or secret is None:
            raise SettingsError("token_url needs client_id and client_secret")
        token = ClientCredentials(token_url, values["client_id"], secret, scope=values.get("scope"))
    elif mechanism == "OAUTHBEARER":
        raise SettingsError(
            "OAUTHBEARER needs token_url, client_id and client_secret; or give a Security in the program"
        )
    elif of_tokens := sorted(name for name in values if name.startswith(("client_", "scope"))):
        raise SettingsError(f"{', '.join(of_tokens)} without token_url: nobody would log in")
    return Security(
        **{name: _file(values[name], folder) for name in _FILES if name in values},
        key_password=_secret("key_password", values, environ, folder),
        mechanism=cast("Mechanism | None", mechanism),
        user=values.get("user"),
        password=_secret("password", values, environ, folder),
        token=token,
        encrypted=encrypted,
        allow_plaintext=values.get("allow_plaintext", False),
    )


def _secret(name: str, values: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Secret | None:
    """A password: itself, or from the variable or file that is named."""
    given = [key for key in (name, f"{name}_env", f"{name}_file") if key in values]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} were both given: leave one of them")
    if not given:
        return None
    value = values[given[0]]
    if given[0].endswith("_env"):
        if value not in environ:
            named = repr(value) if value.isupper() and value.isidentifier() else "so"  # it may be the secret
            raise SettingsError(f"{given[0]} names an environment variable, and there is none called {named}")
        return Secret(environ[value])
    if given[0].endswith("_file"):
        path = folder / Path(value).expanduser()
        try:
            return Secret(path.read_text(encoding="utf-8").rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is no text"
            raise SettingsError(f"{given[0]}: {path} cannot be read: {why}") from None
    return Secret(value)


def _file(value: str, folder: Path) -> str | Path:
    """A path, relative to the configuration file; or the text of a PEM file."""
    return value if "-----BEGIN" in value else folder / Path(value).expanduser()


def _variable(name: str) -> str:
    return "QUIXFRAMES_" + ("SASL_MECHANISM" if name == "mechanism" else name.upper())


def _flag(text: str, variable: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
        raise SettingsError(f"{variable} has to be true or false")
    return text.lower() in ("1", "true", "yes")
