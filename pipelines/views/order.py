"""The order form of a re-run: which blocks, which stages, forced or not; the same on the pipeline's page, the preview and the press."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from django import forms
from django.conf import settings

from pipelines import clock, planner
from pipelines.models import Pipeline, Stage

#: So many windows at once: a longer span is asked for in portions, so that a preview can be read and a press answers soon.
MOST_WINDOWS = 3000
WHICH = [("incomplete", "Missing and failed, whatever isn’t done"), ("missing", "Missing"), ("failed", "Failed"), ("all", "All, also the done")]
BEGINNINGS = {
    Stage.EXTRACT: "Extract: ask the source again",
    Stage.STANDARDIZE: "Standardize: from the raw file in the lake",
    Stage.ENRICH: "Enrich: from the standard file in the lake",
    Stage.AGGREGATE: "Aggregate: from the ready file in the lake",
    Stage.LOAD: "Load: from the file in the lake",
    Stage.PUBLISH: "Publish: from the warehouse",
}
_LENGTHS = {"hourly": clock.HOUR, "weekly": 7 * clock.DAY, "monthly": 28 * clock.DAY}


class OrderForm(forms.Form):
    """An order for one pipeline. Times without a zone are the pipeline's; a bare day means the whole of it, also as the end.

    `start` empty: from where each block stands. `stop` empty: to the last stage; "only": just `start`; "unpublished": not to the portal.
    """

    which = forms.ChoiceField(choices=WHICH, required=False, initial="incomplete")
    start = forms.ChoiceField(choices=[("", ""), *Stage.choices], required=False)
    stop = forms.ChoiceField(choices=[("", "To its end"), ("unpublished", "Stop before publish"), ("only", "This stage only")], required=False)
    force = forms.BooleanField(required=False)

    def __init__(self, pipeline: Pipeline, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pipeline = pipeline
        # "from" is a word of Python, so these two can't be written as the others
        self.fields["from"] = forms.CharField(required=False, max_length=30)
        self.fields["to"] = forms.CharField(required=False, max_length=30)

    def clean_which(self):
        return self.cleaned_data["which"] or "incomplete"

    def clean(self):
        cleaned = super().clean()
        start, stop = cleaned.get("start"), cleaned.get("stop")
        if start and start not in self.pipeline.stages:
            raise forms.ValidationError(f"{self.pipeline.title} has no stage {start!r}. It has {', '.join(self.pipeline.stages)}.")
        if stop == "only" and not start:
            raise forms.ValidationError("“This stage only” needs a stage: say from which stage to begin.")
        if stop == "unpublished" and start == Stage.PUBLISH:
            raise forms.ValidationError("From publish, but stop before publish: that leaves nothing to do. Choose one of them.")
        cleaned["starts_at"], cleaned["ends_at"] = self._bound("from"), self._bound("to")
        starts_at, ends_at = cleaned["starts_at"], cleaned["ends_at"]
        if starts_at and ends_at:
            if starts_at >= ends_at:
                raise forms.ValidationError("The span ends before it begins. Exchange “From” and “Up to”.")
            windows = (ends_at - starts_at) / _LENGTHS.get(self.pipeline.cadence, clock.DAY)
            if windows > MOST_WINDOWS:
                raise forms.ValidationError(f"That is about {round(windows):,} blocks. Ask for at most {MOST_WINDOWS:,} at once.")
        elif starts_at or ends_at:
            raise forms.ValidationError("Give both ends of the span, or none.")
        return cleaned

    def _bound(self, name: str) -> datetime | None:
        text = (self.cleaned_data.get(name) or "").strip()
        if not text:
            return None
        try:
            if len(text) == 10:
                day = date.fromisoformat(text)
                return clock.day_start(day + timedelta(days=name == "to"), self.pipeline.time_zone)
            moment = datetime.fromisoformat(text)
        except (ValueError, OverflowError) as error:
            raise forms.ValidationError(f"{text!r} is not a time. Write it like 2026-11-12T08:00, or a day like 2026-11-12.") from error
        if moment.tzinfo:
            return moment.astimezone(UTC)
        # of an hour that comes twice, from its first and up to its second
        return moment.replace(tzinfo=clock.zone(self.pipeline.time_zone), fold=name == "to").astimezone(UTC)

    @property
    def stages(self) -> list[str] | None:
        """The stages of the pass, or None: from where each block stands to its end."""
        own, start, stop = list(self.pipeline.stages), self.cleaned_data["start"], self.cleaned_data["stop"]
        if stop == "only":
            return [start]
        if not start and not stop:
            return None
        later = own[own.index(start) :] if start else own
        return [stage for stage in later if not (stop == "unpublished" and stage == Stage.PUBLISH)]

    def order(self) -> planner.Order:
        cleaned = self.cleaned_data
        return planner.Order(
            pipelines=[self.pipeline],
            starts_at=cleaned["starts_at"],
            ends_at=cleaned["ends_at"],
            which=cleaned["which"],
            stages=self.stages,
            force=cleaned["force"],
        )

    def command(self) -> str:
        """The command line that does the same, to be pasted into a shell; empty where there is none."""
        cleaned = self.cleaned_data
        which, bounds = cleaned["which"], [moment for moment in (cleaned["starts_at"], cleaned["ends_at"]) if moment]
        # `run` knows what isn't done, and all of a span; force takes all of it
        asks_again = self.pipeline.is_snapshot or self.pipeline.provider.connector_class.can_count
        told = which == ("all" if cleaned["force"] else "incomplete") or (which == "all" and bounds and asks_again)
        if not told or any(moment.minute for moment in bounds) or (cleaned["force"] and not bounds and not self.pipeline.is_snapshot):
            return ""
        words = ["python3 manage.py run", self.pipeline.slug]
        zone = clock.zone(self.pipeline.time_zone)
        for option, moment in (("--time-min", cleaned["starts_at"]), ("--time-max", cleaned["ends_at"])):
            if moment:
                words.append(f"{option} {moment.astimezone(zone):%Y-%m-%d-%H}")
        if cleaned["which"] == "incomplete":
            words.append("--incomplete-only")
        if self.stages:
            words.append(f"--stages {','.join(self.stages)}")
        if cleaned["force"]:
            words.append("--force")
        return " ".join([*words, "--queue"])


class PlaceForm(forms.Form):
    """The press itself: why, and which state of the blocks the page showed ("7:2,8:0": block 7 at fence 2 ...)."""

    reason = forms.CharField(required=False, max_length=500)
    seen = forms.RegexField(
        r"^(\d+:\d+(,\d+:\d+)*)?$", required=False, error_messages={"invalid": "The page was damaged on its way. Open the preview again."}
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # where a mistake is public, the one who makes it says why
        self.fields["reason"].required = settings.ENVIRONMENT == "prod"
        self.fields["reason"].error_messages["required"] = "Say why in a few words: on the production system every act leaves its reason."

    def fences(self) -> dict[int, int]:
        pairs = (pair.split(":") for pair in self.cleaned_data["seen"].split(",") if pair)
        return {int(block): int(fence) for block, fence in pairs}
