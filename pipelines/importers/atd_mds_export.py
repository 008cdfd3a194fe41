"""The way back to atd-mds: operators and portal as its `providers_*.json` and `settings_*.json`, which it and `atd_mds.py` read.

Without leave no secret is among them: one that is stored reads `sealed`, one of the environment `env:NAME`; both are read back as
what they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pipelines import secrets
from pipelines.errors import SetupError
from pipelines.importers import plain
from pipelines.importers.atd_mds import AUTH_TYPES, KEPT, NOT_NEEDED
from pipelines.importers.plan import KEEP
from pipelines.models import Pipeline, Provider

#: What atd-mds can ask for; of anything else it breaks.
VERSIONS = ("0.2.0", "0.3.0", "0.4.0")


def providers(chosen: Iterable[Provider], *, with_secrets: bool) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """({operator: its keys}, what a person should know of it). Raises SetupError where a secret that is wanted can't be opened."""
    told: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for provider in sorted(chosen, key=lambda one: one.slug):
        name, said = _operator(provider, with_secrets=with_secrets)
        told[name] = said
        if said.get("version", VERSIONS[0]) not in VERSIONS:
            notes.append(f"{name}: atd-mds has no client for MDS {said['version']}; it has {', '.join(VERSIONS)}.")
        if said["auth_type"].lower() not in AUTH_TYPES:
            notes.append(f"{name}: atd-mds knows no log-in {said['auth_type']!r}; it knows {', '.join(AUTH_TYPES.values())}.")
    return told, notes


def _operator(provider: Provider, *, with_secrets: bool) -> tuple[str, dict[str, Any]]:
    parameters = {name: str(value) for name, value in provider.parameters.items() if value not in (None, "")}
    kept = json.loads(parameters.get(KEPT) or "{}")
    said: dict[str, Any] = {"auth_type": parameters.get("auth_type", "Bearer")}
    said["mds_api_url"] = plain.without_password(provider.base_url)
    for key in ("version", "provider_id", "provider_name", "token_url", "auth_token_res_key"):
        if key in parameters:
            said[key] = parameters[key]
    for key in ("delay", "max_attempts"):
        if key in parameters:
            said[key] = _number(parameters[key])
    if "paging" in parameters:
        said["paging"] = parameters["paging"].lower() in ("on", "true", "yes", "1")
    said |= _time_outs(parameters.get("timeout"), kept)
    if "time_format" in kept:
        said["time_format"] = kept["time_format"]
    if "mds_param_override" in parameters:
        said["mds_param_override"] = json.loads(parameters["mds_param_override"])

    stored = {name: value for name, value in provider.secrets.items() if value}
    if "token" in stored:
        said["token"] = _secret(provider, "token", with_secrets=with_secrets)
    if "auth_data" in stored:
        said["auth_data"] = _table(provider, "auth_data", with_secrets=with_secrets)
    headers: dict[str, Any] = json.loads(parameters.get("headers") or "{}")
    if "auth_headers" in stored:
        found = _table(provider, "auth_headers", with_secrets=with_secrets)
        headers |= found if isinstance(found, dict) else {"Authorization": found}
    if headers:
        said["headers"] = headers
    if "token_headers" in stored:
        said["request"] = {"auth": {"headers": _table(provider, "token_headers", with_secrets=with_secrets)}}
    elif "token_headers" in parameters:
        said["request"] = {"auth": {"headers": json.loads(parameters["token_headers"])}}
    return kept.get("name", provider.slug), said


def _time_outs(ours: str | None, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The time-out under the names that it had: atd-mds reads `interval`, and its documentation says `timeout`."""
    named = {key: kept[key] for key in ("interval", "timeout") if key in kept}
    if ours is None:
        return {}
    if not named:
        return {"timeout": _number(ours)}
    if float(named.get("timeout", named.get("interval"))) == float(ours):
        return named
    return dict.fromkeys(named, _number(ours))


def _secret(provider: Provider, name: str, *, with_secrets: bool) -> str:
    stored = provider.secrets[name]
    if not with_secrets:
        return plain.plain_secret(stored)
    try:
        return secrets.reveal(stored)
    except SetupError as error:
        raise SetupError(f"Provider {provider.slug}, secret {name!r}: {error.message}", code=error.code, next_step=error.next_step) from error


def _table(provider: Provider, name: str, *, with_secrets: bool) -> dict[str, Any] | str:
    """A secret that is an object: itself, or its names, each with the word that keeps what is stored; one of the environment by reference."""
    stored = provider.secrets[name]
    if not with_secrets and stored.startswith(secrets.ENV):
        return stored
    try:
        told = json.loads(secrets.reveal(stored))
    except SetupError:
        if with_secrets:
            _secret(provider, name, with_secrets=True)  # raises in words
        return KEEP
    except ValueError:
        if with_secrets:
            raise SetupError(
                f"Provider {provider.slug}, secret {name!r}: it is no JSON object.", code="secret-json", next_step="Enter it again in the admin."
            ) from None
        return KEEP
    return told if with_secrets else dict.fromkeys(told, KEEP)


def settings(chosen: Iterable[Pipeline], *, with_secrets: bool) -> dict[str, str]:
    """The portal of these pipelines, by the keys that atd-mds has. Raises SetupError where they have none, or several."""
    published = {(pipeline.portal, pipeline.portal_resource) for pipeline in chosen if pipeline.portal_id}
    if len(published) != 1:
        places = ", ".join(sorted(f"{portal.slug} {resource}" for portal, resource in published))
        said = f"These pipelines publish to several portals, and atd-mds knows one: {places}." if published else "None of these pipelines publishes."
        raise SetupError(said, code="no-portal", next_step="Name the pipelines whose portal is wanted: export_config PIPELINE … --what settings")
    portal, resource = published.pop()
    address = plain.without_password(portal.base_url)
    told = dict.fromkeys(NOT_NEEDED, "")
    told["SOCRATA_DATA_ENDPOINT"] = urlsplit(address).netloc if address.startswith("https://") else address
    told["SOCRATA_DATASET"] = resource
    for key, name in (("SOCRATA_APP_TOKEN", "app_token"), ("SOCRATA_KEY_SECRET", "password")):
        told[key] = _secret(portal, name, with_secrets=with_secrets) if portal.secrets.get(name) else ""
    told["SOCRATA_KEY_ID"] = str(portal.parameters.get("user") or "")
    return told


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value
