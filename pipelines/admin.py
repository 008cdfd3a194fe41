"""What stewards edit of the pipelines: providers and pipelines. Blocks, runs and logs are history; verbs on blocks are actions."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from catalog import audit
from catalog.admin import Audited, ReadOnlyAdmin, changed_words, column
from catalog.audit import Actor
from pipelines import blocks, clock, planner, secrets
from pipelines.connectors import base as connectors
from pipelines.errors import PipelineError, SetupError
from pipelines.forms import CLEAR, PARAMETER, SECRET, AfterStepForm, PipelineForm, ProviderForm, ReasonForm, is_address, provider_form
from pipelines.importers import registry
from pipelines.models import (
    AfterRun,
    AfterStep,
    Enrichment,
    ImportLog,
    Pipeline,
    Provider,
    RegisteredOperator,
    RejectedRow,
    Run,
    ScheduleBlock,
    UpkeepJob,
    UpkeepRun,
)
from pipelines.selectors import after, manners, tables
from pipelines.stages import outside
from pipelines.upkeep import jobs

#: An action on more blocks than this belongs on a pipeline's page, where a preview shows them.
MOST_AT_ONCE = 500


@admin.register(Provider)
class ProviderAdmin(Audited, admin.ModelAdmin):
    """The form grows from what the connector of the kind declares; the kind is chosen first, once."""

    audit_kind = "provider"
    list_display = [
        "title", "slug", "kind", "base_url", "time_zone", "max_parallel", "is_active", column("blocked_until", "asked us to wait until"),
    ]  # fmt: skip
    list_filter = ["kind", "is_active"]
    search_fields = ["title", "slug", "base_url"]
    readonly_fields = ["kind_label", "blocked_until"]
    actions = ["test_connections"]
    change_form_template = "admin/pipelines/provider/change_form.html"

    # choosing the kind

    def add_view(self, request, form_url="", extra_context=None):
        if request.GET.get("kind", "") not in connectors.REGISTRY:
            if not self.has_add_permission(request):
                raise PermissionDenied
            return self._choose_kind(request)
        title = f"Add a provider: {connectors.REGISTRY[request.GET['kind']].label}"
        return super().add_view(request, form_url, {"title": title, **(extra_context or {})})

    def _choose_kind(self, request: HttpRequest) -> HttpResponse:
        # plain values: a template would call a class to make one of it
        kinds = [
            {
                "kind": kind.kind,
                "label": kind.label,
                "can": ", ".join(words for can, words in ((kind.can_fetch, "give rows"), (kind.can_publish, "take rows")) if can),
                "asks": ", ".join(
                    [
                        *filter(None, [kind.address_hint]),
                        *(f"{p.label} (secret)" if p.secret else p.label for p in kind.parameters),
                    ]
                ),
            }
            for kind in sorted(connectors.REGISTRY.values(), key=lambda kind: kind.label)
        ]
        context = {**self.admin_site.each_context(request), "title": "Which kind of provider?", "kinds": kinds, "opts": self.opts}
        return TemplateResponse(request, "admin/pipelines/provider/choose_kind.html", context)

    # the form of the kind

    def _kind(self, request: HttpRequest, obj: Provider | None) -> str:
        return obj.kind if obj else request.GET.get("kind", "")

    def _form(self, request: HttpRequest, obj: Provider | None) -> type[ProviderForm]:
        kind = self._kind(request, obj)
        try:
            return provider_form(kind)
        except SetupError:
            # its connector is gone from the program: the rest of it can still be looked at
            return type("UnknownKindForm", (ProviderForm,), {"kind": kind})

    def get_form(self, request, obj=None, change=False, **kwargs):
        return super().get_form(request, obj, change=change, **{**kwargs, "form": self._form(request, obj)})

    def get_fieldsets(self, request, obj=None):
        declared = self._form(request, obj).declared
        plain = [PARAMETER + parameter.name for parameter in declared if not parameter.secret]
        stored = (obj.secrets if obj else {}) or {}
        secret = []
        for parameter in declared:
            if parameter.secret:
                secret.append(SECRET + parameter.name)
                if parameter.name in stored:
                    secret.append(CLEAR + parameter.name)
        # what can't be known of a provider that is only being made isn't shown there
        known = ["kind_label"] if obj else []
        sets = [(None, {"fields": ["title", "slug", *known, "base_url", *plain]})]
        if secret:
            words = "Values are encrypted before they are stored and never shown again."
            sets.append(("Secrets", {"fields": secret, "description": words}))
        sets.append(("How it is treated", {"fields": ["time_zone", "max_parallel", "is_active", "contact", *(["blocked_until"] if obj else [])]}))
        return sets

    def get_readonly_fields(self, request, obj=None):
        return [*self.readonly_fields, "slug"] if obj else self.readonly_fields

    @admin.display(description="kind")
    def kind_label(self, provider) -> str:
        kind = connectors.REGISTRY.get(provider.kind)
        return f"{kind.label} ({provider.kind})" if kind else f"{provider.kind}: no connector of this kind is installed"

    def get_prepopulated_fields(self, request, obj=None):
        return {} if obj else {"slug": ["title"]}

    def get_changeform_initial_data(self, request):
        return {name: value for name, value in super().get_changeform_initial_data(request).items() if not name.startswith(SECRET)}

    def has_delete_permission(self, request, obj=None):
        if obj is None or obj.pipelines.exists() or obj.publishes.exists():
            return False
        return super().has_delete_permission(request, obj)

    def audit_changes(self, form) -> dict:
        return form.changed_words()

    # Test connection: a POST, for it goes out

    def get_urls(self):
        test = path("<int:pk>/test/", self.admin_site.admin_view(self.test_view), name="pipelines_provider_test")
        return [test, *super().get_urls()]

    def test_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not self.has_change_permission(request):
            raise PermissionDenied
        provider = get_object_or_404(Provider, pk=pk)
        if request.method == "POST":
            self._test(request, provider)
        else:
            messages.info(request, "Press “Test connection” to ask: looking at a page never asks an outside system.")
        return redirect("admin:pipelines_provider_change", provider.pk)

    @admin.action(description="Test the connection", permissions=["change"])
    def test_connections(self, request, queryset):
        for provider in queryset[:20]:
            self._test(request, provider)

    def _test(self, request: HttpRequest, provider: Provider) -> None:
        """One small question to the outside system; the answer in its sentence, without secrets."""
        try:
            said, level = outside.connector(provider).test(), messages.SUCCESS
        except PipelineError as error:
            said, level = f"{error.message} {error.next_step}".strip(), messages.ERROR
        said = secrets.redact(said)
        audit.write(Actor.of(request.user), "test", kind="provider", target=provider.slug, result=said)
        messages.add_message(request, level, f"{provider.title}: {said}")


class AfterStepInline(admin.StackedInline):
    """What is done after a load. A step is switched off, not deleted: what it did is history."""

    model = AfterStep
    form = AfterStepForm
    verbose_name, verbose_name_plural = "step", "After a load"
    extra = 0
    can_delete = False
    fields = [("position", "kind", "is_active"), ("target", "expect"), ("new_secret", "forget", "prefix")]


class EnrichmentInline(admin.TabularInline):
    """The areas that the stage enrich looks up. A line may be taken out: the rows that have its column keep it."""

    model = Enrichment
    verbose_name, verbose_name_plural = "area", "Areas to look up"
    extra = 0
    fields = ["position", "layer", "lon_column", "lat_column", "column"]

    def has_delete_permission(self, request, obj=None):
        return self.has_change_permission(request, obj)


@admin.register(Pipeline)
class PipelineAdmin(Audited, admin.ModelAdmin):
    audit_kind = "pipeline"
    form = PipelineForm
    list_display = ["title", "slug", "provider", "dataset", "cadence", column("due_time", "due at"), "table", "portal", "is_paused"]
    list_filter = ["cadence", "is_paused", "provider"]
    search_fields = ["title", "slug", "resource", "table", "portal_resource"]
    list_select_related = ["provider", "dataset", "portal"]
    autocomplete_fields = ["dataset"]
    readonly_fields = ["next_windows", "is_paused", "paused_reason", "also_loaded", "how_far"]
    inlines = [EnrichmentInline, AfterStepInline]
    fieldsets = [
        (None, {"fields": ["title", "slug", "dataset", "part", "provider", "resource", "format", "stages"]}),
        (
            "When it is owed",
            {
                "fields": [
                    "cadence",
                    "cron",
                    "due_time",
                    "settle_minutes",
                    "time_zone",
                    "starts_on",
                    "next_windows",
                    "is_paused",
                    "paused_reason",
                ]
            },
        ),
        (
            "Which rows",
            {
                "fields": ["key", "version_column", "columns", "types", "page_size", "pages_in_flight"],
            },
        ),
        (
            "Reading: how much at a time",
            {
                "fields": ["window_column", "watermark_column", "overlap_minutes", "since", "compare_days", "how_far"],
                "description": "With a window column each block reads the rows of its own span. With a watermark column each block reads"
                " what is new or changed since the last load; overlap, start and comparison only mean something then. With neither,"
                " every block reads the whole source.",
            },
        ),
        (
            "Rows gone and changed columns",
            {
                "fields": ["gone_rows", "drift", "watch_volume"],
                "description": "What is done without asking when the source has fewer rows, other columns or an odd number of rows.",
            },
        ),
        (
            "Devices and names",
            {
                "fields": ["data_source", "inventory", "options", "raw_names"],
                "description": "For formats of sensors: what their metrics are gathered under, which inventory their rows are matched with,"
                " what the format wants to know, and how the raw files are named.",
            },
        ),
        ("Where they are loaded", {"fields": ["warehouse", "table", "also_loaded", "load_mode"]}),
        (
            "Portal: where they are published",
            {
                "fields": ["portal", "portal_resource", "portal_mode", "publish_chunk"],
                "description": "Only for a pipeline with the publish stage. Another portal or dataset gets every row anew.",
            },
        ),
        (
            "Release: what the public gets to see",
            {
                "fields": ["release", "private_columns", "release_k"],
                "description": "Rules that turn the table’s rows into the portal’s. The key that makes public ids is made at the first publication,"
                " is kept encrypted, and is shared by all pipelines of the dataset.",
            },
        ),
        ("How hard it tries", {"fields": ["priority", "max_attempts", "deadline_minutes"]}),
    ]

    def get_readonly_fields(self, request, obj=None):
        # the slug names its files in the lake; chosen once
        return [*self.readonly_fields, "slug"] if obj else self.readonly_fields

    def get_prepopulated_fields(self, request, obj=None):
        return {} if obj else {"slug": ["title"]}

    def has_delete_permission(self, request, obj=None):
        if obj is None or obj.blocks.exists():
            return False
        return super().has_delete_permission(request, obj)

    def save_formset(self, request, form, formset, change):
        super().save_formset(request, form, formset, change)
        if formset.model is Enrichment:
            changes = _changed_areas(formset)
            if "enrich" not in form.instance.stages and form.instance.enrichments.exists():
                messages.warning(request, f"{form.instance.title} has areas to look up, and not the stage enrich: add it to its stages.")
        else:
            changes = {f"step {one.instance.pk} ({one.instance.kind})": one.changed_words() for one in formset.forms if one.has_changed()}
        if changes:
            self.write_audit(request, form.instance, "edit", changes)

    @admin.display(description="the table is also loaded by")
    def also_loaded(self, pipeline) -> str:
        """As it is saved; where another key would spoil the rows, that too."""
        others = tables.mates(tables.with_mates(Pipeline.objects.all()).get(pk=pipeline.pk)) if pipeline.pk else []
        if not others:
            return "no other pipeline"
        lines = (
            (
                reverse("admin:pipelines_pipeline_change", args=[mate.pk]),
                mate.title,
                f", of the dataset {mate.dataset}" if mate.dataset else "",
                f" It names a row by {mate.key}, this one by {tables.key_words(pipeline.key)}: one may replace or double the other’s rows."
                if mate.key
                else "",
            )
            for mate in others
        )
        return format_html("<ul>{}</ul>", format_html_join("", '<li><a href="{}">{}</a>{}.<strong>{}</strong></li>', lines))

    @admin.display(description="as it stands")
    def how_far(self, pipeline) -> str:
        """As it is saved: what it reads now, up to where it has read, when keys are compared."""
        return " ".join(manners.reading(pipeline, timezone.now())) if pipeline.pk else "Save it first; then it is told here."

    @admin.display(description="the next three blocks")
    def next_windows(self, pipeline) -> str:
        """As it is saved; to see the effect of a change, save first."""
        if not pipeline.pk:
            return "Save it first; then they are listed here."
        coming = next_windows(pipeline, timezone.now())
        if not coming:
            return "None: it only runs by hand."
        zone = clock.zone(pipeline.time_zone)
        lines = [(window, f"{due.astimezone(zone):%a %b %d, %H:%M}") for window, due in coming]
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}, due {}</li>", lines))


def _changed_areas(formset) -> dict[str, list | dict]:
    """Of each new column what was changed of it; of one that was taken out, what it was."""
    changes: dict[str, list | dict] = {f"area {one.instance.column}": changed_words(one) for one in formset.forms if one.has_changed()}
    return changes | {f"area {gone.column}": [str(gone), None] for gone in formset.deleted_objects}


def next_windows(pipeline: Pipeline, now: datetime, count: int = 3) -> list[tuple[str, datetime]]:
    """The next windows that fall due after `now`: (window in words, due instant)."""
    reach = {"hourly": 1, "daily": 7, "weekly": 30, "monthly": 130}.get(pipeline.cadence, 0)
    since, until = now - timedelta(days=reach + 40), now + timedelta(days=reach)
    coming = []
    for window in planner.owed_windows(pipeline, since, until):
        due = planner.due_at(pipeline, *window)
        if due > now:
            coming.append((clock.window_text(*window, pipeline.time_zone), due))
        if len(coming) == count:
            break
    return coming


@admin.register(ScheduleBlock)
class ScheduleBlockAdmin(ReadOnlyAdmin):
    """Read-only, with the verbs of operators as actions; each answers what moved and what was refused, and why."""

    list_display = [column("pk", "block"), "story", "pipeline", "stage", "state", column("due_at", "due"), column("rows", "rows")]
    list_filter = ["state", "stage", "mark", "pipeline"]
    search_fields = ["pipeline__slug", "pipeline__title", "message"]
    list_select_related = ["pipeline"]
    date_hierarchy = "starts_at"
    list_per_page = 50
    show_full_result_count = False
    actions = ["run_now", "force", "hold", "cancel"]

    @admin.display(description="its story", ordering="starts_at")
    def story(self, block) -> str:
        words = clock.window_text(block.starts_at, block.ends_at, block.pipeline.time_zone)
        return format_html('<a href="{}">{}</a>', reverse("block", args=[block.pk]), words)

    def has_operate_permission(self, request) -> bool:
        return request.user.has_perm("pipelines.operate")

    @admin.action(description="Run now: from where each stands", permissions=["operate"])
    def run_now(self, request, queryset):
        return self._ask(
            request,
            queryset,
            "run_now",
            "Run these blocks",
            "Each runs from the stage at which it stands; a done one runs whole.",
        )

    @admin.action(description="Force: run whole, although nothing changed", permissions=["operate"])
    def force(self, request, queryset):
        return self._ask(
            request,
            queryset,
            "force",
            "Force these blocks",
            "Each runs all its stages, even where the source says that nothing has changed.",
        )

    @admin.action(description="Hold: keep from running", permissions=["operate"])
    def hold(self, request, queryset):
        return self._ask(
            request,
            queryset,
            "hold",
            "Hold these blocks",
            "None of them runs until somebody releases it; running ones are left alone.",
        )

    @admin.action(description="Cancel: stop what runs", permissions=["operate"])
    def cancel(self, request, queryset):
        return self._ask(
            request,
            queryset,
            "cancel",
            "Cancel these blocks",
            "Running ones stop within seconds, waiting ones are held. Nothing half-done stays.",
        )

    def _ask(self, request: HttpRequest, queryset, action: str, title: str, does: str) -> HttpResponse | None:
        """First a page that says what it will do to which blocks, then, when it is pressed there, the act itself."""
        chosen = list(queryset.select_related("pipeline__provider").order_by("starts_at")[: MOST_AT_ONCE + 1])
        if len(chosen) > MOST_AT_ONCE:
            messages.error(request, f"Nothing was done: choose at most {MOST_AT_ONCE} blocks here, or use “Re-run” on the pipeline's page.")
            return None
        form = ReasonForm(request.POST if "confirmed" in request.POST else None)
        if "confirmed" in request.POST and form.is_valid():
            moved, refused = self._do(action, chosen, Actor.of(request.user), form.cleaned_data["reason"])
            level = messages.WARNING if refused else messages.SUCCESS
            why = "; ".join(f"block {verdict.block_id}: {verdict.text}" for verdict in refused[:5])
            messages.add_message(request, level, f"moved {moved}, refused {len(refused)}" + (f" ({why})" if why else ""))
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "does": does,
            "chosen": chosen,
            "action": action,
            "selected": [block.pk for block in chosen],
            "form": form,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/pipelines/scheduleblock/confirm.html", context)

    def _do(self, action: str, chosen: list[ScheduleBlock], actor: Actor, reason: str) -> tuple[int, list[blocks.Verdict]]:
        if action in ("hold", "cancel"):
            verdicts = [getattr(blocks, action)(block.pk, actor=actor, reason=reason) for block in chosen]
            return sum(verdict.moved for verdict in verdicts), [verdict for verdict in verdicts if not verdict.moved]
        pipelines = {block.pipeline_id: block.pipeline for block in chosen}
        placed = planner.place(
            planner.Order(pipelines=list(pipelines.values()), which="all", force=action == "force", block_ids=[block.pk for block in chosen]),
            actor=actor,
            reason=reason,
        )
        return len(placed.moved), placed.refused


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = [
        column("pk", "run"), "block", "stage", "state", column("attempt", "try"), "asked_by", column("started_at", "began"),
        column("finished_at", "ended"), column("rows_in", "rows in"), column("rows_out", "rows out"), column("unchanged", "unchanged"),
        column("rejected", "rejected"),
    ]  # fmt: skip
    list_filter = ["state", "stage", "trigger"]
    search_fields = ["block__pipeline__slug", "asked_by", "message"]
    list_select_related = ["block__pipeline"]
    show_full_result_count = False


@admin.register(AfterRun)
class AfterRunAdmin(ReadOnlyAdmin):
    list_display = [column("asked_at", "asked"), "pipeline", "what", "state", column("finished_at", "ended"), column("message", "what became of it")]
    list_filter = ["state", "step__kind"]
    list_select_related = ["step__pipeline", "run__block"]
    show_full_result_count = False

    @admin.display(description="pipeline", ordering="step__pipeline__title")
    def pipeline(self, one) -> str:
        return one.step.pipeline.title

    @admin.display(description="step")
    def what(self, one) -> str:
        return format_html('<a href="{}#after">{}</a>', reverse("block", args=[one.run.block_id]), after.deed_words(one.step))


@admin.register(ImportLog)
class ImportLogAdmin(ReadOnlyAdmin):
    list_display = [
        column("at", "when"), "pipeline", "event", "table", column("file", "file"), column("offset", "from row"), column("rows", "rows"),
        column("total", "of"), column("message", "what was said"),
    ]  # fmt: skip
    list_filter = ["event", "pipeline"]
    search_fields = ["file", "table"]
    list_select_related = ["pipeline"]
    show_full_result_count = False


@admin.register(RejectedRow)
class RejectedRowAdmin(ReadOnlyAdmin):
    list_display = [
        column("pk", "number"), column("block_id", "block"), column("reason", "reason"), "column", column("value", "value"),
        column("row_key", "key of the row"), column("file", "file"), column("line", "line"), column("replayed_at", "replayed"),
    ]  # fmt: skip
    list_filter = ["reason"]
    search_fields = ["reason", "row_key", "file"]
    readonly_fields = ["row_as_it_came"]
    exclude = ["raw"]
    show_full_result_count = False

    @admin.display(description="the row as it came")
    def row_as_it_came(self, row) -> str:
        return format_html("<pre>{}</pre>", json.dumps(row.raw, indent=1, ensure_ascii=False))


class UpkeepJobForm(forms.ModelForm):
    """A job's kind is one of those that there are, and its options are those that the kind knows.

    Its webhook is write-only, as every secret: an empty field keeps what is stored, "forget" removes it, a new value is sealed.
    """

    new_webhook = forms.CharField(
        required=False,
        label="Webhook",
        help_text="The address of a Slack-compatible webhook, or env:NAME. Leave it empty to keep what is set; where none is, that of the settings.",
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "size": 40}),
    )
    forget_webhook = forms.BooleanField(required=False, label="Forget the webhook")

    class Meta:
        model = UpkeepJob
        fields = ["title", "kind", "pipelines", "options", "cadence", "cron", "at_time", "day", "time_zone", "notices", "is_active"]
        help_texts = {"options": 'Names and values, like {"days": 35}. Empty: {}, which is what the kind does by default.'}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        known = [(name, f"{kind.label}: {', '.join(option.name for option in kind.options) or 'no options'}") for name, kind in jobs.kinds().items()]
        self.fields["kind"] = forms.ChoiceField(choices=sorted(known), help_text="Behind each, the options that it knows.")
        self.fields["pipelines"].queryset = Pipeline.objects.order_by("title")
        if self.instance.webhook:
            self.fields["new_webhook"].widget.attrs["placeholder"] = f"set: {secrets.describe(self.instance.webhook)}"

    def clean(self):
        cleaned = super().clean()
        given = {name: cleaned[name] for name in ("kind", "options", "cadence", "cron", "day") if name in cleaned}
        if len(given) == 5:
            jobs.check(UpkeepJob(title=cleaned.get("title", ""), **given))
        fresh = cleaned.get("new_webhook", "")
        if fresh and not fresh.startswith(secrets.ENV) and not is_address(fresh):
            self.add_error("new_webhook", "A webhook’s address begins with https://.")
        elif fresh:
            try:
                sealed = secrets.seal(fresh)
            except SetupError as error:
                self.add_error("new_webhook", f"{error.message} {error.next_step}")
            else:
                if len(sealed) > UpkeepJob._meta.get_field("webhook").max_length:
                    self.add_error("new_webhook", "This address is too long to be kept encrypted: keep it in a variable and enter env:NAME.")
                else:
                    self.instance.webhook = sealed
        elif cleaned.get("forget_webhook"):
            self.instance.webhook = ""
        return cleaned


@admin.register(UpkeepJob)
class UpkeepJobAdmin(Audited, admin.ModelAdmin):
    audit_kind, audit_name = "upkeep", "title"
    form = UpkeepJobForm
    fields = [
        "title", "kind", "pipelines", "options", "cadence", "cron", "at_time", "day", "time_zone", "next_at", "notices", "new_webhook",
        "forget_webhook", "is_active",
    ]  # fmt: skip
    list_display = ["title", "kind", "rhythm", column("next_at", "next"), "is_active"]
    list_filter = ["kind", "is_active"]
    filter_horizontal = ["pipelines"]
    readonly_fields = ["next_at"]

    def audit_changes(self, form) -> dict:
        """Of the webhook only that it was changed."""
        changes = changed_words(form)
        if changes.pop("new_webhook", None):
            changes["webhook"] = "webhook set"
        elif changes.pop("forget_webhook", None):
            changes["webhook"] = "webhook forgotten"
        changes.pop("forget_webhook", None)
        return changes

    @admin.display(description="when")
    def rhythm(self, job) -> str:
        return jobs.rhythm(job)

    def save_model(self, request, obj, form, change):
        # by what it says now: a time of yesterday's schedule would be kept once more
        obj.next_at = jobs.next_time(obj, timezone.now()) if obj.is_active else None
        super().save_model(request, obj, form, change)

    def has_delete_permission(self, request, obj=None):
        return False  # it is switched off: what it did is history


@admin.register(UpkeepRun)
class UpkeepRunAdmin(ReadOnlyAdmin):
    list_display = [
        column("asked_at", "asked"), "job", "state", "trigger", "asked_by", column("finished_at", "ended"), column("message", "what became of it"),
    ]  # fmt: skip
    list_filter = ["state", "job"]
    list_select_related = ["job"]
    show_full_result_count = False


@admin.register(RegisteredOperator)
class RegisteredOperatorAdmin(ReadOnlyAdmin):
    """The registry of mobility operators, as `import_config providers.csv` read it."""

    list_display = ["name", "mode", "operator_id", "mds_api_url", "gbfs_api_url"]
    list_filter = ["mode"]
    search_fields = ["name", "operator_id", "url", "mds_api_url"]
    actions = ["make_providers"]

    @admin.action(description="Make a provider of this", permissions=["make_provider"])
    def make_providers(self, request, queryset):
        for operator in queryset[:20]:
            try:
                provider = registry.make_provider(operator, actor=Actor.of(request.user))
            except PipelineError as error:
                self.message_user(request, f"{error.message} {error.next_step}", messages.ERROR)
                continue
            page = reverse("admin:pipelines_provider_change", args=[provider.pk])
            self.message_user(
                request, format_html('<a href="{}">{}</a> is a provider now: enter its log-in and its version, then make it active.', page, provider)
            )

    def has_make_provider_permission(self, request) -> bool:
        return request.user.has_perm("pipelines.add_provider")
