"""What stewards edit of the catalog: datasets, their dictionaries, boundary layers. Editions, files and the audit are read, never changed."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Count, Func
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from catalog import audit, boundaries, inventory, maps
from catalog.audit import Actor
from catalog.lake import PipelineError
from catalog.models import AuditEntry, BoundaryLayer, CatalogEntry, Dataset, DatasetColumn, InventoryEdition


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
    fields = ["part", "position", "name", "type", "portal_type", "is_published", "label", "description", "seen_at"]
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
        (None, {"fields": ["title", "slug", "category", "description", "excerpt", "tags", "topics", "civic_issues"]}),
        ("What to know before using it", {"fields": ["information_url", "limitations", "collection_method"]}),
        (
            "Who answers for it",
            {"fields": ["department", "section", "unit", "steward", "steward_email", "engineer", "engineer_email"]},
        ),
        ("What the public may expect", {"fields": ["refresh_rate", "promise_time", "access", "licence", "published_on", "is_retired"]}),
        ("On its portal", {"fields": ["organization", "portal_fields"]}),
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


class BoundaryForm(forms.ModelForm):
    """A layer's words and its file. What is wrong with a file is said at the file; it is stored by `boundaries.store` alone."""

    upload = forms.FileField(
        label="GeoJSON file",
        required=False,
        help_text="Areas (polygons) in longitude and latitude, WGS 84. It takes the place of a present one; pipelines use it from their next run.",
    )

    class Meta:
        model = BoundaryLayer
        fields = ["title", "slug", "key_property", "label_property"]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        given = self.files.get("upload")
        self.geojson: bytes | None = None
        self.trouble: PipelineError | None = None
        found: list[boundaries.Property] = []
        try:
            if given:
                # a byte more than is taken: what is larger is refused, and never wholly in memory
                self.geojson = given.read(boundaries.MOST_BYTES + 1)
            elif self.instance.pk:
                self.geojson = boundaries.content_of(self.instance)
            if self.geojson is not None:
                found = boundaries.properties_of(self.geojson)
        except PipelineError as error:
            self.trouble = error
        self.found = found
        if "key_property" in self.fields:
            self._offer(found)

    def _offer(self, found: list[boundaries.Property]) -> None:
        """The properties that the file has; before there is one, nothing can be chosen."""
        keys = [(one.name, f"{one.name}: {one.distinct:,} different, such as {one.example}") for one in found if one.is_key]
        labels = [(one.name, f"{one.name}: such as {one.example}") for one in found]
        without = [("", "the most likely one" if not self.instance.pk else "the most likely one of the new file")]
        present = self.initial.get("key_property")
        if present and present not in dict(keys):
            keys.append((present, f"{present}: not in every feature of this file"))
        self.fields["key_property"] = forms.ChoiceField(
            label="Key",
            required=False,
            choices=[*without, *keys],
            help_text="The property that names an area. It can be chosen when a file is there; at first the most likely one is taken.",
        )
        self.fields["label_property"] = forms.ChoiceField(
            label="Name for people", required=False, choices=[("", "the key"), *labels], help_text="What people read beside the key."
        )

    def clean(self):
        cleaned = super().clean()
        place = "upload" if self.files.get("upload") or not self.instance.pk else "key_property"
        if self.geojson is None and self.trouble is None:
            self.add_error("upload", "Choose the GeoJSON file.")
            return cleaned
        if self.trouble is None:
            key = cleaned.get("key_property") or boundaries.likely_key(self.found)
            if not key:
                names = ", ".join(one.name for one in self.found) or "none at all"
                self.add_error(
                    "upload", f"No property names every area by a value of its own. The properties are {names}. Add one and upload it again."
                )
                return cleaned
            cleaned["key_property"] = key
            try:
                boundaries.parse(self.geojson, key, cleaned.get("label_property", ""))
            except PipelineError as error:
                self.trouble = error
        if self.trouble is not None:
            self.add_error(place, f"{self.trouble.message} {self.trouble.next_step}".strip())
        return cleaned


@admin.register(BoundaryLayer)
class BoundaryLayerAdmin(admin.ModelAdmin):
    """A steward uploads a file, chooses its key of the properties that it has, and looks at the map."""

    form = BoundaryForm
    list_display = ["title", "slug", column("areas", "areas"), "key_property", column("uploaded_at", "uploaded"), "uploaded_by", "used_by"]
    search_fields = ["title", "slug"]
    fieldsets = [(None, {"fields": ["title", "slug", "upload", "key_property", "label_property", "preview"]})]
    readonly_fields = ["preview"]

    def get_queryset(self, request):
        return super().get_queryset(request).defer("content").annotate(pipeline_count=Count("enrichments__pipeline", distinct=True))

    @admin.display(description="pipelines", ordering="pipeline_count")
    def used_by(self, layer) -> int:
        return layer.pipeline_count

    @admin.display(description="as it is stored")
    def preview(self, layer) -> str:
        if not layer.pk:
            return "The map is shown when it is stored."
        try:
            drawn = maps.draw(boundaries.load(layer))
        except PipelineError as error:
            return f"{error.message} {error.next_step}".strip()
        told = render_to_string("catalog/_map.html", {"drawn": drawn, "layer": layer, "href": layer.get_absolute_url()})
        return format_html('{}<a href="{}">Its page, with the table of its areas</a>', told, layer.get_absolute_url())

    def get_readonly_fields(self, request, obj=None):
        # the slug is its address and its name in configurations: chosen once
        return [*self.readonly_fields, "slug"] if obj else self.readonly_fields

    def get_prepopulated_fields(self, request, obj=None):
        return {} if obj else {"slug": ["title"]}

    def has_delete_permission(self, request, obj=None):
        # the database refuses it as well
        if obj is None or obj.enrichments.exists():
            return False
        return super().has_delete_permission(request, obj)

    def delete_model(self, request, obj):
        audit.write(Actor.of(request.user), "delete", kind="boundary", target=obj.slug, result=f"Deleted: {obj.areas:,} areas.", sha256=obj.sha256)
        super().delete_model(request, obj)

    def save_model(self, request, obj, form, change):
        stored = boundaries.store(
            obj.slug, obj.title, form.cleaned_data["key_property"], form.geojson, Actor.of(request.user), label_property=obj.label_property
        )
        obj.__dict__.update({name: value for name, value in stored.__dict__.items() if name != "_state"})
        obj._state.adding = False
        for words in boundaries.load(stored).repaired[:5]:
            messages.warning(request, f"{words}. Its outline was repaired: look at the map.")

    def response_add(self, request, obj, post_url_continue=None):
        return super().response_add(request, obj, post_url_continue) if "_save" not in request.POST else self._look(request, obj)

    def response_change(self, request, obj):
        return super().response_change(request, obj) if "_save" not in request.POST else self._look(request, obj)

    def _look(self, request, obj):
        """To its page: whether the right file and the right key were taken is seen on the map."""
        messages.success(request, f"Stored: {obj.areas:,} areas, named by {obj.key_property}.")
        return redirect(obj)


@admin.register(InventoryEdition)
class InventoryEditionAdmin(admin.ModelAdmin):
    """An edition is stored by its page, which shows it before; it is never edited. One that was stored by mistake may be taken out."""

    list_display = ["code", column("dated_at", "dated"), "devices", "origin", column("uploaded_at", "stored"), "uploaded_by"]
    list_filter = ["code"]
    search_fields = ["code", "origin", "sha256"]
    fields = ["code", "dated_at", "devices", "origin", "uploaded_at", "uploaded_by", "sha256", "look"]
    readonly_fields = fields

    def get_queryset(self, request):
        counted = Func("units", function="jsonb_array_length", output_field=models.IntegerField())
        return super().get_queryset(request).defer("units").annotate(device_count=counted)

    @admin.display(description="devices", ordering="device_count")
    def devices(self, edition) -> str:
        return f"{edition.device_count:,}"

    @admin.display(description="its devices")
    def look(self, edition) -> str:
        return format_html('<a href="{}?edition={}">Table and map</a>', reverse("inventory", args=[edition.code]), edition.pk)

    def add_view(self, request, form_url="", extra_context=None):
        if not self.has_add_permission(request):
            raise PermissionDenied
        return redirect("inventory_upload")

    def has_change_permission(self, request, obj=None):
        return False

    def delete_model(self, request, obj):
        words = f"Deleted: the edition dated {obj.dated_at:%Y-%m-%d %H:%M} UTC, {inventory.devices(obj.device_count)}."
        audit.write(Actor.of(request.user), "delete", kind="inventory", target=obj.code, result=words, sha256=obj.sha256)
        super().delete_model(request, obj)

    def delete_queryset(self, request, queryset):
        # one by one, so that each leaves its line in the audit
        for edition in queryset:
            self.delete_model(request, edition)


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
