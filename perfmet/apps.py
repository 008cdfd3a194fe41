from django.apps import AppConfig
from django.db.models.signals import post_save


class PerformanceConfig(AppConfig):
    name = "perfmet"
    verbose_name = "Performance"

    def ready(self):
        # upkeep: what it defines is a kind of job, known by being imported
        from perfmet import tasks, upkeep  # noqa: F401
        from perfmet.models import SensorWatch
        from pipelines import runner

        runner.after_work.connect(tasks.hear, dispatch_uid="perfmet.hear")
        post_save.connect(tasks.keep_job, sender=SensorWatch, dispatch_uid="perfmet.keep_job")
