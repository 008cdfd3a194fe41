"""The forms of the catalog's pages."""

from __future__ import annotations

from django import forms
from django.utils import timezone

from catalog import inventory
from catalog.lake import PipelineError
from catalog.models import InventoryEdition


class InventoryUpload(forms.Form):
    """A file of devices, which inventory it is and from when it counts. A document of the original says both; then the fields may stay empty.

    When it is valid, `code`, `dated_at`, `content` and `reading` say what would be stored.
    """

    file = forms.FileField(label="File", help_text="CSV with a header, a JSON list, or a unit_data.json of atd-data-lake.")
    code = forms.SlugField(
        label="Inventory", required=False, max_length=40, help_text="Its code, for example bt. Pipelines name it. A document says it by itself."
    )
    dated = forms.DateField(
        label="Counts from",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="Data of the days before this day is matched with it: for yesterday's data, today. Empty: as the document says, else today.",
    )

    def clean(self):
        cleaned = super().clean()
        given = cleaned.get("file")
        if given is None:
            return cleaned
        # a byte more than is taken: what is larger is refused, and never wholly in memory
        self.content = given.read(inventory.MOST_BYTES + 1)
        try:
            self.reading = inventory.read(given.name, self.content)
        except PipelineError as error:
            self.add_error("file", f"{error.message} {error.next_step}".strip())
            return cleaned
        if self.reading.code and cleaned.get("code") and self.reading.code != cleaned["code"]:
            self.add_error("code", f"The file says that it is {self.reading.code}. Leave this empty, or choose the other file.")
        self.code = cleaned.get("code") or self.reading.code
        if not self.code and "code" not in self.errors:
            there = ", ".join(InventoryEdition.objects.order_by("code").distinct("code").values_list("code", flat=True)) or "bt, wt, gs"
            self.add_error("code", f"The file does not say which inventory it is. Write its code, such as {there}.")
        dated = cleaned.get("dated")
        zone = timezone.get_current_timezone()
        self.dated_at = inventory.moment(dated.isoformat(), zone) if dated else self.reading.dated_at or inventory.today(zone)
        return cleaned
