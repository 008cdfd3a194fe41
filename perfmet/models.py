"""What is expected of sensors, and what came: a watch on a pipeline, and an observation for each sensor and day.

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
