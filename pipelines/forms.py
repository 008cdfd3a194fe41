"""What operators and stewards fill in: why they press a button, what a provider is, and what is done after a load."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.conf import settings

from pipelines import secrets
from pipelines.connectors import base as connectors
from pipelines.connectors import connector_for
from pipelines.errors import SetupError
from pipelines.models import AfterStep, Pipeline, Provider, Stage
from pipelines.stages import release


class ReasonForm(forms.Form):
    """Why an act is done."""

    reason = forms.CharField(
        required=False,
        max_length=500,
        label="Why",
        widget=forms.Textarea(attrs={"rows": 2, "placeholder": "For the audit, for example: vendor re-sent the file"}),
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # where a mistake is public, the one who makes it says why
        self.fields["reason"].required = settings.ENVIRONMENT == "prod"
        self.fields["reason"].error_messages["required"] = "Say why in a few words: on the production system every act leaves its reason."


class ActForm(ReasonForm):
    """An act on a block: why, what the page showed when it was pressed, and for a re-run the stage to begin with."""

    seen_fence = forms.IntegerField(required=False, widget=forms.HiddenInput)
    stage = forms.ChoiceField(required=False, choices=[("", "")] + Stage.choices, widget=forms.HiddenInput)

    def __init__(self, *args, verb: str = "", **kwargs):
        super().__init__(*args, **kwargs)
        self.verb = verb

    def clean(self):
        cleaned = super().clean()
        if self.verb == "rerun" and not cleaned.get("stage"):
            raise forms.ValidationError("Say from which stage to begin: follow a “From …” button of the block's page.")
        return cleaned


# providers: the form grows from what the connector declares

PARAMETER, SECRET, CLEAR = "parameter_", "secret_", "clear_"


class ProviderForm(forms.ModelForm):
    """A provider of one kind. Use `provider_form(kind)`, which adds a field for each parameter and secret that the kind declares.

    Secrets are write-only: an empty field keeps what is stored, a ticked "forget" removes it, and a new value is sealed.
    """

    kind = ""
    declared: tuple[connectors.Parameter, ...] = ()

    class Meta:
        model = Provider
        fields = ["slug", "title", "base_url", "time_zone", "max_parallel", "is_active", "contact"]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not self.instance.pk:
            self.initial["time_zone"] = settings.TIME_ZONE
        for declared in self.declared:
            if declared.secret:
                stored = (self.instance.secrets or {}).get(declared.name, "")
                shown = f"Set ({secrets.describe(stored)}). Leave empty to keep it." if stored else "Not set."
                field = self.fields[SECRET + declared.name]
                field.help_text = f"{declared.help} {shown} Give the value, or env:NAME to read it from the environment.".strip()
                if not stored:
                    del self.fields[CLEAR + declared.name]
            else:
                self.fields[PARAMETER + declared.name].initial = (self.instance.parameters or {}).get(declared.name, declared.default)

    def clean(self):
        cleaned = super().clean()
        parameters: dict[str, str] = {}
        kept = dict(self.instance.secrets or {})
        for declared in self.declared:
            if not declared.secret:
                if value := cleaned.get(PARAMETER + declared.name, ""):
                    parameters[declared.name] = value
                continue
            if cleaned.get(CLEAR + declared.name):
                kept.pop(declared.name, None)
            if value := cleaned.get(SECRET + declared.name, ""):
                try:
                    kept[declared.name] = secrets.seal(value)
                except SetupError as error:
                    self.add_error(SECRET + declared.name, f"{error.message} {error.next_step}")
            elif declared.name in kept and self._moves_elsewhere(cleaned.get("base_url", "")):
                # a secret goes to the host for which it was entered, and to no other
                self.add_error(SECRET + declared.name, "The address has another host now: enter the secret again.")
            if declared.required and declared.name not in kept:
                self.add_error(SECRET + declared.name, f"{declared.label} is needed.")
        # what the kind no longer declares is not carried on
        known = {declared.name for declared in self.declared if declared.secret}
        self.instance.kind = self.kind
        self.instance.parameters = parameters
        self.instance.secrets = {name: value for name, value in kept.items() if name in known}
        return cleaned

    def _moves_elsewhere(self, address: str) -> bool:
        stored = type(self.instance).objects.filter(pk=self.instance.pk).values_list("base_url", flat=True).first()
        return bool(stored) and urlsplit(stored).hostname != urlsplit(address).hostname

    def add_error(self, field, error):
        """What the model says of something that has no field here is said above the form."""
        if hasattr(error, "error_dict"):
            strangers = [message for name, messages in error.error_dict.items() if name not in self.fields for message in messages]
            error.error_dict = {name: messages for name, messages in error.error_dict.items() if name in self.fields}
            if strangers:
                super().add_error(None, forms.ValidationError(strangers))
            if not error.error_dict:
                return
        super().add_error(field, error)

    def changed_words(self) -> dict[str, Any]:
        """What changed, for the audit: old and new of plain fields, only "set" or "forgotten" of secrets."""
        changes: dict[str, Any] = {}
        for name in self.changed_data:
            if name.startswith(SECRET):
                changes[name.removeprefix(SECRET)] = "secret set"
            elif name.startswith(CLEAR):
                changes.setdefault(name.removeprefix(CLEAR), "secret forgotten")
            else:
                changes[name.removeprefix(PARAMETER)] = [
                    _words(self.initial.get(name, self[name].initial)),
                    _words(self.cleaned_data.get(name)),
                ]
        return changes


def _words(value: Any) -> str:
    return "" if value is None else str(value)


def provider_form(kind: str) -> type[ProviderForm]:
    """The form of a kind of provider. Raises SetupError for an unknown kind."""
    declared = tuple(connector_for(kind).parameters)
    fields: dict[str, Any] = {"kind": kind, "declared": declared}
    for parameter in declared:
        if parameter.secret:
            fields[SECRET + parameter.name] = forms.CharField(
                label=parameter.label,
                required=False,
                strip=True,
                widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"}),
            )
            fields[CLEAR + parameter.name] = forms.BooleanField(label=f"Forget {parameter.label}", required=False)
        else:
            fields[PARAMETER + parameter.name] = forms.CharField(
                label=parameter.label,
                required=parameter.required,
                initial=parameter.default,
                help_text=parameter.help,
                widget=forms.TextInput(attrs={"class": "vTextField"}),
            )
    return type(f"{kind.title()}ProviderForm", (ProviderForm,), fields)


class PipelineForm(forms.ModelForm):
    """A pipeline; lists are typed as words with commas, and turned into lists."""

    stages = forms.MultipleChoiceField(
        choices=Stage.choices, widget=forms.CheckboxSelectMultiple, help_text="The steps that this pipeline has, in this order."
    )
    key = forms.CharField(required=False, help_text="Columns that name a row, with commas. Without a key the rows of a window are replaced.")
    columns = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 80}),
        help_text="Columns to take, in order, with commas. Empty: all that the source names.",
    )
    private_columns = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 80}),
        help_text="Columns that must never leave as they are, with commas. They may leave as a surrogate, as a time rounded to 15 minutes or"
        " more, or as a number rounded to 3 decimals or fewer; else nothing is published.",
    )

    class Meta:
        model = Pipeline
        exclude = ["source_version", "published_seq"]
        widgets = {
            "types": forms.Textarea(attrs={"rows": 3, "cols": 80}),
            "options": forms.Textarea(attrs={"rows": 4, "cols": 80}),
            "release": forms.Textarea(attrs={"rows": 8, "cols": 110}),
        }
        help_texts = {
            "window_column": "A date and time column: a block of one day then reads the rows of that day. Not together with a watermark column.",
            "watermark_column": "A column that grows with every change, best a date and time; :updated_at is Socrata’s own. Its newest loaded"
            " value is the watermark: later blocks read the rows at or after it, and those that have none.",
            "overlap_minutes": "Only with a watermark that is a time: so far before it is read again, because sources write late."
            " What is read twice changes nothing.",
            "since": "Only with a watermark: the first block begins here, like 2020-09-20T01:39:13. Empty: with all rows.",
            "compare_days": "Only with a watermark: after so many days all keys are fetched too and compared, to find rows that were deleted"
            " at the source; without a key, all rows. 0: never.",
            "gone_rows": "Rows that the table has and the source no longer. Only a pipeline with a key can keep them.",
            "drift": "New, vanished or retyped columns are told on the dataset’s timeline either way.",
            "release": "What the portal gets instead of the table’s columns: a list of columns, each with its rule, like"
            ' [{"column": "end_time", "from": "end_time", "rule": "round_minutes", "minutes": 15, "type": "local_time"}]. Rules:'
            f" {', '.join(release.RULES)}. Which rows: "
            '{"only": {"column": "trip_type", "in": ["", "rider"]}}. A ready one: '
            f"{', '.join(json.dumps(name) for name in release.PRESETS)}. Empty ([]): the columns as they are.",
            "release_k": 'Areas (columns with "area": true) that fewer rows of a block share are left blank on the portal. 0: none.',
            "portal_mode": "By key needs a row identifier on the portal. To replace all rows needs none; it is for small tables, and for those"
            " without a key.",
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in ("key", "columns", "private_columns"):
            # a copy: the list of the class must not be shared with the instance
            self.initial[name] = ", ".join(getattr(self.instance, name) or [])
        # a new pipeline's boxes are ticked as its defaults say: Django takes those only of a field that it made itself
        self.initial.setdefault("stages", self.instance.stages)
        if not self.instance.pk:
            self.initial["time_zone"] = self._first_zone()
        if "raw_names" in self.fields:
            # what names nothing keeps what it has, its own names at first
            self.fields["raw_names"].required = False
        if "table" in self.fields:
            self.fields["table"].required = False
            self.fields["table"].help_text = "Empty: made from the slug. Pipelines with one key may load one table together."
        warehouse = settings.WAREHOUSES
        if "warehouse" in self.fields:
            self.fields["warehouse"] = forms.ChoiceField(
                choices=[(alias, alias) for alias in warehouse],
                initial="default",
                help_text="Which warehouse of the settings the rows are loaded into.",
            )

    def _first_zone(self) -> str:
        """A new pipeline keeps its provider's time where that is known already, else the city's: UTC is nobody's day."""
        named = str(self.initial.get("provider") or "")
        provider = Provider.objects.filter(pk=named).first() if named.isdecimal() else None
        return provider.time_zone if provider else settings.TIME_ZONE

    def clean_table(self) -> str:
        return self.cleaned_data["table"] or Pipeline.table_of(self.cleaned_data.get("slug") or self.instance.slug)

    def clean_key(self) -> list[str]:
        return _list(self.cleaned_data["key"])

    def clean_columns(self) -> list[str]:
        return _list(self.cleaned_data["columns"])

    def clean_private_columns(self) -> list[str]:
        return _list(self.cleaned_data["private_columns"])

    def clean_raw_names(self) -> str:
        return self.cleaned_data["raw_names"] or self.instance.raw_names

    def clean_options(self) -> dict[str, Any]:
        options = self.cleaned_data["options"]
        if options in (None, ""):
            return {}
        if not isinstance(options, dict):
            raise forms.ValidationError('Give names and values, like {"area": "Austin", "minutes": 15}.')
        return options

    def clean(self):
        cleaned = super().clean()
        cleaned["release"] = [] if cleaned.get("release") is None else cleaned["release"]
        # a ready release comes with its private columns, where the steward names none
        if isinstance(cleaned.get("release"), str) and (ready := release.PRESETS.get(cleaned["release"].strip().lower())):
            cleaned["release"], cleaned["private_columns"] = ready[0], cleaned.get("private_columns") or ready[1]
        return cleaned

    def _post_clean(self) -> None:
        super()._post_clean()
        # only now does the pipeline hold what was entered: rules are judged with its key and its private columns
        if "release" in self.fields and "release" not in self.errors:
            for words in release.problems(self.instance):
                self.add_error("release", words)


class AfterStepForm(forms.ModelForm):
    """A step after a load. Its secret is write-only: an empty field keeps what is stored, "forget" removes it, a new value is sealed."""

    new_secret = forms.CharField(
        required=False,
        label="Secret",
        help_text="Of a webhook its address, else a bearer token: the value, or env:NAME. Leave it empty to keep what is set.",
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "size": 18}),
    )
    forget = forms.BooleanField(required=False, label="Forget the secret")

    class Meta:
        model = AfterStep
        fields = ["position", "kind", "target", "expect", "prefix", "is_active"]
        widgets = {
            "target": forms.TextInput(attrs={"size": 40}),
            "expect": forms.TextInput(attrs={"size": 18}),
            "prefix": forms.TextInput(attrs={"size": 10}),
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.instance.secret:
            self.fields["new_secret"].widget.attrs["placeholder"] = f"set: {secrets.describe(self.instance.secret)}"

    def clean(self):
        cleaned = super().clean()
        kind, target, fresh = cleaned.get("kind", ""), cleaned.get("target", ""), cleaned.get("new_secret", "")
        secret = "" if cleaned.get("forget") else self.instance.secret
        if fresh:
            try:
                secret = secrets.seal(fresh)
            except SetupError as error:
                self.add_error("new_secret", f"{error.message} {error.next_step}")
        elif secret and self._moves_elsewhere(kind, target):
            # a token goes to the host for which it was entered, and a webhook's address is nobody's token
            self.add_error("new_secret", "This step goes elsewhere now: enter the secret again, or tick “forget”.")
        if kind == AfterStep.Kind.NOTIFY:
            if not secret:
                self.add_error("new_secret", "Enter the address of the webhook here, or env:NAME: whoever knows it may write to the channel.")
            elif fresh and not fresh.startswith(secrets.ENV) and not is_address(fresh):
                self.add_error("new_secret", "A webhook’s address begins with https://.")
            if target:
                self.add_error("target", "Leave this empty: the address of a webhook is a secret, and is entered there.")
        elif kind in (AfterStep.Kind.POST, AfterStep.Kind.RELOAD):
            if not is_address(target):
                self.add_error("target", "Enter an address like https://api.example.gov/status/reset-cache, without a user name or password.")
        elif kind and not re.fullmatch(_VIEW if kind == AfterStep.Kind.REFRESH else _TABLE, target):
            named = {AfterStep.Kind.REFRESH: "Name the view, like service_requests or public.service_requests."}
            self.add_error("target", named.get(kind, "Name a table of the city, or leave it empty for the pipeline’s own."))
        self.instance.secret = secret
        return cleaned

    def _moves_elsewhere(self, kind: str, target: str) -> bool:
        stored = AfterStep.objects.filter(pk=self.instance.pk).values_list("kind", "target").first()
        if not stored:
            return False
        was_webhook, is_webhook = (one == AfterStep.Kind.NOTIFY for one in (stored[0], kind))
        return was_webhook != is_webhook or _host(stored[1]) != _host(target)

    def changed_words(self) -> dict[str, Any]:
        """What changed, for the audit; of the secret only that it did."""
        changes: dict[str, Any] = {}
        for name in self.changed_data:
            if name in ("new_secret", "forget"):
                changes["secret"] = "secret set" if self.cleaned_data.get("new_secret") else "secret forgotten"
            else:
                changes[name] = [secrets.redact(_words(value)) for value in (self.initial.get(name), self.cleaned_data.get(name))]
        return changes


_TABLE = r"([a-z_][a-z0-9_]{0,62})?"
_VIEW = r"([A-Za-z_][\w$]{0,62}\.)?[A-Za-z_][\w$]{0,62}"


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return address


def is_address(text: str) -> bool:
    """Whether a text is a web address, without a user name or a space in it."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and not re.search(r"\s", text)
    except ValueError:
        return False


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.replace("\n", ",").split(",") if word.strip()]
