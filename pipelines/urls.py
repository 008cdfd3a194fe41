"""Addresses of the pages about pipelines, blocks, runs and the machinery."""

from django.urls import path

from pipelines.views import accept, after, backups, blocks, machinery, new_dataset, rebuild, reconcile, schedule, trips, unpublish, upkeep

urlpatterns = [
    path("pipelines/", schedule.pipelines, name="pipelines"),
    path("new-dataset/", new_dataset.new_dataset, name="new_dataset"),
    path("pipelines/<slug:slug>/", schedule.pipeline, name="pipeline"),
    path("pipelines/<slug:slug>/rerun/", schedule.rerun, name="rerun"),
    path("pipelines/<slug:slug>/initialize/", rebuild.initialize, name="initialize"),
    path("pipelines/<slug:slug>/accept/", accept.columns_of, name="accept_columns"),
    path("pipelines/<slug:slug>/reconcile/", reconcile.reconcile, name="reconcile"),
    path("pipelines/<slug:slug>/reconcile/run/", reconcile.run, name="reconcile_run"),
    path("pipelines/<slug:slug>/reconcile/<int:pk>/repair/", reconcile.repair, name="reconcile_repair"),
    path("pipelines/<slug:slug>/unpublish/", unpublish.unpublish, name="unpublish"),
    path("pipelines/<slug:slug>/backups/", backups.backups, name="backups"),
    path("pipelines/<slug:slug>/backups/make/", backups.make, name="backup_make"),
    path("pipelines/<slug:slug>/backups/<str:sha256>/restore/", backups.restore, name="backup_restore"),
    path("pipelines/<slug:slug>/pause/", schedule.pause, name="pause"),
    path("pipelines/<slug:slug>/resume/", schedule.resume, name="resume"),
    path("runs/", schedule.runs, name="runs"),
    path("running/", schedule.running, name="running"),
    path("blocks/", schedule.block_list, name="blocks"),
    path("blocks/<int:pk>/", blocks.block, name="block"),
    path("blocks/<int:pk>/fragment/", blocks.block_fragment, name="block_fragment"),
    path("blocks/<int:pk>/rejected.csv", blocks.rejected_csv, name="rejected_csv"),
    path("blocks/<int:pk>/log.txt", blocks.block_log, name="block_log"),
    path("blocks/<int:pk>/block.json", blocks.block_json, name="block_json"),
    path("blocks/<int:pk>/after/", after.of_block, name="after_block"),
    path("blocks/<int:pk>/<slug:verb>/", blocks.block_act, name="block_act"),
    path("blocks/<int:pk>/<slug:verb>/confirm/", blocks.block_confirm, name="block_confirm"),
    path("after/<int:pk>/retry/", after.retry, name="after_retry"),
    path("import-logs/", machinery.import_logs, name="import_logs"),
    path("upkeep/", upkeep.jobs, name="upkeep"),
    path("upkeep/<int:pk>/", upkeep.job, name="upkeep_job"),
    path("upkeep/<int:pk>/run/", upkeep.run, name="upkeep_run"),
    path("reports/trips/", trips.trips, name="trips"),
    path("workers/", machinery.workers, name="workers"),
]
