"""How good the data is: what is expected of sensors and what came (a watch on a pipeline, an observation for each sensor and day),
and how good datasets are (a score for each table and run).

The job report has no table: a job is a `pipelines.Run`. Whether a sensor is well is decided in `health.py`.
"""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.urls import reverse

from pipelines.models import Pipeline


class SensorWatch(models.Model):
    """Which column of a pipeline's rows names the sensor, what is counted of it, and what is usual."""

    class Rule(models.TextChoices):
        """How the expected value of a day comes about (facts/datalake.md §5)."""

        PREVIOUS = "previous", "Mean of the days before"
        SIX_POINTS = "six-points", "Mean of the six newest days, the day itself among them, as atd-data-lake"

    pipeline = models.OneToOneField(Pipeline, on_delete=models.CASCADE, related_name="watch")
    label = models.CharField("what is counted", max_length=80, default="Rows", help_text="For example Vehicle Counts.")
    sensor_column = models.CharField(max_length=63, help_text="The column of the table that names the sensor.")
    value_column = models.CharField(max_length=63, blank=True, help_text="The column to add up. Empty: the number of rows.")
    time_column = models.CharField(max_length=63, blank=True, help_text="The column with the moment of a row. Empty: the pipeline's window column.")
    unit_field = models.CharField(
        max_length=63, blank=True, help_text="The field of the inventory that is the sensor's name, for example device_name."
    )
    rule = models.CharField("expected value", max_length=12, choices=Rule, default=Rule.PREVIOUS)
    window_days = models.PositiveSmallIntegerField(default=7, validators=[MinValueValidator(1), MaxValueValidator(366)])
    thresholds = models.JSONField(default=dict, blank=True, help_text="Where this watch differs from the settings: name and number.")
    is_active = models.BooleanField(default=True)

    class Meta:
        verbose_name_plural = "sensor watches"
        ordering = ["pipeline__title"]

    def __str__(self):
        return f"{self.label} of {self.pipeline}"

    def get_absolute_url(self):
        return reverse("sensors", args=[self.pipeline.slug])


class Health(models.TextChoices):
    """Whether a sensor is well; the reason stands beside it in words."""

    WELL = "well", "Well"
    NEW = "new", "New"
    SILENT = "silent", "Silent"
    ZERO = "zero", "All zero"
    LOW = "low", "Low"
    HIGH = "high", "High"
    PARTIAL = "partial", "Partial day"
    STALE = "stale", "No data yet"


class Observation(models.Model):
    """What one sensor gave on one local day. `rows` 0: it was expected and sent nothing. Written anew when its day is done again."""

    watch = models.ForeignKey(SensorWatch, on_delete=models.CASCADE, related_name="observations")
    sensor = models.CharField(max_length=200)
    day = models.DateField()
    value = models.FloatField(default=0)
    rows = models.BigIntegerField(default=0)
    expected = models.FloatField(null=True)
    first_at = models.DateTimeField(null=True, help_text="The moment of its first row that day.")
    last_at = models.DateTimeField(null=True)
    health = models.CharField(max_length=8, choices=Health, default=Health.WELL)
    reason = models.CharField(max_length=300, blank=True)
    unit = models.CharField(max_length=200, blank=True, help_text="What the inventory calls it, where that is not the sensor's name.")
    run_id = models.BigIntegerField(null=True, help_text="The run that saw it.")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-day", "sensor"]
        constraints = [models.UniqueConstraint(fields=["watch", "sensor", "day"], name="observation_once")]
        indexes = [models.Index(fields=["watch", "day"], name="observation_by_day")]

    def __str__(self):
        return f"{self.sensor} {self.day}"


class Grade(models.TextChoices):
    """What a score is called: at most 0.6 is Bronze, at most 0.8 Silver (facts/toronto.md §2.1)."""

    BRONZE = "Bronze", "Bronze"
    SILVER = "Silver", "Silver"
    GOLD = "Gold", "Gold"


class QualityRun(models.Model):
    """One time that datasets were scored by a model. What it found are its scores."""

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    version = models.CharField("model", max_length=20, help_text="By which model: current, 0.1.0.")
    scope = models.CharField(max_length=20, help_text="all, daily, or one.")
    place = models.CharField(max_length=80, blank=True, help_text="The slug of the portal that was read. Empty: the warehouse.")
    state = models.CharField(max_length=8, choices=State, default=State.RUNNING)
    asked_by = models.CharField(max_length=150, default="schedule")
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    message = models.TextField(blank=True)
    details = models.JSONField(default=dict, blank=True)
    published_at = models.DateTimeField(null=True, help_text="When its scores were published.")

    class Meta:
        ordering = ["-pk"]

    def __str__(self):
        return f"{self.version} of {self.place or 'the warehouse'} {self.started_at:%Y-%m-%d %H:%M}"


class QualityScore(models.Model):
    """How good one table of one dataset was at one time, and why. Never changed: the newest of a table is its score.

    `package` and `resource` are the names by which the public knows dataset and table. The dimensions are 0..1, None where the
    model has none. `codes` maps a dimension to the original's explanation code ("~no_tags"); `reasons` is a list of
    {"dimension", "code", "text", "columns"}, `gains` of {"text", "gain", "dimension", "columns"}, the largest gain first, where
    gain is what the score would rise by. `evidence` maps a column to {"reason", "sample": [values]}.
    """

    run = models.ForeignKey(QualityRun, on_delete=models.CASCADE, related_name="scores")
    pipeline = models.ForeignKey(Pipeline, null=True, on_delete=models.SET_NULL, related_name="scores")
    dataset = models.ForeignKey("catalog.Dataset", null=True, on_delete=models.SET_NULL, related_name="scores")
    version = models.CharField("model", max_length=20)
    place = models.CharField(max_length=80, blank=True)
    package = models.CharField(max_length=200)
    resource = models.CharField(max_length=200)
    resource_id = models.CharField(max_length=100, blank=True)
    title = models.CharField(max_length=300, blank=True)
    division = models.CharField(max_length=200, blank=True)
    store_type = models.CharField(max_length=10, default="datastore")
    usability = models.FloatField(null=True)
    metadata = models.FloatField(null=True)
    freshness = models.FloatField(null=True)
    completeness = models.FloatField(null=True)
    accessibility = models.FloatField(null=True)
    score = models.FloatField()
    grade = models.CharField(max_length=6, choices=Grade)
    score_norm = models.FloatField(null=True, help_text="Model 0.1.0: the score between the lowest and the highest of its run.")
    grade_norm = models.CharField(max_length=6, choices=Grade, blank=True)
    codes = models.JSONField(default=dict, blank=True)
    reasons = models.JSONField(default=list, blank=True)
    gains = models.JSONField(default=list, blank=True)
    evidence = models.JSONField(default=dict, blank=True)
    rows = models.BigIntegerField(null=True)
    columns = models.PositiveIntegerField(null=True)
    recorded_at = models.DateTimeField()

    class Meta:
        ordering = ["-recorded_at", "package", "resource"]
        constraints = [models.UniqueConstraint(fields=["run", "package", "resource"], name="score_once_a_run")]
        indexes = [
            models.Index(fields=["version", "place", "package", "resource", "-recorded_at"], name="score_by_table"),
            models.Index(fields=["dataset", "-recorded_at"], name="score_by_dataset"),
        ]

    def __str__(self):
        return f"{self.package} / {self.resource}: {self.score:.3f} {self.grade}"
