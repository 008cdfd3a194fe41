"""Secrets are stored shut, opened only to use them, and moved to a new key without a gap."""

import json
import logging

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command

from catalog.models import AuditEntry
from pipelines import secrets
from pipelines.errors import SetupError
from pipelines.models import Provider

CANARY = "canary-91c2-value"


@pytest.fixture
def keys(settings):
    """Two keys; the settings know the first."""
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    settings.FERNET_KEYS = keys[:1]
    return keys


def test_a_sealed_secret_is_not_in_what_is_stored(keys):
    stored = secrets.seal(CANARY)
    assert CANARY not in stored and stored.startswith("fernet:")
    assert secrets.reveal(stored) == CANARY


def test_what_is_already_sealed_or_a_reference_is_not_sealed_twice(keys):
    stored = secrets.seal(CANARY)
    assert secrets.seal(stored) == stored and secrets.seal("env:PORTAL_TOKEN") == "env:PORTAL_TOKEN"


def test_a_reference_is_read_from_the_environment_when_it_is_needed(keys, monkeypatch):
    monkeypatch.setenv("PORTAL_TOKEN", CANARY)
    assert secrets.reveal("env:PORTAL_TOKEN") == CANARY


@pytest.mark.parametrize(
    ("stored", "code", "word"),
    [
        ("env:NOT_THERE_7", "secret-missing", "NOT_THERE_7"),
        ("plain-canary", "secret-unsealed", ""),
        ("fernet:garbage", "secret-locked", "FERNET_KEYS"),
    ],
)
def test_a_secret_that_cannot_be_opened_says_what_to_do_and_not_what_it_holds(keys, stored, code, word):
    with pytest.raises(SetupError) as caught:
        secrets.reveal(stored)
    assert caught.value.code == code and word in caught.value.message and caught.value.next_step
    assert "canary" not in f"{caught.value.message}{caught.value.next_step}"


def test_a_wrong_key_says_how_to_make_a_right_one(settings):
    settings.FERNET_KEYS = ["not-a-key"]
    with pytest.raises(SetupError, match="not a Fernet key") as caught:
        secrets.seal(CANARY)
    assert "generate_key" in caught.value.next_step


def test_a_page_shows_the_name_of_a_reference_and_nothing_of_a_secret(keys):
    assert secrets.describe("env:PORTAL_TOKEN") == "env:PORTAL_TOKEN"
    assert set(secrets.describe(secrets.seal(CANARY))) == {"•"}


def test_a_secret_that_was_used_is_masked_in_every_later_log_line(keys):
    secrets.reveal(secrets.seal(CANARY))
    try:
        raise ValueError(f"the portal did not like {CANARY}")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "sent %s", (CANARY,), (ValueError, error, error.__traceback__))
    assert secrets.RedactFilter().filter(record)
    assert CANARY not in record.getMessage() and "sent" in record.getMessage()
    assert CANARY not in logging.Formatter().format(record) and "ValueError" in record.exc_text


# rotate_keys


@pytest.fixture
def providers(db, keys):
    """Two providers whose secrets the first key seals, one of them with a reference too."""
    for slug in ("la", "austin"):
        sealed = {"password": secrets.seal(f"{slug}-{CANARY}")}
        Provider.objects.create(slug=slug, title=slug, kind="socrata", base_url="https://data.example.gov", secrets=sealed)
    provider = Provider.objects.get(slug="la")
    provider.secrets["app_token"] = "env:APP_TOKEN"
    provider.save()


def rotate(capsys, *options) -> tuple[int, str]:
    """The exit code of the command, and what it printed."""
    try:
        call_command("rotate_keys", *options)
        code = 0
    except (SystemExit, CommandError) as error:
        code = getattr(error, "code", 1)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def opened() -> dict[str, str]:
    return {provider.slug: secrets.reveal(provider.secrets["password"]) for provider in Provider.objects.all()}


def test_after_a_rotation_the_old_key_can_be_taken_away(providers, keys, settings, capsys):
    old, new = keys
    settings.FERNET_KEYS = [new, old]
    code, printed = rotate(capsys, "--json")
    assert code == 0 and json.loads(printed) == {"rotated": 2, "references": 1, "failed": []}
    settings.FERNET_KEYS = [new]
    assert opened() == {"la": f"la-{CANARY}", "austin": f"austin-{CANARY}"}
    assert Provider.objects.get(slug="la").secrets["app_token"] == "env:APP_TOKEN"


def test_a_rotation_may_be_repeated(providers, keys, settings, capsys):
    settings.FERNET_KEYS = keys[::-1]
    assert [rotate(capsys)[0] for _ in range(2)] == [0, 0]
    assert len(opened()) == 2


def test_a_secret_that_no_key_opens_is_named_and_does_not_stop_the_others(providers, keys, settings, capsys):
    Provider.objects.filter(slug="austin").update(secrets={"password": "fernet:garbage"})
    settings.FERNET_KEYS = keys[::-1]
    code, printed = rotate(capsys)
    assert code == 1 and "austin, secret password: none of FERNET_KEYS opens it" in printed and "enter the secret again" in printed
    settings.FERNET_KEYS = keys[1:]
    assert secrets.reveal(Provider.objects.get(slug="la").secrets["password"]) == f"la-{CANARY}"
    assert Provider.objects.get(slug="austin").secrets == {"password": "fernet:garbage"}


def test_a_rotation_is_in_the_audit_and_tells_no_secret(providers, capsys):
    _, printed = rotate(capsys)
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.kind, entry.result) == ("rotate keys", "secret", "2 sealed anew, 0 could not be opened")
    assert entry.actor and CANARY not in f"{printed}{entry.__dict__}"


@pytest.mark.django_db
def test_a_rotation_with_nothing_to_do_says_so(keys, capsys):
    assert rotate(capsys)[0] == 3
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("name", ["SECRET_KEY", "FERNET_KEYS", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY"])
def test_the_programs_own_secrets_are_given_to_no_provider(monkeypatch, name):
    monkeypatch.setenv(name, "canary-of-our-own")
    for use in (secrets.seal, secrets.reveal):
        with pytest.raises(SetupError) as told:
            use(f"env:{name}")
        assert told.value.code == "own-secret" and "canary" not in str(told.value)
