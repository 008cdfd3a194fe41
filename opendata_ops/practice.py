"""The practice city as this console's configuration: its providers, datasets, pipelines and three people. For `demo` and for tests.

The servers themselves are in `sandbox`; here stands only what a steward would have typed. One pipeline is wrong on purpose,
so that a newcomer has something to find and to repair: the README's tour tells how.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import time, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from catalog import boundaries, inventory
from catalog.audit import Actor
from catalog.models import BoundaryLayer, Dataset, DatasetColumn, InventoryEdition, RefreshRate
from opendata_ops import accounts, practice_packages
from opendata_ops.sandbox import areas, city, gridsmart, mds, sensors
from perfmet.models import SensorWatch
from pipelines import clock, planner, secrets
from pipelines.formats.trip_columns import TRIP_COLUMNS
from pipelines.models import (
    AfterStep,
    Cadence,
    Enrichment,
    Gone,
    LoadMode,
    Pipeline,
    PortalMode,
    Provider,
    RawNames,
    ScheduleBlock,
    State,
    Trigger,
    UpkeepJob,
)
from pipelines.stages import release
from pipelines.upkeep import presets

#: Who may log in. The passwords are public: a practice city listens on this machine only.
PEOPLE = (
    (accounts.VIEWER, "vera", "practice-viewer"),
    (accounts.OPERATOR, "otto", "practice-operator"),
    (accounts.STEWARD, "stella", "practice-steward"),
)
SOURCE, PORTAL, OPERATOR = "practice-source", "practice-portal", "practice-{}"
#: The pipeline that publishes to a dataset that the portal does not have, until a steward corrects it.
BROKEN = city.INSPECTIONS
BROKEN_TARGET = "pub0-insq"
ACTOR = Actor("demo")
#: What a dataset's page counts at first sight: species by year.
CHARTS = {city.PET_LICENCES.id: {"chart_rows": "species", "chart_columns": "license_issue_date"}}


#: Days of trips that are owed at first: an hour is three pipelines, and its operators need thirty hours until it is complete.
TRIP_DAYS = 2
#: The areas that a trip's ends are looked up in: column → the layer.
TRIP_AREAS = {"council_district": "council-districts", "census_geoid": "census-tracts", "cell": "trip-cells"}


@dataclass(frozen=True)
class Feed:
    """How the days of one kind of sensor are read, and what is watched of them."""

    provider: str
    resource: str
    format: str
    code: str
    source: str
    window_column: str
    options: dict[str, Any]
    watch: dict[str, str] = field(default_factory=dict)


#: Slug of the pipeline → how it reads.
FEEDS = {
    "bt-unmatched": Feed(
        "practice-awam", sensors.FILES["unmatched"], "bluetooth", "bt", "Bluetooth", "host_read_time",
        {"file": "unmatched", "area": "Austin", "helpers": {"matched": sensors.FILES["matched"]}},
        {"label": "Unmatched Entries", "sensor_column": "reader_identifier", "unit_field": "device_name"},
    ),
    "bt-matched": Feed(
        "practice-awam", sensors.FILES["matched"], "bluetooth", "bt", "Bluetooth", "start_time", {"file": "matched", "area": "Austin"}
    ),
    "bt-summary": Feed(
        "practice-awam", sensors.FILES["summary"], "bluetooth", "bt", "Bluetooth", "timestamp", {"file": "traf_match_summary", "area": "Austin"}
    ),
    "radar-counts": Feed(
        "practice-kits", "kits", "wavetronix", "wt", "Wavetronix", "curdatetime", {"area": "Austin"},
        {"label": "Vehicle Counts", "sensor_column": "intname", "value_column": "volume", "unit_field": "device_name"},
    ),
    "camera-counts": Feed(
        "practice-cameras", "counts", "gridsmart", "gs", "GRIDSMART", "read_date", {"area": "Austin", "minutes": 15},
        {"label": "Vehicle Counts", "sensor_column": "intersection_name", "value_column": "volume"},
    ),
}  # fmt: skip


@transaction.atomic
def create(
    source_url: str,
    portal_url: str,
    scooters_url: str,
    office_url: str = "",
    sensors_folder: str = "",
    files_url: str = "",
    maps_url: str = "",
    ckan_url: str = "",
) -> list[tuple[str, str, str]]:
    """Make the practice city's configuration, or bring its addresses up to date. Returns (role, user name, password).

    With the address of the street works office and the folder of its sensors' data, those too; the office must answer.
    With the addresses of its files, maps and CKAN portal the packages of `sandbox/packages`, too.
    """
    source, _ = Provider.objects.update_or_create(
        slug=SOURCE,
        defaults={"base_url": source_url},
        create_defaults={
            "title": "City offices (practice)",
            "kind": "socrata",
            "base_url": source_url,
            "time_zone": city.ZONE,
            "max_parallel": 2,
            "contact": "help@practice.city",
        },
    )
    portal, _ = Provider.objects.update_or_create(
        slug=PORTAL,
        defaults={"base_url": portal_url},
        create_defaults={
            "title": "Open data portal (practice)",
            "kind": "socrata",
            "base_url": portal_url,
            "parameters": {"user": city.ACCOUNT.user},
            "secrets": {"password": secrets.seal(city.ACCOUNT.password)},
            "time_zone": city.ZONE,
            "max_parallel": 2,
        },
    )
    for told in city.DATASETS:
        _pipeline(told, source, portal)
    _trips([_operator(told, scooters_url) for told in city.OPERATORS], portal)
    if office_url:
        _sensors(office_url, Path(sensors_folder), portal)
    if ckan_url:
        practice_packages.create(files_url, maps_url, ckan_url, actor=ACTOR)
    return [_person(*person) for person in PEOPLE]


def _operator(told: city.Operator, scooters_url: str) -> Provider:
    """The provider of an operator, with its log-in; its addresses are brought up to date."""
    base_url = f"{scooters_url}/{told.slug}"
    addresses = {"token_url": f"{base_url}/oauth/token"} if isinstance(told.auth, mds.OAuth) else {}
    provider, is_new = Provider.objects.get_or_create(
        slug=OPERATOR.format(told.slug),
        defaults={
            "title": f"{told.fleet.name} scooters (practice)",
            "kind": "mds",
            "base_url": base_url,
            "parameters": {"version": told.version, "provider_id": told.fleet.provider_id, "provider_name": told.fleet.name, **addresses},
            "time_zone": city.ZONE,
            "max_parallel": 2,
            "contact": f"data@{told.slug}.example",
        },
    )
    if is_new:
        match told.auth:
            case mds.Bearer(token):
                kind, hidden = "bearer", {"token": token}
            case mds.Basic(user, password):
                kind, hidden = "basic", {"auth_data": json.dumps({"username": user, "password": password})}
            case mds.OAuth():
                kind, hidden = "oauth", {"auth_data": json.dumps(dict(told.auth.form))}
        provider.parameters["auth_type"] = kind
        provider.secrets = {name: secrets.seal(value) for name, value in hidden.items()}
    provider.base_url = base_url
    provider.parameters.update(addresses)
    provider.full_clean()
    provider.save()
    return provider


def _trips(operators: list[Provider], portal: Provider) -> None:
    """One dataset and one table that all operators feed, hour by hour, and what the public gets of it."""
    told = city.TRIPS
    layers = {slug: _layer(slug) for slug in areas.LAYERS}
    slug = "shared-micromobility-trips"
    if Dataset.objects.filter(slug=slug).exists():
        return
    dataset = _dataset(slug, told, refresh_rate=RefreshRate.HOURLY)
    enriched = [(f"{column}_{end}", "text") for column in TRIP_AREAS for end in ("start", "end")]
    # these leave under another name at most; all else is hidden by the release, or not in it
    as_they_are = {entry["from"] for entry in release.ATD_TRIPS if entry.get("rule") in ("as_is", "blank_as")} - set(release.ATD_PRIVATE)
    DatasetColumn.objects.bulk_create(
        DatasetColumn(dataset=dataset, position=n, name=name, type=kind, is_published=name in as_they_are)
        for n, (name, kind) in enumerate((*TRIP_COLUMNS, *enriched))
    )
    starts_on = timezone.now().astimezone(clock.zone(city.ZONE)).date() - timedelta(days=TRIP_DAYS)
    for operator, provider in zip(city.OPERATORS, operators, strict=True):
        pipeline = _saved(
            Pipeline(
                slug=f"trips-{operator.slug}",
                title=f"Scooter trips, {operator.fleet.name}",
                provider=provider,
                dataset=dataset,
                resource="trips",
                format="mds_trips",
                stages=["extract", "standardize", "enrich", "load", "publish"],
                cadence=Cadence.HOURLY,
                settle_minutes=presets.SETTLE_MINUTES,
                window_column="end_time",
                key=["provider_id", "trip_id"],
                table="trips",
                time_zone=city.ZONE,
                starts_on=starts_on,
                portal=portal,
                portal_resource=told.target_id,
                release=release.ATD_TRIPS,
                private_columns=release.ATD_PRIVATE,
                # the many small hours go last, so that the first page shows some of everything
                priority=-1,
            )
        )
        ends = [(column, end) for column in TRIP_AREAS for end in ("start", "end")]
        Enrichment.objects.bulk_create(
            Enrichment(
                pipeline=pipeline,
                position=n,
                layer=layers[TRIP_AREAS[column]],
                column=f"{column}_{end}",
                lon_column=f"{end}_lon",
                lat_column=f"{end}_lat",
            )
            for n, (column, end) in enumerate(ends)
        )
    presets.make(actor=ACTOR, reason="the practice city was made")


def _sensors(office_url: str, folder: Path, portal: Provider) -> None:
    """The sensors' three sources, their five pipelines, what is watched of them, and the inventories, fetched each day."""
    addresses = {
        "practice-awam": ("Bluetooth readers (practice)", "folder", f"{folder / 'awam'}"),
        "practice-kits": ("Radar database KITS (practice)", "database", f"sqlite:///{folder / 'kits.db'}"),
        "practice-cameras": ("GRIDSMART cameras (practice)", "gridsmart", "http://{ip}:8902/api"),
    }
    providers = {}
    for slug, (title, kind, address) in addresses.items():
        made = {"title": title, "kind": kind, "base_url": address, "time_zone": city.ZONE, "max_parallel": 2}
        providers[slug], _ = Provider.objects.update_or_create(slug=slug, defaults={"base_url": address}, create_defaults=made)
    for code in sensors.CODES:
        _inventory(code, office_url)
    nightly = {"cadence": Cadence.DAILY, "at_time": time(4), "time_zone": city.ZONE}
    UpkeepJob.objects.get_or_create(kind="catch-up", title="Nightly catch-up of sensors (practice)", defaults=nightly)
    for slug, feed in FEEDS.items():
        if not Pipeline.objects.filter(slug=slug).exists():
            _feed(slug, feed, providers[feed.provider], portal)


def _feed(slug: str, feed: Feed, provider: Provider, portal: Provider) -> None:
    told = city.SENSOR_TABLES[slug]
    dataset = _dataset(slug, told, refresh_rate=RefreshRate.DAILY)
    _dictionary(dataset, told)
    today = timezone.now().astimezone(clock.zone(gridsmart.ZONE)).date()
    pipeline = _saved(
        Pipeline(
            slug=slug,
            title=told.title,
            provider=provider,
            dataset=dataset,
            resource=feed.resource,
            format=feed.format,
            stages=["extract", "standardize", "enrich", *["aggregate"] * (feed.format == "gridsmart"), "load", "publish"],
            cadence=Cadence.DAILY,
            due_time=time(0, 30),
            window_column=feed.window_column,
            key=[told.key],
            table=slug.replace("-", "_"),
            time_zone=gridsmart.ZONE,
            starts_on=today - timedelta(days=sensors.DAYS),
            raw_names=RawNames.ATD_DATA_LAKE,
            data_source=feed.source,
            inventory=feed.code,
            options=feed.options,
            portal=portal,
            portal_resource=told.target_id,
            priority=-2,
        )
    )
    if feed.watch:
        SensorWatch.objects.create(pipeline=pipeline, **feed.watch)


def _inventory(code: str, office_url: str) -> None:
    """The present edition, dated tomorrow so that the data of every day until now is matched with it; and the job that fetches the next ones."""
    address = f"{office_url}/units/{code}.json"
    job, is_new = UpkeepJob.objects.get_or_create(
        kind="inventory",
        title=f"Inventory {code} (practice)",
        defaults={"cadence": Cadence.DAILY, "at_time": time(1), "time_zone": city.ZONE, "options": {"code": code, "address": address}},
    )
    if not is_new and job.options.get("address") != address:
        job.options |= {"address": address}
        job.save(update_fields=["options"])
    if not InventoryEdition.objects.filter(code=code).exists():
        with urlopen(address, timeout=10) as reply:  # noqa: S310  the practice city, on this machine
            body = reply.read()
        tomorrow = timezone.now().astimezone(clock.zone(gridsmart.ZONE)).date() + timedelta(days=1)
        dated_at = clock.day_start(tomorrow, gridsmart.ZONE)
        inventory.store(code, dated_at, inventory.read(f"{code}.json", body).units, ACTOR, origin=address, reason="the practice city was made")


def _dataset(slug: str, told: city.CityDataset, **more: Any) -> Dataset:
    """What the city publishes, as its steward would describe it."""
    return Dataset.objects.create(
        slug=slug,
        title=told.title,
        description=told.description,
        department=told.steward,
        steward=told.steward,
        steward_email="opendata@practice.city",
        licence=told.licence,
        tags=", ".join(told.tags),
        **more,
    )


def _dictionary(dataset: Dataset, told: city.CityDataset) -> None:
    DatasetColumn.objects.bulk_create(
        DatasetColumn(dataset=dataset, position=n, name=column.name, label=column.label, type=column.type, description=column.description)
        for n, column in enumerate(told.columns)
    )


def _layer(slug: str) -> BoundaryLayer:
    """The boundary layer of the practice city, uploaded once: a steward may change it."""
    title, key, _ = areas.LAYERS[slug]
    if (layer := BoundaryLayer.objects.filter(slug=slug).first()) is not None:
        return layer
    return boundaries.store(slug, title, key, areas.geojson(slug), ACTOR, reason="the practice city was made")


def _pipeline(told: city.CityDataset, source: Provider, portal: Provider) -> None:
    slug = told.title.removeprefix("MyCity ").lower().replace(" ", "-")
    if Pipeline.objects.filter(slug=slug).exists():
        return
    dataset = _dataset(slug, told, refresh_rate=RefreshRate(told.refresh_rate.lower()), promise_time=time(9), **CHARTS.get(told.id, {}))
    _dictionary(dataset, told)
    common = {
        "provider": source,
        "dataset": dataset,
        "resource": told.id,
        "types": {column.name: column.type for column in told.columns if column.source_type not in ("", column.portal_type)},
        "table": slug.replace("-", "_").lstrip("0123456789_"),
        "time_zone": city.ZONE,
        "starts_on": (timezone.now().astimezone(clock.zone(city.ZONE)) - timedelta(days=city.DAYS_SHOWN)).date(),
        "portal": portal,
        "portal_resource": BROKEN_TARGET if told is BROKEN else told.target_id,
        "page_size": 10_000,
    }
    main = _saved(
        Pipeline(
            slug=slug,
            title=told.title,
            cadence=Cadence(told.cadence),
            due_time=time(0, 30) if told.window_column else time(0, 5),
            # the small tables go first, so that the first page shows some of everything
            priority=0 if told.window_column else 1,
            **(_without_key(told) if told.is_keyless else _by_key(told)),
            **common,
        )
    )
    if told.is_keyless:
        AfterStep.objects.create(pipeline=main, kind=AfterStep.Kind.ANALYZE)
    if told.window_column and told.watermark_column:
        AfterStep.objects.create(pipeline=_saved(_changes(told, slug, common)), kind=AfterStep.Kind.ANALYZE)


def _by_key(told: city.CityDataset) -> dict[str, Any]:
    return {"key": [told.key], "window_column": told.window_column, "version_column": told.watermark_column}


def _without_key(told: city.CityDataset) -> dict[str, Any]:
    """Rows are compared whole, read from the watermark on, and the portal's are replaced all at once."""
    reading = {"watermark_column": told.watermark_column, "overlap_minutes": 7 * 24 * 60, "compare_days": 30}
    return {"key": [], "load_mode": LoadMode.REPLACE, "portal_mode": PortalMode.REPLACE, **reading}


def _changes(told: city.CityDataset, slug: str, common: dict[str, Any]) -> Pipeline:
    """Of a table that is read by the day of its rows: a second pipeline for what is edited or deleted later, hour by hour."""
    yesterday = timezone.now().astimezone(clock.zone(city.ZONE)).date() - timedelta(days=1)
    return Pipeline(
        slug=f"{slug}-changes",
        title=f"{told.title}, changes",
        cadence=Cadence.HOURLY,
        settle_minutes=5,
        key=[told.key],
        version_column=told.watermark_column,
        watermark_column=told.watermark_column,
        overlap_minutes=60,
        # what is older comes with the days
        since=f"{yesterday.isoformat()}T00:00:00",
        compare_days=1,
        gone_rows=Gone.DELETE,
        **common,
    )


def _saved(pipeline: Pipeline) -> Pipeline:
    pipeline.full_clean()
    pipeline.save()
    return pipeline


def _person(role: str, name: str, password: str) -> tuple[str, str, str]:
    user, is_new = get_user_model().objects.get_or_create(username=name)
    if is_new:
        user.set_password(password)
        user.save()
    accounts.add_to(user, role)
    return role, name, password


def start() -> int:
    """Have the main job run at once: plan what is owed, and ask again where nothing waits for its turn. Returns how many were asked for.

    What the tick planned or a worker has in hand is left alone: to ask for it again would only be refused, a line in the audit each.
    """
    planner.tick()
    moved = 0
    taken = Q(state=State.RUNNING) | Q(state=State.WAITING, due_at__lte=timezone.now())
    in_hand = ScheduleBlock.objects.filter(taken, pipeline=OuterRef("pk"))
    for pipeline in Pipeline.objects.filter(~Exists(in_hand), provider__slug=SOURCE).select_related("provider"):
        placed = planner.place(planner.Order([pipeline]), actor=ACTOR, reason="the demo began", trigger=Trigger.COMMAND)
        moved += len(placed.moved)
    return moved
