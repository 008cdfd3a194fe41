from django.apps import AppConfig
from django.core import checks as system_checks
from django.db.models.signals import post_migrate


class OpendataOpsConfig(AppConfig):
    name = "opendata_ops"
    verbose_name = "Open Data Ops"

    def ready(self):
        from opendata_ops import accounts, checks

        for check in checks.SETTINGS:
            system_checks.register(check)
        system_checks.register(checks.database_server, system_checks.Tags.database)
        # for every app that migrates: this one has no models, so Django sends no signal in its name
        post_migrate.connect(accounts.make_groups, dispatch_uid="opendata_ops.accounts")
