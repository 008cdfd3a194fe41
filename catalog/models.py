"""What the city holds: datasets, their columns, the files in the lake, and who did what to them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse


class RefreshRate(models.TextChoices):
    """How often the public was promised new data."""

    REAL_TIME = "real-time", "Real-time"
    HOURLY = "hourly", "Hourly"
    DAILY = "daily", "Daily"
    WEEKLY = "weekly", "Weekly"
    FORTNIGHTLY = "fortnightly", "Every two weeks"
    MONTHLY = "monthly", "Monthly"
    QUARTERLY = "quarterly", "Quarterly"
    HALF_YEARLY = "half-yearly", "Twice a year"
    YEARLY = "yearly", "Yearly"
    IRREGULAR = "irregular", "As needed"
    NEVER = "never", "Will not be refreshed"


class Dataset(models.Model):
    """A thing the city publishes and describes. It may have several parts (a CKAN package has resources), each a table of its own."""

    class Access(models.TextChoices):
        PUBLIC = "public", "Public"
        INTERNAL = "internal", "Internal"
        RESTRICTED = "restricted", "Restricted"

    class Category(models.TextChoices):
        """What the public gets of it. Of a document or a website the files are judged, of the others their rows."""

        TABLE = "Table", "Table"
        MAP = "Map", "Map"
        DOCUMENT = "Document", "Document"
        WEBSITE = "Website", "Website"

    slug = models.SlugField(max_length=100, unique=True)
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    excerpt = models.TextField(blank=True, help_text="The description in a sentence or two, for lists.")
    limitations = models.TextField(blank=True, help_text="What it can't be used for, and what is not in it.")
    collection_method = models.TextField(blank=True, help_text="How the data comes about.")
    information_url = models.CharField("more about it", max_length=1000, blank=True, help_text="The address of a page that tells more.")
    category = models.CharField(max_length=12, choices=Category, blank=True)
    topics = models.JSONField(default=list, blank=True, help_text="A list of subjects, as the portal knows them.")
    civic_issues = models.JSONField(default=list, blank=True, help_text="A list of the civic issues that it speaks to.")
    department = models.CharField(max_length=200, blank=True)
    section = models.CharField(max_length=200, blank=True, help_text="The part of the department.")
    unit = models.CharField(max_length=200, blank=True, help_text="The part of the section.")
    steward = models.CharField(max_length=120, blank=True, help_text="Who answers for this dataset.")
    steward_email = models.EmailField(blank=True)
    licence = models.CharField(max_length=200, blank=True, help_text="Name or address of the licence.")
    refresh_rate = models.CharField(max_length=12, choices=RefreshRate, default=RefreshRate.IRREGULAR)
    promise_time = models.TimeField(null=True, blank=True, help_text="By what local time new data is promised, for example 07:00.")
    access = models.CharField(max_length=12, choices=Access, default=Access.PUBLIC)
    tags = models.CharField(max_length=1000, blank=True, help_text="Words that people search for, separated by commas.")
    engineer = models.CharField(max_length=200, blank=True, help_text="Who is told when its pipelines fail.")
    engineer_email = models.EmailField(blank=True)
    organization = models.CharField(max_length=200, blank=True, help_text="Under whose name the portal shows it. Empty: the portal's own setting.")
    published_on = models.DateTimeField("first published", null=True, blank=True)
    is_retired = models.BooleanField(default=False, help_text="It is not kept up any more: nothing is owed, and it is not judged.")
    portal_fields = models.JSONField(
        default=dict, blank=True, help_text="What else its portal is to say of it: names and values, as the portal knows them."
    )
    chart_rows = models.CharField(max_length=63, blank=True, help_text="The column whose values are the rows of the dataset's chart.")
    chart_columns = models.CharField(max_length=63, blank=True, help_text="The column whose values are its columns; of a date, its year.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["title"]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("dataset", args=[self.slug])


class DatasetColumn(models.Model):
    """One line of a dataset's dictionary. What extract learns of a source is written here; a person's words are kept.

    `part` is the part of the dataset that has the column, as its pipelines name it; "" where the dataset is one table.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="columns")
    part = models.CharField(max_length=200, blank=True, help_text="The part of the dataset that has it. Empty: the only one.")
    position = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=63)
    label = models.CharField(max_length=200, blank=True)
    type = models.CharField(max_length=20, default="text")
    portal_type = models.CharField(
        max_length=20, blank=True, help_text="Its type on a portal that has finer ones: int, float, date, timestamp, json, text."
    )
    description = models.TextField(blank=True)
    is_published = models.BooleanField(default=True, help_text="A column that must stay inside is loaded but never published.")
    seen_at = models.DateTimeField(null=True, blank=True, help_text="When the source last had this column.")
    told = models.JSONField(
        default=dict, blank=True, editable=False, help_text="What the source says of its values: count, nulls, smallest, largest."
    )

    class Meta:
        ordering = ["dataset", "part", "position", "name"]
        constraints = [models.UniqueConstraint(fields=["dataset", "part", "name"], name="dataset_column_once")]

    def __str__(self):
        return self.name


class DatasetEvent(models.Model):
    """A line of a dataset's timeline: what changed about it, at its source or on its portal."""

    class Kind(models.TextChoices):
        COLUMNS = "columns", "Columns"
        METADATA = "metadata", "Metadata"
        PORTAL = "portal", "Portal"
        ROWS = "rows", "Rows"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(db_default=Now())
    kind = models.CharField(max_length=10, choices=Kind)
    source = models.CharField(max_length=80, help_text="The slug of the pipeline that noticed it.")
    text = models.TextField()
    details = models.JSONField(default=dict, blank=True)
    run_id = models.BigIntegerField(null=True, help_text="The run that noticed it.")

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["dataset", "-id"], name="event_by_dataset")]

    def __str__(self):
        return self.text


class BoundaryLayer(models.Model):
    """Areas of the city, such as council districts: what a steward uploaded, and which property of an area is its key.

    `content` is the GeoJSON as it came, compressed with gzip; `sha256` is of the file before that. `extent` is [west, south,
    east, north] in degrees.
    """

    slug = models.SlugField(max_length=80, unique=True)
    title = models.CharField(max_length=200)
    key_property = models.CharField(max_length=100, help_text="The property of a feature that names the area, for example district_n.")
    label_property = models.CharField(max_length=100, blank=True, help_text="The property that people read. Empty: the key.")
    content = models.BinaryField(editable=False)
    sha256 = models.CharField(max_length=64, editable=False)
    areas = models.PositiveIntegerField(default=0, editable=False)
    extent = models.JSONField(default=list, editable=False)
    uploaded_at = models.DateTimeField(db_default=Now(), editable=False)
    uploaded_by = models.CharField(max_length=150, blank=True, editable=False)

    class Meta:
        ordering = ["title"]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("boundary", args=[self.slug])


class InventoryEdition(models.Model):
    """The devices and places of one kind ("bt", "wt", "gs") as they were on a day: a list of records, whole.

    Data of a day is matched with the first edition dated after it. `units` are plain records; which fields they have is
    their own affair, lat and lon in degrees are drawn on maps. `sha256` is of the canonical JSON of `units`.
    """

    code = models.CharField(max_length=40, help_text="Which inventory, for example bt.")
    dated_at = models.DateTimeField(help_text="The data of the days before this moment is matched with it.")
    units = models.JSONField(default=list)
    sha256 = models.CharField(max_length=64, editable=False)
    origin = models.CharField(max_length=500, blank=True, help_text="The file or address that it came from.")
    uploaded_at = models.DateTimeField(db_default=Now(), editable=False)
    uploaded_by = models.CharField(max_length=150, blank=True, editable=False)

    class Meta:
        ordering = ["code", "-dated_at"]
        constraints = [models.UniqueConstraint(fields=["code", "dated_at"], name="inventory_edition_once")]

    def __str__(self):
        return f"{self.code} {self.dated_at:%Y-%m-%d}"


class Layer(models.TextChoices):
    """Where in the lake a file stands on its way."""

    RAW = "raw", "raw"
    STANDARD = "standard", "standard"
    READY = "ready", "ready"
    AGGREGATED = "aggregated", "aggregated"
    BACKUP = "backup", "backup"


class CatalogEntryQuerySet(models.QuerySet):
    def live(self):
        """Files that the source still stands by."""
        return self.filter(withdrawn_at=None)


class CatalogEntry(models.Model):
    """One file in the lake: what it is, where it lies, and its fingerprint. Never changed; withdrawn when the source takes it back.

    `source` is the slug of the pipeline that brought it; `id_base` and `id_ext` are the file's name within its window.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="entries")
    source = models.CharField(max_length=80)
    layer = models.CharField(max_length=12, choices=Layer)
    id_base = models.CharField(max_length=200)
    id_ext = models.CharField(max_length=60, blank=True)
    window_start = models.DateTimeField()
    window_end = models.DateTimeField()
    pointer = models.CharField(max_length=600, unique=True, help_text="Where the file lies below the lake's address.")
    sha256 = models.CharField(max_length=64)
    bytes = models.BigIntegerField()
    rows = models.BigIntegerField(null=True)
    origin = models.CharField(max_length=2000, blank=True, help_text="The address it came from, without secrets.")
    metadata = models.JSONField(default=dict, blank=True)
    run_id = models.BigIntegerField(null=True, help_text="The run that brought it.")
    created_at = models.DateTimeField(db_default=Now())
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    objects = CatalogEntryQuerySet.as_manager()

    class Meta:
        ordering = ["-window_start", "source", "layer", "id_base", "id_ext"]
        verbose_name_plural = "catalog entries"
        constraints = [
            models.UniqueConstraint(
                fields=["source", "layer", "id_base", "id_ext", "window_start"],
                condition=Q(withdrawn_at=None),
                name="catalog_entry_one_live_file",
            ),
            models.CheckConstraint(condition=Q(window_end__gt=models.F("window_start")), name="catalog_entry_window_forward"),
            models.CheckConstraint(condition=Q(bytes__gte=0), name="catalog_entry_bytes_not_negative"),
        ]
        indexes = [models.Index(fields=["source", "window_start", "layer"], name="catalog_entry_by_window")]

    def __str__(self):
        return self.pointer

    @property
    def name(self) -> str:
        """What people call the file; one that is identified by more than a name and a suffix has the name under which it lies."""
        return f"{self.id_base}{self.id_ext}" if self.id_ext[:1] in ("", ".") else self.pointer.rpartition("/")[2]


class AuditEntry(models.Model):
    """Who did what, when and why. Written once; the database refuses to change or delete it."""

    at = models.DateTimeField(db_default=Now(), db_index=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    actor = models.CharField(max_length=150, help_text="The user's name, or the command or schedule that acted.")
    verb = models.CharField(max_length=40)
    kind = models.CharField(max_length=40, help_text="What kind of thing it was done to.")
    target = models.CharField(max_length=200)
    reason = models.TextField(blank=True)
    details = models.JSONField(default=dict, blank=True)
    result = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-at", "-pk"]
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["kind", "target", "-at"], name="audit_by_target")]

    def __str__(self):
        return f"{self.actor} {self.verb} {self.target}"
