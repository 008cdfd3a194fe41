"""`providers.csv` of the MDS registry: who is behind a provider id, with the address of its API where it has one. Its lines are added or
brought up to date; the admin's action "Make a provider of this" makes a provider of one.
"""

from __future__ import annotations

import csv
import io

from django.db import IntegrityError, transaction

from catalog import audit
from catalog.audit import Actor
from pipelines.errors import SetupError
from pipelines.importers.plan import OPERATOR, Plan, Problem, Wanted, suggestion
from pipelines.importers.portals import as_slug
from pipelines.models import Provider, RegisteredOperator

NAME = "MDS registry providers.csv"
#: Column of the file → field here. `mode_id` is newer than the others.
COLUMNS = {
    "provider_id": "operator_id",
    "mode_id": "mode",
    "provider_name": "name",
    "url": "url",
    "mds_api_url": "mds_api_url",
    "gbfs_api_url": "gbfs_api_url",
}
NEEDED = ("provider_name", "provider_id")


def recognises(path: str, text: str) -> bool:
    """Whether the first line names the columns of a registry."""
    header = set(_names(text.partition("\n")[0].split(",")))
    return header.issuperset(NEEDED) and bool(header & {"mds_api_url", "gbfs_api_url", "url"})


def read(path: str, text: str) -> Plan:
    """The operators that the file names. All that is wrong with it is in `problems` and `warnings`; nothing is raised."""
    problems: list[Problem] = []
    wanted: dict[str, Wanted] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = _names(next(reader))
    warnings = [
        Problem(path, 1, name, "A registry has no such column; it is left out.", suggestion(name, COLUMNS, what="Its columns"))
        for name in header
        if name not in COLUMNS
    ]
    try:
        for row in reader:
            line = reader.line_num
            if not any(row):
                continue
            if len(row) != len(header):
                message = f"This line has {len(row)} values, and the first line names {len(header)}."
                problems.append(Problem(path, line, "", message, "Put a value that holds a comma into double quotes."))
                continue
            said = {COLUMNS[name]: value.strip() for name, value in zip(header, row, strict=True) if name in COLUMNS}
            for column in NEEDED:
                if not said[COLUMNS[column]]:
                    problems.append(Problem(path, line, column, "It is empty, and an operator needs it.", "Write it, or take the line out."))
            # trips say it in small letters, whatever the registry does
            slug = f"{said.pop('operator_id').lower()} {said.pop('mode', '')}".rstrip()
            if first := wanted.get(slug):
                # the registry is not ours to correct: one line of it must not keep out the others
                message = f"This operator and mode stand on line {first.line} already; that line counts."
                warnings.append(Problem(path, line, "provider_id", message, "Nothing, if the two lines mean the same."))
                continue
            wanted[slug] = Wanted(OPERATOR, slug, said, path, line, dict.fromkeys(said, line))
    except csv.Error as error:
        problems.append(Problem(path, reader.line_num, "", f"This is not CSV: {error}.", "Correct this line."))
    return Plan(tuple(wanted.values()), tuple(problems), warnings=tuple(warnings))


def _names(header: list[str]) -> list[str]:
    return [name.strip().strip('"') for name in header]


def make_provider(operator: RegisteredOperator, *, actor: Actor, reason: str = "") -> Provider:
    """A provider of an operator, not active until its log-in is entered; audited. Raises SetupError where there can be none."""
    if not operator.mds_api_url:
        raise SetupError(
            f"{operator.name} names no MDS address in the registry.",
            code="no-address",
            next_step="Ask the operator for it, and add the provider by hand.",
        )
    slug = as_slug(operator.name)
    known = Provider.objects.filter(slug=slug) | Provider.objects.filter(kind="mds", parameters__provider_id=operator.operator_id)
    if taken := known.first():
        raise SetupError(
            f"{operator.name} is there already: provider {taken.slug}.", code="provider-there", next_step="Change that one, or rename it."
        )
    try:
        with transaction.atomic():
            provider = Provider.objects.create(
                slug=slug,
                title=operator.name,
                kind="mds",
                base_url=operator.mds_api_url.rstrip("/"),
                parameters={"provider_id": operator.operator_id, "provider_name": operator.name},
                is_active=False,
            )
            audit.write(actor, "create", kind="provider", target=slug, reason=reason, result="made of a line of the MDS registry")
    except IntegrityError:
        raise SetupError(f"A provider {slug} was made just now.", code="provider-there", next_step="Look at it in the admin.") from None
    return provider
