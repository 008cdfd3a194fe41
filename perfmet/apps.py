from django.apps import AppConfig


class PerformanceConfig(AppConfig):
    name = "perfmet"
    verbose_name = "Performance"
