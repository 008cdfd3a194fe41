"""CKAN portals, by their action API: read a resource of the datastore; introduce a dataset, exchange, upsert and delete its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

from pipelines.connectors.base import Connector, Parameter
from pipelines.errors import DataError, PipelineError, SetupError, TransientError

#: Of packages, so many are asked for at once: CKAN gives no more of them.
PACKAGES_A_PAGE = 1_000
#: A request that writes rows is worked in before it is answered; a busy portal may take minutes.
WRITE_SECONDS = 300
#: What ends so only asks. What is named changes nothing either when it is done twice. Neither may be lost by one broken connection.
_QUESTIONS = ("_show", "_list", "_search", "_info", "_autocomplete")
_TWICE_IS_HARMLESS = frozenset({"package_patch", "resource_patch", "datastore_function_delete", "datastore_cache"})
#: CKAN's word for what went wrong → our error and its code.
_KINDS: dict[str, tuple[type[PipelineError], str]] = {
    "Authorization Error": (SetupError, "http-403"),
    "Not Found Error": (SetupError, "http-404"),
    "Validation Error": (DataError, "http-409"),
    "Integrity Error": (DataError, "http-400"),
}


class Ckan(Connector):
    """A portal that speaks CKAN's action API. A resource is its id, or `package-name/Resource name`."""

    kind = "ckan"
    label = "CKAN (action API)"
    can_fetch = True
    can_publish = True
    can_delete = True
    can_replace = True
    can_introduce = True
    address_hint = "https://data.example.gov"
    parameters = (
        Parameter("api_key", "API token", secret=True, help="Of an account there; needed to publish, and to read what is not public."),
        Parameter("organization", "Organization", help="The name of the organization that new datasets belong to, like city-of-toronto."),
        Parameter("licence_url", "Licence", help="The address of the licence of datasets that name none, or CKAN's id of it."),
    )

    @property
    def _headers(self) -> dict[str, str]:
        key = self.account.secrets.get("api_key", "")
        return {"Authorization": key} if key else {}

    @property
    def host(self) -> str:
        """What a message calls the portal."""
        return urlsplit(self.web_address).netloc

    # ------------------------------------------------------------------------------------------------------ the API

    def action(self, name: str, /, **params: Any) -> Any:
        """What the portal answers to an action: the `result`, of whatever shape the action has. Raises PipelineError, in CKAN's own words.

        Questions and what may be done twice are asked again where the connection failed.
        """
        return self._ask(name, params, repeatable=name.endswith(_QUESTIONS) or name in _TWICE_IS_HARMLESS)

    def _ask(self, name: str, params: dict[str, Any], *, repeatable: bool) -> Any:
        seconds = WRITE_SECONDS if name.startswith("datastore_") and not name.endswith(_QUESTIONS) else None
        reply = self.door.ask(
            "POST", f"{self.web_address}/api/3/action/{name}", payload=params, headers=self._headers, repeatable=repeatable, expect="json",
            read_timeout=seconds,
        )  # fmt: skip
        answer = reply.json
        if not isinstance(answer, dict) or "success" not in answer:
            raise SetupError(
                f"{self.host} answers, but not as a CKAN portal does",
                code="not-ckan",
                next_step=f"Check the address of provider {self.account.slug}: it is the portal's first page, without /api.",
            )
        if answer["success"] is not True:
            self._refused(name, answer.get("error"))
        return answer.get("result")

    def _refused(self, name: str, error: Any) -> NoReturn:
        """Raise what an answer means that says by itself that it failed, though its status was a good one."""
        told = error if isinstance(error, dict) else {"message": error}
        kind, code = _KINDS.get(told.get("__type", ""), (TransientError, "ckan-failed"))
        raise kind(self.door.redact(f"{self.host} refused {name}: {words(told)}"), code=code)

    def packages(self) -> Iterator[dict[str, Any]]:
        """Yield every package that the account may see, with its resources, in pages until there are no more. Raises PipelineError."""
        seen: set[str] = set()
        start = 0
        while True:
            answer = self.action("package_search", rows=PACKAGES_A_PAGE, start=start, sort="name asc", include_private=True)
            page = answer["results"]
            for package in page:
                # a package that is made meanwhile moves the others on by one place
                if package["id"] not in seen:
                    seen.add(package["id"])
                    yield package
            start += len(page)
            if not page or start >= answer["count"]:
                return

    def test(self) -> str:
        """Ask for the portal's version and, with a token, whose it is: a wrong one is refused there."""
        status = self.action("status_show")
        told = f"{self.host} answers: CKAN {status.get('ckan_version', 'of an unknown version')}"
        if "datastore" not in status.get("extensions", ["datastore"]):
            raise SetupError(
                f"{self.host} has no datastore, and rows are read from it and written to it",
                code="no-datastore",
                next_step="Ask who runs the portal to enable its datastore plugin.",
            )
        if not self._headers:
            return told
        try:
            # without an id: whose token it is
            return f"{told}, and it knows the token as {self.action('user_show')['name']}'s"
        except SetupError as error:
            # before CKAN 2.10 nobody could ask so
            if error.code != "http-404" or not (may := self.action("organization_list_for_user", permission="create_dataset")):
                raise SetupError(
                    f"{self.host} does not know the token of provider {self.account.slug}",
                    code="http-403",
                    next_step=f"Make a new API token on the portal, and enter it in provider {self.account.slug}.",
                ) from None
        return f"{told}; with the token datasets of {len(may):,} organizations may be made"


def words(error: dict[str, Any]) -> str:
    """What CKAN says of a failure, in one line: its message, or field by field what is wrong."""
    if error.get("message"):
        return str(error["message"])
    told = {name: said for name, said in error.items() if name not in ("__type", "info")}
    return "; ".join(f"{name}: {_line(said)}" for name, said in told.items()) or "no reason given"


def _line(said: Any) -> str:
    if isinstance(said, list):
        return " ".join(_line(each) for each in said if each)
    if isinstance(said, dict):
        return words(said)
    return str(said)
