"""How data moves: providers, pipelines, the blocks of time that they owe, and what became of each.

A block's life is in `blocks.py`, the only module that changes a block's state.
"""

import re

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.urls import reverse

from catalog.models import BoundaryLayer, Dataset, DatasetColumn
from pipelines import clock, secrets
from pipelines.connectors import base as connectors
from pipelines.connectors import connector_for
from pipelines.errors import SetupError

identifier = RegexValidator(r"^[a-z_][a-z0-9_]{0,62}$", "Use small letters, digits and underscores, not beginning with a digit (63 at most).")


class Stage(models.TextChoices):
    """The steps of the corridor, in their order; a pipeline names the ones that it has."""

    EXTRACT = "extract", "extract"
    STANDARDIZE = "standardize", "standardize"
    ENRICH = "enrich", "enrich"
    AGGREGATE = "aggregate", "aggregate"
    LOAD = "load", "load"
    PUBLISH = "publish", "publish"


STAGE_ORDER = [stage.value for stage in Stage]


class State(models.TextChoices):
    WAITING = "waiting", "Waiting"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"
    HELD = "held", "Held"


class Trigger(models.TextChoices):
    SCHEDULE = "schedule", "schedule"
    BUTTON = "button", "button"
    COMMAND = "command", "command"


class Provider(models.Model):
    """An account on an outside system: a source, a portal, or both."""

    slug = models.SlugField(max_length=80, unique=True)
    title = models.CharField(max_length=200)
    kind = models.CharField(max_length=40)
    base_url = models.CharField("address", max_length=500)
    parameters = models.JSONField(default=dict, blank=True)
    secrets = models.JSONField(default=dict, blank=True, help_text="Name to env:NAME, or to an encrypted value.")
    time_zone = models.CharField(max_length=60, default="UTC", validators=[clock.validate_zone])
    max_parallel = models.PositiveSmallIntegerField(
        "blocks at once", default=2, validators=[MinValueValidator(1), MaxValueValidator(50)], help_text="More would only make it slower, or angry."
    )
    is_active = models.BooleanField(default=True)
    blocked_until = models.DateTimeField(null=True, blank=True, help_text="It asked us to wait until then.")
    contact = models.CharField(max_length=200, blank=True, help_text="Whom to call when it is down.")

    class Meta:
        ordering = ["title"]

    def __str__(self):
        return self.title

    @property
    def connector_class(self) -> type[connectors.Connector]:
        return connector_for(self.kind)

    def account(self) -> connectors.Account:
        """Plain values for a connector, secrets resolved. Raises SetupError where a secret can't be read."""
        opened = {}
        for name, stored in self.secrets.items():
            try:
                opened[name] = secrets.reveal(stored)
            except SetupError as error:
                raise SetupError(f"Provider {self.slug}, secret {name!r}: {error.message}", code=error.code, next_step=error.next_step) from error
        return connectors.Account(slug=self.slug, base_url=self.base_url, parameters=self.parameters, secrets=opened, time_zone=self.time_zone)

    def clean(self):
        try:
            known = {parameter.name: parameter for parameter in self.connector_class.parameters}
        except SetupError as error:
            raise ValidationError({"kind": error.message}) from error
        for field, is_secret in (("parameters", False), ("secrets", True)):
            given = getattr(self, field)
            if not isinstance(given, dict):
                raise ValidationError({field: "Give names and values."})
            for name in given:
                if name not in known:
                    raise ValidationError({field: f"{self.kind} has no {name!r}. It knows: {', '.join(sorted(known)) or 'none'}."})
                if known[name].secret != is_secret:
                    raise ValidationError({field: f"{name!r} belongs to the {'secrets' if known[name].secret else 'parameters'}."})


class Cadence(models.TextChoices):
    HOURLY = "hourly", "Every hour"
    DAILY = "daily", "Every day"
    WEEKLY = "weekly", "Every week"
    MONTHLY = "monthly", "Every month"
    CRON = "cron", "By a cron expression"
    ONCE = "once", "Once, when it is made"
    MANUAL = "manual", "Only by hand"


class LoadMode(models.TextChoices):
    UPSERT = "upsert", "Insert and update by key"
    REPLACE = "replace", "Replace the rows of the window"
    APPEND = "append", "Only add rows"


class Gone(models.TextChoices):
    """What becomes of rows that the source no longer has."""

    KEEP = "keep", "Keep them, and say how many"
    DELETE = "delete", "Delete them, here and on the portal"


class Drift(models.TextChoices):
    """What becomes of a load whose source has other columns than before."""

    WIDEN = "widen", "Widen the table and go on"
    STOP = "stop", "Stop until a person accepts the new columns"


class PortalMode(models.TextChoices):
    UPSERT = "upsert", "Insert and update by key"
    REPLACE = "replace", "Replace all rows at once"


class RawNames(models.TextChoices):
    """How the raw files of a pipeline are named in the lake."""

    OWN = "own", "By dataset, day and fingerprint"
    ATD_MDS = "atd-mds", "As atd-mds: stage/provider/year/month/day/hour/trips.json, local time"
    ATD_DATA_LAKE = "atd-data-lake", "As atd-data-lake: raw/year/month/day/bt/Austin_bt_2026-11-20_unmatched.txt, local day"


def default_stages():
    return [Stage.EXTRACT, Stage.LOAD, Stage.PUBLISH]


class PipelineQuerySet(models.QuerySet):
    def active(self):
        """Pipelines that the schedule may run."""
        return self.filter(is_paused=False, provider__is_active=True)


class Pipeline(models.Model):
    """One provider feeding one dataset.

    With a `window_column` each block holds the rows whose value of it lies in the block's span. Without one the source is
    a *snapshot*: every block reads the whole of it, and only the newest block is worth running. A snapshot with a
    `watermark_column` reads only what changed since the last load, and an overlap; now and then it compares all keys.
    """

    slug = models.SlugField(max_length=80, unique=True)
    title = models.CharField(max_length=200)
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="pipelines")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="pipelines")
    part = models.CharField(
        "part of the dataset", max_length=200, blank=True, help_text="Which table of the dataset it fills, where there are several: a CKAN resource."
    )
    resource = models.CharField(max_length=500, help_text="What to fetch there: a Socrata 4x4, an address, a file pattern.")
    format = models.CharField(max_length=20, default="csv")
    stages = models.JSONField(default=default_stages)

    cadence = models.CharField(max_length=10, choices=Cadence, default=Cadence.DAILY)
    due_time = models.TimeField(null=True, blank=True, help_text="Local time of day at which a block is due.")
    cron = models.CharField(
        max_length=100, blank=True, validators=[clock.validate_cron], help_text="For that cadence: minute hour day month weekday, like 20 7 * * 4."
    )
    settle_minutes = models.PositiveIntegerField(default=0, help_text="How long after its end a window may still change at the source.")
    time_zone = models.CharField(max_length=60, default="UTC", validators=[clock.validate_zone])
    starts_on = models.DateField(null=True, blank=True, help_text="The first day that is owed. Empty: the day it was made.")

    key = models.JSONField(default=list, blank=True, help_text="Columns that name a row. Without them the rows of a window are replaced.")
    window_column = models.CharField(max_length=63, blank=True)
    version_column = models.CharField(max_length=63, blank=True, help_text="Of two rows with one key the one with the later value wins.")
    columns = models.JSONField(default=list, blank=True, help_text="Columns to take, in order. Empty: all that the source names.")
    types = models.JSONField(default=dict, blank=True, help_text="Column to type, where the source's own word is wrong.")
    page_size = models.PositiveIntegerField(default=50_000, validators=[MinValueValidator(1)])
    pages_in_flight = models.PositiveSmallIntegerField(default=3, validators=[MinValueValidator(1), MaxValueValidator(16)])

    warehouse = models.CharField(max_length=40, default="default")
    table = models.CharField(max_length=63, validators=[identifier])
    load_mode = models.CharField(max_length=10, choices=LoadMode, default=LoadMode.UPSERT)
    watermark_column = models.CharField(
        max_length=63, blank=True, help_text="Read only rows whose value of it is as new as the newest loaded. `:updated_at` is Socrata's own."
    )
    overlap_minutes = models.PositiveIntegerField(default=1440, help_text="How far before the watermark to read again: sources write late.")
    since = models.CharField(max_length=40, blank=True, help_text="Where an empty table begins, like 2020-09-20T01:39:13. Empty: all rows.")
    compare_days = models.PositiveSmallIntegerField(
        default=7, help_text="After so many days all keys are compared with the source's, to find deleted rows. 0: never."
    )
    gone_rows = models.CharField("rows gone at the source", max_length=10, choices=Gone, default=Gone.KEEP)
    drift = models.CharField("changed columns", max_length=10, choices=Drift, default=Drift.WIDEN)
    watch_volume = models.BooleanField(default=True, help_text="Call a block suspicious whose rows are far from the usual number.")

    portal = models.ForeignKey(Provider, null=True, blank=True, on_delete=models.PROTECT, related_name="publishes")
    portal_resource = models.CharField(max_length=500, blank=True)
    portal_mode = models.CharField(max_length=10, choices=PortalMode, default=PortalMode.UPSERT)
    publish_chunk = models.PositiveIntegerField(default=10_000, validators=[MinValueValidator(1)])
    release = models.JSONField(
        default=list,
        blank=True,
        help_text="What the portal gets instead of the table's columns: a list of columns, each with its rule. Empty: as it is.",
    )
    private_columns = models.JSONField(default=list, blank=True, help_text="Columns that must never leave as they are.")
    release_k = models.PositiveSmallIntegerField(
        "smallest group", default=0, help_text="Areas with fewer rows than this in a block are left blank on the portal. 0: none."
    )
    surrogate_key = models.CharField(
        max_length=500, blank=True, editable=False, help_text="Encrypted; makes the public ids. A new one makes new ids."
    )
    raw_names = models.CharField("names of raw files", max_length=20, choices=RawNames, default=RawNames.OWN)
    data_source = models.CharField(
        max_length=40, blank=True, help_text="What its metrics are gathered under, for example Bluetooth. Several pipelines may share one."
    )
    inventory = models.CharField(max_length=40, blank=True, help_text="The code of the inventory that its rows are matched with, for example bt.")
    options = models.JSONField(default=dict, blank=True, help_text="What its format wants to know: names and values.")
    twin_of = models.OneToOneField(
        "self", null=True, blank=True, editable=False, on_delete=models.CASCADE, related_name="twin", help_text="The pipeline that it tries out."
    )

    priority = models.SmallIntegerField(default=0, help_text="Higher goes first.")
    max_attempts = models.PositiveSmallIntegerField(default=5, validators=[MinValueValidator(1)])
    deadline_minutes = models.PositiveIntegerField(default=60, validators=[MinValueValidator(1), MaxValueValidator(210)])
    is_paused = models.BooleanField(default=False)
    paused_reason = models.CharField(max_length=300, blank=True)

    # what a snapshot pipeline knows of its source and its portal; a windowed one keeps it on the block
    source_version = models.CharField(max_length=200, blank=True, editable=False)
    published_seq = models.BigIntegerField(default=0, editable=False)
    described = models.CharField(max_length=64, blank=True, editable=False, help_text="The sha256 of the description that the portal has.")
    watermark = models.CharField(max_length=40, blank=True, editable=False, help_text="The newest value of the watermark column that was loaded.")
    compared_at = models.DateTimeField(null=True, editable=False, help_text="When all its keys were last compared with the source's.")
    accepted_columns = models.JSONField(default=list, editable=False, help_text="The source's columns that were last accepted: name and type.")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PipelineQuerySet.as_manager()

    class Meta:
        ordering = ["title"]
        permissions = [("operate", "Can run, force, cancel and hold blocks")]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("pipeline", args=[self.slug])

    @property
    def is_snapshot(self) -> bool:
        return not self.window_column

    @property
    def is_test(self) -> bool:
        """Its files lie in the repositories that end in -test, and what it publishes goes to a place of its own."""
        return self.twin_of_id is not None

    @property
    def rhythm(self) -> str:
        """The cadence as `clock.windows` takes it: a cron expression is itself."""
        return self.cron if self.cadence == Cadence.CRON else self.cadence

    def dictionary(self) -> list[DatasetColumn]:
        """The lines of the dataset's dictionary that speak of the table that this pipeline fills, in their order."""
        return [column for column in self.dataset.columns.all() if column.part == self.part]

    @staticmethod
    def table_of(slug: str) -> str:
        """The table that a pipeline of this slug loads where nobody names one: "311-calls" loads "_311_calls"."""
        table = re.sub(r"[^a-z0-9_]", "_", slug.lower())[:62]
        return f"_{table}" if table[:1].isdigit() else table

    def clean(self):
        unknown = [stage for stage in self.stages if stage not in STAGE_ORDER] if isinstance(self.stages, list) else [self.stages]
        if unknown or not self.stages:
            raise ValidationError({"stages": f"Name stages out of {', '.join(STAGE_ORDER)}; not {unknown or 'none'}."})
        if self.stages != [stage for stage in STAGE_ORDER if stage in self.stages]:
            raise ValidationError({"stages": f"The order is {', '.join(STAGE_ORDER)}."})
        if Stage.PUBLISH in self.stages and not (self.portal_id and self.portal_resource):
            raise ValidationError({"portal": "The publish stage needs a portal and what to publish to there."})
        for name in ("key", "columns"):
            if not isinstance(getattr(self, name), list) or not all(isinstance(item, str) for item in getattr(self, name)):
                raise ValidationError({name: "Give a list of column names."})
        for column, kind in self.types.items() if isinstance(self.types, dict) else [("types", self.types)]:
            if kind not in connectors.COLUMN_TYPES:
                raise ValidationError({"types": f"{column}: {kind!r} is not one of {', '.join(connectors.COLUMN_TYPES)}."})
        if self.load_mode == LoadMode.UPSERT and not self.key:
            raise ValidationError({"key": "Insert and update by key needs a key. Without one, choose to replace the rows of the window."})
        if self.load_mode != LoadMode.UPSERT and self.key:
            raise ValidationError({"load_mode": "Rows with a key are inserted and updated by it. To replace or only add rows, leave the key empty."})
        if not isinstance(self.private_columns, list) or not all(isinstance(item, str) for item in self.private_columns):
            raise ValidationError({"private_columns": "Give a list of column names."})
        if (self.cadence == Cadence.CRON) != bool(self.cron):
            raise ValidationError({"cron": "A cron expression goes with the cadence “By a cron expression”, and that cadence with an expression."})
        if self.watermark_column and self.window_column:
            raise ValidationError({"watermark_column": "A pipeline reads by windows or by a watermark, not by both."})

    def save(self, *args, **kwargs):
        # another portal has seen nothing yet: what the old one acknowledged says nothing about it
        if self.pk and Pipeline.objects.filter(pk=self.pk).exclude(portal=self.portal_id, portal_resource=self.portal_resource).exists():
            self.published_seq = 0
            self.blocks.update(published_seq=0)
        super().save(*args, **kwargs)


class BlockQuerySet(models.QuerySet):
    def due(self, now):
        """Blocks that somebody should take now."""
        return self.filter(state=State.WAITING, due_at__lte=now)

    def stalled(self, now):
        """Running blocks whose worker has said nothing for longer than its lease."""
        return self.filter(state=State.RUNNING, lease_until__lt=now)

    def running(self):
        return self.filter(state=State.RUNNING)

    def failed_for_good(self):
        """Failed, and nothing since has made up for it."""
        return self.filter(state=State.FAILED, superseded_at=None)


class ScheduleBlock(models.Model):
    """One span of time that a pipeline owes: `stage` is where it goes next, `state` is what it is now.

    `starts_at` and `ends_at` are UTC instants, half-open. `stages` are the stages of the present pass; `fence` counts the
    claims, so that a worker whose lease ran out can be told from its successor.
    """

    class Mark(models.TextChoices):
        NONE = "", "–"
        EMPTY = "empty", "complete and empty"
        UNCHANGED = "unchanged", "source unchanged"
        SUSPICIOUS = "suspicious", "suspicious"
        NO_SERVICE = "no-service", "provider not in service"

    pipeline = models.ForeignKey(Pipeline, on_delete=models.PROTECT, related_name="blocks")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    stage = models.CharField(max_length=12, choices=Stage, default=Stage.EXTRACT)
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    mark = models.CharField(max_length=10, choices=Mark, blank=True, default="")
    due_at = models.DateTimeField()
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Claims of the present stage since it last went well.")

    # the present pass: what was asked, and by whom
    stages = models.JSONField(default=list)
    is_forced = models.BooleanField(default=False)
    is_rebuild = models.BooleanField(default=False, help_text="The pass reads everything and puts a new table in the place of the old.")
    trigger = models.CharField(max_length=10, choices=Trigger, default=Trigger.SCHEDULE)
    asked_by = models.CharField(max_length=150, default="schedule")
    asked_because = models.TextField(blank=True)

    # the lease
    holder = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True)
    fence = models.BigIntegerField(default=0)
    cancel_asked_at = models.DateTimeField(null=True)
    cancel_asked_by = models.CharField(max_length=150, blank=True)

    # what a person reads
    message = models.TextField(blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    next_step = models.TextField(blank=True)
    progress_done = models.BigIntegerField(null=True)
    progress_total = models.BigIntegerField(null=True)
    rows = models.BigIntegerField(null=True, help_text="Rows that the source had for this window, when it was last read.")
    rejected = models.BigIntegerField(default=0, help_text="Rows of the present pass that were rejected, by all its stages.")
    flags = models.JSONField(default=dict, blank=True, help_text="What is odd about its rows: kind to number of rows.")

    source_version = models.CharField(max_length=200, blank=True)
    published_seq = models.BigIntegerField(default=0)
    rung_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    superseded_at = models.DateTimeField(null=True)

    objects = BlockQuerySet.as_manager()

    class Meta:
        ordering = ["pipeline", "-starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "starts_at"], name="block_once_per_window"),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="block_window_forward"),
            models.CheckConstraint(
                condition=(Q(state=State.RUNNING) & Q(lease_until__isnull=False) & ~Q(holder=""))
                | (~Q(state=State.RUNNING) & Q(lease_until__isnull=True) & Q(holder="")),
                name="block_running_iff_leased",
            ),
            models.CheckConstraint(condition=Q(state__in=State.values), name="block_state_known"),
            models.CheckConstraint(condition=~Q(state=State.DONE) | Q(finished_at__isnull=False), name="block_done_has_an_end"),
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(state=State.WAITING), name="block_waiting_by_due"),
            models.Index(fields=["lease_until"], condition=Q(state=State.RUNNING), name="block_running_by_lease"),
            models.Index(fields=["pipeline", "state"], condition=~Q(state=State.DONE), name="block_not_done"),
            models.Index(fields=["starts_at"], name="block_by_start"),
        ]

    def __str__(self):
        return f"{self.pipeline.slug} {clock.window_text(self.starts_at, self.ends_at, self.pipeline.time_zone)}"

    def get_absolute_url(self):
        return reverse("block", args=[self.pk])

    @property
    def upstream_status(self) -> int:
        """The number that atd-mds would give: 0 new, 2 extracted, 5 loaded, 6 loaded with rejected rows, -6 all rows rejected, -5 not loaded,
        7 no data, 8 published, -8 not published. That an hour with rejected rows was published is 8, and `rejected` tells the rest.
        """
        if self.state == State.DONE:
            if self.mark in (self.Mark.EMPTY, self.Mark.NO_SERVICE):
                return 7
            owed = self.pipeline.stages
            return 8 if Stage.PUBLISH in owed else self._loaded_status() if Stage.LOAD in owed else 2
        if self.stage == Stage.EXTRACT:
            return 0  # a failure there leaves nothing behind
        failed = self.state == State.FAILED
        if self.stage == Stage.PUBLISH:
            return -8 if failed else self._loaded_status()
        return -5 if failed else 2

    def _loaded_status(self) -> int:
        """How the load went, where it went to its end."""
        if self.rows == 0:
            return 7
        if not self.rejected:
            return 5
        return -6 if self.rows is not None and self.rejected >= self.rows else 6


class RunState(models.TextChoices):
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    UNCHANGED = "unchanged", "Unchanged"
    WAITING = "waiting", "Not ready"
    FAILED = "failed", "Failed"
    CRASHED = "crashed", "Crashed"
    CANCELLED = "cancelled", "Cancelled"


#: The counts of a stage, in the order in which they are printed; `run --json` and `status --json` promise these names.
COUNTS = ("rows_in", "rows_out", "inserted", "updated", "unchanged", "deleted", "rejected", "duplicates", "published")


class Run(models.Model):
    """One attempt at one stage of one block. Rows are conserved: rows_in = rows_out + unchanged + rejected + duplicates."""

    block = models.ForeignKey(ScheduleBlock, on_delete=models.PROTECT, related_name="runs")
    stage = models.CharField(max_length=12, choices=Stage)
    state = models.CharField(max_length=10, choices=RunState, default=RunState.RUNNING)
    attempt = models.PositiveSmallIntegerField()
    fence = models.BigIntegerField()
    trigger = models.CharField(max_length=10, choices=Trigger)
    asked_by = models.CharField(max_length=150)
    asked_because = models.TextField(blank=True)
    is_forced = models.BooleanField(default=False)
    is_rebuild = models.BooleanField(default=False)
    holder = models.CharField(max_length=120)
    queued_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    beat_at = models.DateTimeField(db_default=Now())

    rows_in = models.BigIntegerField(default=0)
    rows_out = models.BigIntegerField(default=0)
    inserted = models.BigIntegerField(default=0)
    updated = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    deleted = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    duplicates = models.BigIntegerField(default=0)
    published = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    details = models.JSONField(default=dict, blank=True)

    message = models.TextField(blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    next_step = models.TextField(blank=True)
    superseded_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["block"], condition=Q(state=RunState.RUNNING), name="run_one_running_per_block"),
            models.UniqueConstraint(fields=["block", "fence"], name="run_one_per_claim"),
            models.CheckConstraint(
                condition=~Q(state__in=[RunState.DONE, RunState.UNCHANGED])
                | Q(rows_in=F("rows_out") + F("unchanged") + F("rejected") + F("duplicates")),
                name="run_rows_are_conserved",
            ),
            models.CheckConstraint(condition=Q(state=RunState.RUNNING) | Q(finished_at__isnull=False), name="run_ended_has_an_end"),
        ]
        indexes = [models.Index(fields=["-started_at"], name="run_by_start"), models.Index(fields=["block", "stage", "-id"], name="run_by_stage")]

    def __str__(self):
        return f"run {self.pk}"

    @property
    def seconds(self) -> float | None:
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNTS}


class LogLine(models.Model):
    """A line of a run's story, redacted before it is written."""

    class Level(models.TextChoices):
        INFO = "info", "info"
        WARNING = "warning", "warning"
        ERROR = "error", "error"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="lines")
    at = models.DateTimeField(db_default=Now())
    level = models.CharField(max_length=8, choices=Level, default=Level.INFO)
    text = models.TextField()

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.text


class ImportLog(models.Model):
    """The diary of a load: begin, a row a chunk, end or failed. A load without an end or a failure is one that died."""

    class Event(models.TextChoices):
        BEGIN = "begin", "Begin"
        CHUNK = "chunk", "Chunk"
        END = "end", "End"
        FAILED = "failed", "Failed"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="import_log")
    pipeline = models.ForeignKey(Pipeline, on_delete=models.PROTECT, related_name="import_log")
    at = models.DateTimeField(db_default=Now())
    event = models.CharField(max_length=8, choices=Event)
    file = models.CharField(max_length=600, blank=True)
    table = models.CharField(max_length=130)
    offset = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    total = models.BigIntegerField(null=True)
    message = models.TextField(blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["pipeline", "-id"], name="import_log_by_pipeline")]

    def __str__(self):
        return f"{self.event} {self.file}"


class RejectedRow(models.Model):
    """A row that was rejected: why, the value, and where it stands; kept until it is replayed."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="rejected_rows")
    block = models.ForeignKey(ScheduleBlock, on_delete=models.PROTECT, related_name="rejected_rows")
    reason = models.CharField(max_length=300)
    column = models.CharField(max_length=63, blank=True)
    value = models.TextField(blank=True, help_text="The raw value, the first 1,000 characters of it.")
    row_key = models.CharField(max_length=300, blank=True)
    raw = models.JSONField(default=dict, help_text="The whole row as it came: column to text.")
    file = models.CharField(max_length=600)
    line = models.BigIntegerField(help_text="Line of the file on which the row begins; the header is line 1.")
    at = models.DateTimeField(db_default=Now())
    replayed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["pk"]
        indexes = [models.Index(fields=["block", "run"], name="rejected_by_block")]

    def __str__(self):
        return f"{self.file}:{self.line} {self.reason}"


class AfterStep(models.Model):
    """Something to do after a load or at a block's end. It has a state of its own and never fails the load."""

    class Kind(models.TextChoices):
        REFRESH = "refresh", "Refresh a materialized view"
        ANALYZE = "analyze", "Renew the planner's statistics (ANALYZE)"
        VACUUM = "vacuum", "Reclaim the space of dead rows (VACUUM)"
        POST = "post", "POST to an address (clear a cache)"
        RELOAD = "reload", "Open an address and look for an answer (reload a report)"
        NOTIFY = "notify", "Tell a Slack-compatible webhook how the block ended"

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="after_steps")
    position = models.PositiveSmallIntegerField(default=0)
    kind = models.CharField(max_length=10, choices=Kind)
    target = models.CharField(max_length=500, blank=True, help_text="The view, or the address. A webhook's address is a secret: give it below.")
    expect = models.CharField(max_length=200, blank=True, help_text="Words that the answer must hold.")
    secret = models.CharField(max_length=1000, blank=True, help_text="env:NAME, or an encrypted value.")
    prefix = models.CharField(max_length=80, blank=True, help_text="Before a notice's text, for example Testing.")
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ["pipeline", "position", "pk"]

    def __str__(self):
        return f"{self.get_kind_display()} {self.target}".strip()


class AfterRun(models.Model):
    """One time that a step was due: waiting, running, done, failed. The runner's and the tick's `upkeep.after` carry it out."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        SKIPPED = "skipped", "Skipped"

    step = models.ForeignKey(AfterStep, on_delete=models.CASCADE, related_name="runs")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="after")
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    asked_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    message = models.TextField(blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["step", "run"], name="after_run_once")]
        indexes = [models.Index(fields=["asked_at"], condition=Q(state__in=["waiting", "running"]), name="after_run_not_ended")]

    def __str__(self):
        return f"{self.step} {self.state}"


class Enrichment(models.Model):
    """A column that the enrich stage adds: the key of the area in which a row's point lies."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="enrichments")
    position = models.PositiveSmallIntegerField(default=0)
    layer = models.ForeignKey(BoundaryLayer, on_delete=models.PROTECT, related_name="enrichments")
    lon_column = models.CharField("longitude", max_length=63)
    lat_column = models.CharField("latitude", max_length=63)
    column = models.CharField("new column", max_length=63, validators=[identifier])

    class Meta:
        ordering = ["pipeline", "position", "pk"]
        constraints = [models.UniqueConstraint(fields=["pipeline", "column"], name="enrichment_column_once")]

    def __str__(self):
        return f"{self.column} from {self.layer}"


class Notices(models.TextChoices):
    """Which of a job's findings its webhook is told."""

    ALWAYS = "always", "Whatever it has to say"
    TROUBLE = "trouble", "Only trouble, and its end"
    NEVER = "never", "Nothing"


class UpkeepJob(models.Model):
    """Something that is done now and then beside the blocks: a nightly heal, a resync, a report. `kind` names a class of `upkeep.jobs`."""

    kind = models.CharField(max_length=40)
    title = models.CharField(max_length=200)
    pipelines = models.ManyToManyField(Pipeline, blank=True, related_name="upkeep_jobs", help_text="None: all that the kind can work on.")
    options = models.JSONField(default=dict, blank=True)
    cadence = models.CharField(max_length=10, choices=Cadence, default=Cadence.DAILY)
    cron = models.CharField(
        max_length=100, blank=True, validators=[clock.validate_cron], help_text="For that cadence: minute hour day month weekday, like 5 4-14 * * *."
    )
    at_time = models.TimeField(null=True, blank=True, help_text="Local time of day.")
    day = models.PositiveSmallIntegerField(default=1, help_text="Day of the week (1 = Monday) or of the month, where the cadence has one.")
    time_zone = models.CharField(max_length=60, default="UTC", validators=[clock.validate_zone])
    is_active = models.BooleanField(default=True)
    notices = models.CharField(
        max_length=8, choices=Notices, default=Notices.ALWAYS, help_text="Whether a webhook is told what it found, where there is one."
    )
    webhook = models.CharField(max_length=500, blank=True, help_text="env:NAME, or an address, which is kept encrypted.")
    next_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["title"]
        constraints = [models.UniqueConstraint(fields=["title"], name="upkeep_title_once")]

    def __str__(self):
        return self.title


class UpkeepRun(models.Model):
    """One time that a job was done, or was tried."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    job = models.ForeignKey(UpkeepJob, on_delete=models.CASCADE, related_name="runs")
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    trigger = models.CharField(max_length=10, choices=Trigger, default=Trigger.SCHEDULE)
    asked_by = models.CharField(max_length=150, default="schedule")
    asked_because = models.TextField(blank=True)
    asked_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    beat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    is_dry = models.BooleanField("only looked", default=False, help_text="It changed nothing, here and elsewhere, and told nobody.")
    message = models.TextField(blank=True)
    details = models.JSONField(default=dict, blank=True)
    notice = models.TextField(blank=True, help_text="What a webhook was to be told, in Slack's words.")
    noticed = models.CharField(max_length=300, blank=True, help_text="What became of that.")

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["job", "-id"], name="upkeep_run_by_job")]
        constraints = [models.UniqueConstraint(fields=["job"], condition=Q(state__in=["waiting", "running"]), name="upkeep_one_at_a_time")]

    def __str__(self):
        return f"{self.job} {self.state}"


class Reconciliation(models.Model):
    """The rows that a portal should have of a span of time, against those that it has. `differences` keeps the first of them, with their kind."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="reconciliations")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    at = models.DateTimeField(db_default=Now())
    asked_by = models.CharField(max_length=150, default="schedule")
    warehouse_rows = models.BigIntegerField(default=0)
    portal_rows = models.BigIntegerField(default=0)
    missing = models.BigIntegerField(default=0, help_text="In the warehouse, not on the portal.")
    extra = models.BigIntegerField(default=0, help_text="On the portal, not in the warehouse.")
    changed = models.BigIntegerField(default=0, help_text="On both, with other values.")
    differences = models.JSONField(default=list, blank=True)
    blocks = models.JSONField(default=list, blank=True, help_text="The numbers of the blocks that would have to be published again.")
    repaired_at = models.DateTimeField(null=True)
    repaired_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["pipeline", "-id"], name="reconciliation_by_pipeline")]

    def __str__(self):
        return f"{self.pipeline} {self.at:%Y-%m-%d %H:%M}"

    @property
    def is_equal(self) -> bool:
        return not (self.missing or self.extra or self.changed)


class RegisteredOperator(models.Model):
    """A line of a registry of mobility operators, such as the MDS providers.csv: who is behind a provider id."""

    operator_id = models.CharField(max_length=40)
    name = models.CharField(max_length=200)
    mode = models.CharField(max_length=60, blank=True)
    url = models.CharField("website", max_length=500, blank=True)
    mds_api_url = models.CharField("MDS address", max_length=500, blank=True)
    gbfs_api_url = models.CharField("GBFS address", max_length=500, blank=True)

    class Meta:
        ordering = ["name", "mode"]
        constraints = [models.UniqueConstraint(fields=["operator_id", "mode"], name="operator_once")]

    def __str__(self):
        return f"{self.name} ({self.mode})" if self.mode else self.name


class Pulse(models.Model):
    """The last sign of life of a part of the machinery: the tick, the queue's canary, each worker host."""

    name = models.CharField(max_length=120, unique=True)
    at = models.DateTimeField(db_default=Now())
    details = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name
