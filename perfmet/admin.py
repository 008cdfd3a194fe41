"""What stewards edit of the performance: the watches on sensors. Observations and scores are history; they are made anew, never changed."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.utils import timezone

from catalog.admin import Audited, ReadOnlyAdmin, column
from perfmet import expected, observe
from perfmet.health import Thresholds
from perfmet.models import Observation, QualityRun, QualityScore, SensorWatch
from pipelines import clock
from pipelines.errors import SetupError
from pipelines.models import Pipeline, Stage

#: What of a watch says how its readings are judged; the others say which they are.
JUDGING = {"rule", "window_days", "thresholds", "unit_field", "label", "is_active"}


class SensorWatchForm(forms.ModelForm):
    """A watch says what its pipeline can tell; thresholds have the names that there are."""

    class Meta:
        model = SensorWatch
        fields = [
            "pipeline", "label", "sensor_column", "value_column", "time_column", "unit_field", "rule", "window_days", "thresholds", "is_active",
        ]  # fmt: skip

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        usual = ", ".join(f"{name} {number:g}" for name, number in settings.SENSOR_THRESHOLDS.items())
        for name, change in (
            ("pipeline", {"queryset": Pipeline.objects.order_by("title")}),
            ("thresholds", {"help_text": f'Where this watch differs, like {{"low": 0.4}}. The city has: {usual}.'}),
        ):
            if name in self.fields:
                for attribute, value in change.items():
                    setattr(self.fields[name], attribute, value)

    def clean_thresholds(self):
        given = self.cleaned_data["thresholds"] or {}
        try:
            Thresholds.of(settings.SENSOR_THRESHOLDS, given)
        except SetupError as error:
            raise forms.ValidationError(f"{error.message} {error.next_step}") from error
        return given

    def clean(self):
        cleaned = super().clean()
        pipeline = cleaned.get("pipeline") or (self.instance.pipeline if self.instance.pk else None)
        if pipeline is None:
            return cleaned
        if not {Stage.STANDARDIZE, Stage.LOAD} & set(pipeline.stages):
            self.add_error(None, f"{pipeline} neither standardizes nor loads: nothing of it could be observed.")
        if Stage.LOAD in pipeline.stages and not cleaned.get("time_column") and not pipeline.window_column:
            self.add_error("time_column", f"{pipeline} has no window column: name the column with the moment of a row.")
        if cleaned.get("unit_field") and not pipeline.inventory:
            self.add_error("unit_field", f"{pipeline} names no inventory in which this field could be looked up.")
        return cleaned


@admin.register(SensorWatch)
class SensorWatchAdmin(Audited, admin.ModelAdmin):
    audit_kind, audit_name = "sensor watch", "pipeline"
    form = SensorWatchForm
    list_display = ["pipeline", "label", "sensor_column", "value_column", "rule", column("window_days", "days"), "is_active"]
    list_filter = ["is_active", "rule"]
    list_select_related = ["pipeline"]
    search_fields = ["pipeline__title", "pipeline__slug", "label"]

    def get_readonly_fields(self, request, obj=None):
        # its observations are of that pipeline
        return ["pipeline"] if obj else []

    def save_model(self, request, obj, form, change):
        super().save_model(request, obj, form, change)
        if not change or not form.changed_data:
            return
        if set(form.changed_data) - JUDGING:
            words = f"What was observed before stays as it was, until: python3 manage.py observe {obj.pipeline.slug}"
            self.message_user(request, words, messages.WARNING)
            return
        # by the new rule at once, as far back as it looks; nothing has to be read for it
        today = timezone.now().astimezone(clock.zone(obj.pipeline.time_zone)).date()
        seen = observe.judge_again(obj, today - expected.reach(obj.window_days), today + timedelta(days=1))
        if seen.written:
            self.message_user(request, f"{seen.written:,} observations of the last weeks were judged anew.")

    def has_delete_permission(self, request, obj=None):
        return False  # it is switched off: what it saw is history


@admin.register(Observation)
class ObservationAdmin(ReadOnlyAdmin):
    list_display = [
        "watch", "sensor", "day", "value", column("rows", "rows"), "expected", "health", column("reason", "why"), column("at", "observed"),
    ]  # fmt: skip
    list_filter = ["health", "watch"]
    list_select_related = ["watch__pipeline"]
    search_fields = ["sensor"]
    date_hierarchy = "day"
    show_full_result_count = False


@admin.register(QualityRun)
class QualityRunAdmin(ReadOnlyAdmin):
    list_display = [
        "version", "scope", column("place", "place"), "state", "asked_by", column("started_at", "began"), column("finished_at", "ended"),
        column("published_at", "published"), column("message", "what became of it"),
    ]  # fmt: skip
    list_filter = ["state", "version", "scope", "place"]
    date_hierarchy = "started_at"


@admin.register(QualityScore)
class QualityScoreAdmin(ReadOnlyAdmin):
    list_display = ["package", "resource", "score", "grade", "version", column("place", "place"), "division", column("recorded_at", "recorded")]
    list_filter = ["grade", "version", "place", "store_type"]
    search_fields = ["package", "resource", "title"]
    date_hierarchy = "recorded_at"
    show_full_result_count = False
