"""A CKAN plugin for the tests: a dataset has the fields of Toronto's own portal at its top level, as open.toronto.ca's has.

Without such a plugin CKAN drops unknown top-level fields of a dataset without a word and keeps only `extras`. Lists stay lists.
Fields of resources need no plugin: CKAN keeps what it does not know.
"""

import json

from ckan import plugins
from ckan.plugins import toolkit

FIELDS = (
    "refresh_rate", "last_refreshed", "date_published", "is_retired", "dataset_category", "owner_division", "owner_section", "owner_unit",
    "owner_email", "topics", "civic_issues", "information_url", "excerpt", "limitations", "collection_method", "jira_issue_id", "formats",
)  # fmt: skip


class TorontoFields(plugins.SingletonPlugin, toolkit.DefaultDatasetForm):
    plugins.implements(plugins.IDatasetForm)

    def is_fallback(self):
        return True

    def package_types(self):
        return []

    def _with_fields(self, schema):
        rules = [toolkit.get_validator("ignore_missing"), _as_text, toolkit.get_converter("convert_to_extras")]
        return {**schema, **dict.fromkeys(FIELDS, rules)}

    def create_package_schema(self):
        return self._with_fields(super().create_package_schema())

    def update_package_schema(self):
        return self._with_fields(super().update_package_schema())

    def show_package_schema(self):
        rules = [toolkit.get_converter("convert_from_extras"), toolkit.get_validator("ignore_missing"), _as_it_was]
        return {**super().show_package_schema(), **dict.fromkeys(FIELDS, rules)}


def _as_text(value):
    """An extra is text: what is none is kept as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _as_it_was(value):
    """The list that was kept as JSON; anything else stays the text that it is."""
    return json.loads(value) if value.startswith("[") else value
