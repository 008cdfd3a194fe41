"""Addresses of the pages of performance and of quality."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from perfmet import quality_views as quality
from perfmet import views


class SensorName(StringConverter):
    """Whatever a source calls a sensor: with slashes, with line breaks, or nothing at all."""

    regex = r"[\s\S]*"


register_converter(SensorName, "sensor")

urlpatterns = [
    path("quality/", quality.league, name="quality"),
    path("quality/table/", quality.table, name="quality-table"),
    path("quality/table/score/", quality.score_now, name="quality-score-now"),
    path("quality/improve/", quality.improve, name="quality-improve"),
    path("performance/", views.performance, name="performance"),
    path("performance/health/", views.health_board, name="health-board"),
    path("performance/map/", views.sensor_map, name="sensor-map"),
    path("performance/sensors/<slug:slug>/", views.sensors, name="sensors"),
    path("performance/sensors/<slug:slug>/of/<sensor:sensor>/", views.sensor, name="sensor"),
]
