"""What a CKAN portal says of a dataset: our words under its names, and which of them it does not say yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.connectors.base import About

#: The catalog's name → the portal's; a name that is not here is the same on both sides.
NAMES = {
    "description": "notes",
    "category": "dataset_category",
    "department": "owner_division",
    "section": "owner_section",
    "unit": "owner_unit",
    "steward_email": "owner_email",
    "published_on": "date_published",
    "organization": "owner_org",
}
Package = Mapping[str, Any]


def fields_of(about: About, organization: str, licence: str) -> dict[str, Any]:
    """The fields of the package, by the portal's names. What is empty here is left out: the portal's own words stay."""
    fields = {NAMES.get(name, name): value for name, value in about.fields.items() if name != "licence"}
    if told := about.fields.get("licence") or licence:
        fields["license_url" if "://" in told else "license_id"] = told
    fields["owner_org"] = fields.get("owner_org") or organization
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def sent(name: str, value: Any) -> Any:
    """A field as the action API takes it."""
    return [{"name": tag} for tag in value] if name == "tags" else value


def extras(package: Package) -> dict[str, str]:
    """What a portal says beside the fields that it knows."""
    return {extra["key"]: extra["value"] for extra in package.get("extras") or ()}


def as_extra(value: Any) -> str:
    """A field as an extra holds it, which is text."""
    return ", ".join(map(str, value)) if isinstance(value, list) else _plain(value)


def is_known(package: Package, name: str) -> bool:
    """Whether the portal has a place of its own for the field, or keeps it as an extra."""
    return name in package or name in extras(package)


def unsaid(package: Package, wanted: Mapping[str, Any]) -> list[str]:
    """Which of the wanted fields the portal does not say, or says otherwise."""
    return [name for name, value in wanted.items() if not _is_said(package, name, value)]


def _is_said(package: Package, name: str, wanted: Any) -> bool:
    if name == "tags":
        return {tag["name"] for tag in package.get("tags") or ()} == set(wanted)
    if name == "owner_org":
        organization = package.get("organization") or {}
        return wanted in (package.get("owner_org"), organization.get("name"), organization.get("title"))
    told = extras(package).get(name, package.get(name))
    if isinstance(wanted, list):
        # some portals give a list back as one text
        return _parts(told) == _parts(wanted)
    return told is not None and _plain(told) == _plain(wanted)


def _parts(told: Any) -> list[str]:
    listed = told if isinstance(told, list) else str(told or "").split(",")
    return [part for each in listed for text in str(each).split(",") if (part := text.strip())]


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def dictionary(columns: Iterable[Any], held: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Column to what the portal is to say of it: what it says already (`held`), with our label and words in place of its own."""
    return {
        column.name: {
            **held.get(column.name, {}),
            **({"label": column.label} if column.label else {}),
            **({"notes": column.description} if column.description else {}),
        }
        for column in columns
    }
