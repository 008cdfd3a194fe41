"""What stewards edit of the catalog: datasets and their dictionaries. Files and the audit are history: to be read, never changed."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import Count
from django.utils import timezone

from catalog import audit
from catalog.audit import Actor
from catalog.models import AuditEntry, CatalogEntry, Dataset, DatasetColumn


def words(value: Any) -> Any:
    """A field's value as the audit keeps it: plain JSON, short."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def changed_words(form) -> dict[str, list]:
    """Field to [old, new] of what a form changed."""
    return {name: [words(form.initial.get(name)), words(form.cleaned_data.get(name))] for name in form.changed_data}


def column(name: str, head: str):
    """A column of a list under a head of plain words: figures with commas, moments by the city's clock, long text cut."""

    @admin.display(description=head, ordering=name)
    def shown(one):
        value = getattr(one, name)
        if isinstance(value, datetime):
            local = timezone.localtime(value)
            return f"{local:%b} {local.day} {local.year}, {local:%H:%M}"
        if isinstance(value, time):
            return f"{value:%H:%M}"
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:,}"
        if isinstance(value, str) and len(value) > 120:
            return f"{value[:120]}…"
        return value

    shown.__name__ = name  # Django makes the cell's class of it
    return shown


class Audited:
    """A ModelAdmin whose every save leaves a line in the audit: who, what, and which fields from what to what."""

    #: the word for it in the audit, and the field that names it there
    audit_kind = ""
    audit_name = "slug"

    def audit_changes(self, form) -> dict:
        return changed_words(form)

    def save_model(self, request, obj, form, change):
        super().save_model(request, obj, form, change)
        changes = self.audit_changes(form)
        if change and not changes:
            return
        self.write_audit(request, obj, "edit" if change else "create", changes)

    def write_audit(self, request, obj, verb: str, changes: dict) -> None:
        fields = ", ".join(changes)
        audit.write(
            Actor.of(request.user),
            verb,
            kind=self.audit_kind,
            target=str(getattr(obj, self.audit_name)),
            result=f"{'Changed' if verb == 'edit' else 'Made with'} {fields}." if fields else "Made.",
            changed=changes,
        )


class ReadOnlyAdmin(admin.ModelAdmin):
    """History: may be looked at, by those who may see it; nobody adds, changes or deletes it here."""

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


class ColumnInline(admin.TabularInline):
    model = DatasetColumn
    extra = 0
    fields = ["position", "name", "type", "is_published", "label", "description", "seen_at"]
    readonly_fields = ["seen_at"]
    formfield_overrides = {
        models.TextField: {"widget": forms.Textarea(attrs={"rows": 2, "cols": 30})},
        models.CharField: {"widget": forms.TextInput(attrs={"size": 12})},
    }


@admin.register(Dataset)
class DatasetAdmin(Audited, admin.ModelAdmin):
    audit_kind = "dataset"
    list_display = [
        "title", "slug", "department", "steward", "refresh_rate", column("promise_time", "promised by"), "access", "feeds",
        column("updated_at", "last changed"),
    ]  # fmt: skip
    list_filter = ["refresh_rate", "access", "department"]
    search_fields = ["title", "slug", "tags", "description"]
    prepopulated_fields = {"slug": ["title"]}
    inlines = [ColumnInline]
    fieldsets = [
        (None, {"fields": ["title", "slug", "description", "tags"]}),
        ("Who answers for it", {"fields": ["department", "steward", "steward_email"]}),
        ("What the public may expect", {"fields": ["refresh_rate", "promise_time", "access", "licence"]}),
        ("What its page counts", {"fields": ["chart_rows", "chart_columns"]}),
    ]

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(pipeline_count=Count("pipelines"))

    @admin.display(description="pipelines", ordering="pipeline_count")
    def feeds(self, dataset) -> int:
        return dataset.pipeline_count

    def has_delete_permission(self, request, obj=None):
        # pipelines, files and with them the evidence hang on it
        if obj is None or obj.pipelines.exists() or obj.entries.exists():
            return False
        return super().has_delete_permission(request, obj)

    def get_prepopulated_fields(self, request, obj=None):
        # a slug is part of every address and every file's place: it is chosen once
        return {} if obj else self.prepopulated_fields

    def get_readonly_fields(self, request, obj=None):
        return ["slug"] if obj else []

    def save_formset(self, request, form, formset, change):
        super().save_formset(request, form, formset, change)
        if not change:
            return
        changes = {one.instance.name: changed_words(one) for one in formset.forms if one.has_changed() and one not in formset.deleted_forms}
        named = {f"column {name}": list(changed) for name, changed in changes.items()}
        named |= {f"column {one.name}": "deleted" for one in formset.deleted_objects}
        if named:
            self.write_audit(request, form.instance, "edit", named)


@admin.register(CatalogEntry)
class CatalogEntryAdmin(ReadOnlyAdmin):
    list_display = [
        column("pointer", "lies at"), "dataset", column("source", "pipeline"), "layer", column("window_start", "data from"), column("bytes", "bytes"),
        column("rows", "rows"), column("created_at", "arrived"), column("withdrawn_at", "withdrawn"),
    ]  # fmt: skip
    list_filter = ["layer", "dataset"]
    search_fields = ["pointer", "sha256", "source"]
    list_select_related = ["dataset"]
    show_full_result_count = False


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = [
        column("at", "when"), column("actor", "who"), column("verb", "did"), column("kind", "to a"), column("target", "which"),
        column("reason", "why"), column("result", "result"),
    ]  # fmt: skip
    list_filter = ["verb", "kind"]
    search_fields = ["actor", "target", "reason"]
    date_hierarchy = "at"
    show_full_result_count = False
