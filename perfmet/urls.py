"""Addresses of the pages of performance."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from perfmet import views


class SensorName(StringConverter):
    """Whatever a source calls a sensor: with slashes, with line breaks, or nothing at all."""

    regex = r"[\s\S]*"


register_converter(SensorName, "sensor")

urlpatterns = [
    path("performance/", views.performance, name="performance"),
    path("performance/health/", views.health_board, name="health-board"),
    path("performance/map/", views.sensor_map, name="sensor-map"),
    path("performance/sensors/<slug:slug>/", views.sensors, name="sensors"),
    path("performance/sensors/<slug:slug>/of/<sensor:sensor>/", views.sensor, name="sensor"),
]
