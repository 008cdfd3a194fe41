"""What is scored: the tables of the city's datasets in the warehouse, or those of a portal, with all that is known of each.

A `Subject` names a table or file; its rows are read only when its `facts` are asked for, so that one that can't be read says so
alone. Of the warehouse only what leaves is judged: the public columns, under their public names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.db.models import Max, Q

from catalog.models import Dataset, RefreshRate
from perfmet import measure
from perfmet.dimensions import DATASTORE, FIELDS, FIELDS_0_1_0, FILESTORE, ColumnFacts, Facts
from perfmet.scorecard import Model
from pipelines import warehouse
from pipelines.connectors.base import Column, Connector
from pipelines.errors import PipelineError, SetupError
from pipelines.models import Pipeline, Provider, Run, RunState, Stage
from pipelines.stages import metadata, outside
from pipelines.stages.load import warehouse_of
from pipelines.stages.offer import public_columns
from pipelines.stages.release import sources_of, steps_of

#: Of these the files are judged, of the others the rows.
FILES = (Dataset.Category.DOCUMENT, Dataset.Category.WEBSITE)
#: A package of CKAN that lists the others.
CATALOG = "metadata-catalog"
#: Our rates in the words of the formulas, which are Toronto's.
RATES = {
    RefreshRate.REAL_TIME: "Real-time", RefreshRate.HOURLY: "Hourly", RefreshRate.DAILY: "Daily", RefreshRate.WEEKLY: "Weekly",
    RefreshRate.FORTNIGHTLY: "Bi-weekly", RefreshRate.MONTHLY: "Monthly", RefreshRate.QUARTERLY: "Quarterly",
    RefreshRate.HALF_YEARLY: "Semi-annually", RefreshRate.YEARLY: "Annually", RefreshRate.IRREGULAR: "As available",
    RefreshRate.NEVER: "Will not be Refreshed",
}  # fmt: skip
ASKED = tuple(dict.fromkeys((*FIELDS, *FIELDS_0_1_0)))

#: Reads the rows as far as the model asks, calling back now and then. Raises PipelineError.
Read = Callable[[Model, Callable[[], None]], Facts]


@dataclass(frozen=True)
class Subject:
    """A table or file that is scored. `is_public`: its score may be published."""

    package: str
    resource: str
    refresh_rate: str
    store_type: str
    read: Read
    title: str = ""
    pipeline: Pipeline | None = None
    dataset: Dataset | None = None
    is_public: bool = True

    @property
    def name(self) -> str:
        return f"{self.package} / {self.resource}"

    @property
    def is_daily(self) -> bool:
        return self.refresh_rate.strip().lower() == "daily"


def of_place(place: str, names: Sequence[str], now: datetime) -> Iterator[Subject]:
    """The subjects of the warehouse ("") or of the portal of this slug: those of the datasets named, else all.

    Raises SetupError for a place or a name that is not there, PipelineError where a portal does not answer.
    """
    if not place:
        yield from of_warehouse(names, now)
        return
    provider = Provider.objects.filter(slug=place).first()
    if provider is None:
        portals = ", ".join(Provider.objects.filter(kind__in=["ckan", "socrata"]).order_by("slug").values_list("slug", flat=True))
        raise SetupError(
            f"There is no portal {place!r}.", code="no-portal", next_step=f"Name one of these: {portals or 'none yet'}; or none, for the warehouse."
        )
    portal = outside.connector(provider)
    with portal.door:
        # while they are read as well: the door closes when the last of them was taken
        yield from (of_ckan if provider.kind == "ckan" else of_resources)(portal, provider, names, now)


# the warehouse


def of_warehouse(names: Sequence[str], now: datetime) -> Iterator[Subject]:
    """The tables, or files, of these datasets; of none named, of every dataset that is published, public and not retired."""
    pipelines = Pipeline.objects.filter(twin_of=None).select_related("dataset", "portal", "provider").prefetch_related("dataset__columns")
    if names:
        pipelines = pipelines.filter(dataset__slug__in=_known(names))
    else:
        is_shown = Q(dataset__access=Dataset.Access.PUBLIC, dataset__is_retired=False, portal__isnull=False)
        pipelines = pipelines.filter(is_shown).exclude(dataset__slug=CATALOG)
    groups: dict[tuple[Any, ...], list[Pipeline]] = defaultdict(list)
    for pipeline in pipelines.order_by("dataset__slug", "part", "slug"):
        if names or Stage.PUBLISH in pipeline.stages:
            groups[_group(pipeline)].append(pipeline)
    fed = refreshed([pipeline for group in groups.values() for pipeline in group])
    taken: set[tuple[str, str]] = set()
    for group in groups.values():
        subject = _of_group(group, fed, now)
        if (subject.package, subject.resource) in taken:
            # two tables of a dataset that nobody has named
            subject = replace(subject, resource=group[0].slug)
        taken.add((subject.package, subject.resource))
        yield subject


def _known(names: Sequence[str]) -> Sequence[str]:
    datasets = {dataset.slug: dataset for dataset in Dataset.objects.filter(slug__in=names)}
    if missing := [name for name in names if name not in datasets]:
        raise SetupError(f"There is no dataset {missing[0]!r}.", code="no-dataset", next_step="See what there is with: python3 manage.py status")
    if retired := [name for name in names if datasets[name].is_retired]:
        raise SetupError(f"{retired[0]} is retired: it is not judged.", code="retired", next_step="Take it out, or take its retirement back.")
    fed = set(Pipeline.objects.filter(twin_of=None, dataset__slug__in=names).values_list("dataset__slug", flat=True))
    if unfed := [name for name in names if name not in fed]:
        raise SetupError(f"No pipeline brings {unfed[0]}.", code="no-pipeline", next_step="Make a pipeline for it, or name the portal that has it.")
    return names


def _group(pipeline: Pipeline) -> tuple[Any, ...]:
    """Pipelines that fill one table are one subject; of files, and where nothing is loaded, each is its own."""
    if pipeline.dataset.category in FILES or Stage.LOAD not in pipeline.stages:
        return (pipeline.dataset_id, pipeline.slug)
    return (pipeline.dataset_id, pipeline.warehouse, pipeline.table)


def _of_group(group: Sequence[Pipeline], fed: Mapping[int, datetime], now: datetime) -> Subject:
    first, dataset = group[0], group[0].dataset
    is_file = dataset.category in FILES or Stage.LOAD not in first.stages
    fields = {
        "notes": dataset.description,
        "topics": dataset.topics,
        "owner_email": dataset.steward_email,
        "information_url": dataset.information_url,
        "collection_method": dataset.collection_method,
        "limitations": dataset.limitations,
    }
    known = Facts(
        package=dataset.slug,
        resource=_resource_name(first),
        # what a steward left empty is missing on the portal
        fields={name: value for name, value in fields.items() if value},
        refresh_rate=RATES[RefreshRate(dataset.refresh_rate)],
        days=days_since(max((fed[one.pk] for one in group if one.pk in fed), default=None), now),
        has_tags=bool(dataset.tags.strip(" ,")),
        has_pipeline=True,
        formats=tuple(sorted({str(one.options.get("published_format") or one.format).upper() for one in group})),
        store_type=FILESTORE if is_file else DATASTORE,
        title=dataset.title,
        division=dataset.department,
        resource_id=first.portal_resource,
    )
    read: Read = (lambda model, beat: known) if is_file else (lambda model, beat: _of_table(first, known, model))
    return Subject(
        package=known.package,
        resource=known.resource,
        refresh_rate=known.refresh_rate,
        store_type=known.store_type,
        read=read,
        title=dataset.title,
        pipeline=first,
        dataset=dataset,
        is_public=dataset.access == Dataset.Access.PUBLIC and any(Stage.PUBLISH in one.stages and one.portal_id for one in group),
    )


def _resource_name(pipeline: Pipeline) -> str:
    """What the public calls the table: of CKAN the resource's name, else the part, else what the portal calls it."""
    if pipeline.portal and pipeline.portal.kind == "ckan" and "/" in pipeline.portal_resource:
        return pipeline.portal_resource.split("/", 1)[1]
    return pipeline.part or pipeline.portal_resource or pipeline.slug


@dataclass(frozen=True)
class _Public:
    """A column as the public has it, and the table's column that it is made of ("": none). `is_bare`: its values may be shown."""

    name: str
    source: str
    notes: str
    type: str
    is_bare: bool


def _of_table(pipeline: Pipeline, known: Facts, model: Model) -> Facts:
    """What is known of a table, with its rows. One that was never loaded has none, and the columns that its dictionary names."""
    dsn = warehouse_of(pipeline)
    have = warehouse.engine(dsn).column_types(dsn, pipeline.table)
    columns = _public(pipeline, have)
    if not have:
        return replace(known, columns=tuple(ColumnFacts(one.name, one.notes, type=one.type) for one in columns))
    sources = list(dict.fromkeys(one.source for one in columns if one.source))
    measured = measure.in_warehouse(dsn, pipeline.table, sources, with_shapes=model.asks_for_shapes)
    cells = {cell.name: cell for cell in measured.cells.columns}
    found = []
    for one in columns:
        cell = cells.get(one.source)
        if cell is None:
            # a rule writes the same into each row
            found.append(ColumnFacts(one.name, one.notes, 0, True, one.type))
        else:
            found.append(ColumnFacts(one.name, one.notes, cell.missing, cell.is_constant, one.type, cell.sample if one.is_bare else ()))
    return replace(known, rows=measured.cells.rows, columns=tuple(found), invalid_shapes=measured.invalid_shapes)


def _public(pipeline: Pipeline, have: Mapping[str, str]) -> list[_Public]:
    told = {column.name: column for column in pipeline.dictionary()}

    def notes(*names: str) -> str:
        return next((told[name].description for name in names if name in told and told[name].description), "")

    is_published = Stage.PUBLISH in pipeline.stages and pipeline.portal_id
    if is_published and pipeline.release and have:
        made = {entry["column"]: entry for entry in pipeline.release if "only" not in entry}
        found = []
        for column in public_columns(pipeline):
            entry = made[column.name]
            source = next((name for name in sources_of(entry) if name in have), "")
            is_bare = all(step["rule"] == "as_is" for step in steps_of(entry))
            found.append(_Public(column.name, source, notes(column.name, source), column.type, is_bare))
        return found
    if is_published and have:
        return [_Public(column.name, column.name, column.description, column.type, True) for column in public_columns(pipeline)]
    hidden = {column.name for column in told.values() if not column.is_published} | set(pipeline.private_columns)
    return [_Public(name, name, notes(name), have.get(name) or told[name].type, True) for name in (have or told) if name not in hidden]


def refreshed(pipelines: Collection[Pipeline]) -> dict[int, datetime]:
    """Pipeline to the moment since when its rows are as they are: when rows last changed here, or at the source, where it says that. Two queries."""
    ours = Run.objects.filter(block__pipeline__in=pipelines, state=RunState.DONE, stage__in=[Stage.LOAD, Stage.PUBLISH])
    changed = Q(inserted__gt=0) | Q(updated__gt=0) | Q(deleted__gt=0) | Q(published__gt=0)
    latest: dict[tuple[int, str], datetime] = {}
    for pk, stage, at in ours.filter(changed).order_by().values_list("block__pipeline", "stage").annotate(Max("finished_at")):
        latest[pk, stage] = at
    told = Run.objects.filter(block__pipeline__in=pipelines, stage=Stage.EXTRACT, details__changed_at__isnull=False)
    newest = told.order_by("block__pipeline", "-pk").distinct("block__pipeline").values_list("block__pipeline", "details__changed_at")
    at_source = {pk: moment for pk, text in newest if (moment := _moment(text))}
    found = {}
    for pipeline in pipelines:
        here = latest.get((pipeline.pk, Stage.PUBLISH)) or latest.get((pipeline.pk, Stage.LOAD))
        if here:
            # what was loaded today may have lain at the source for a year
            found[pipeline.pk] = min(here, at_source.get(pipeline.pk, here))
    return found


def days_since(moment: datetime | None, now: datetime) -> int | None:
    """Whole days; of a moment to come none."""
    return None if moment is None else max(0, (now - moment).days)


def _moment(text: Any) -> datetime | None:
    """A moment as portals and runs write it, with T or a blank, with or without a time; without a zone it is UTC. None for anything else."""
    try:
        found = datetime.fromisoformat(str(text).strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# CKAN


def of_ckan(portal: Any, provider: Provider, names: Sequence[str], now: datetime) -> Iterator[Subject]:
    """The resources of a CKAN portal's packages: files of documents and websites, of the others the tables of the datastore."""
    packages = (portal.action("package_show", id=name) for name in names) if names else portal.packages()
    ours = _feeding(provider)
    datasets = {dataset.slug: dataset for dataset in Dataset.objects.all()}
    for package in packages:
        told = {**{extra.get("key"): extra.get("value") for extra in package.get("extras") or ()}, **package}
        if package["name"].lower() == CATALOG or _is_true(told.get("is_retired")):
            continue
        is_file = told.get("dataset_category") in FILES
        known = _of_package(told, now)
        taken: set[str] = set()
        for resource in package.get("resources") or ():
            if is_file and _is_true(resource.get("is_datastore_cache_file")) or not (is_file or _is_true(resource.get("datastore_active"))):
                continue
            name = str(resource.get("name") or resource["id"])
            # CKAN lets two resources of a package have one name
            name = f"{name} ({resource['id'][:8]})" if name in taken else name
            taken.add(name)
            pipeline = ours.get(f"{package['name']}/{resource.get('name')}".casefold()) or ours.get(resource["id"].casefold())
            facts = replace(
                known,
                resource=name,
                resource_id=resource["id"],
                store_type=FILESTORE if is_file else DATASTORE,
                has_pipeline=pipeline is not None,
            )
            yield Subject(
                package=facts.package,
                resource=name,
                refresh_rate=facts.refresh_rate,
                store_type=facts.store_type,
                read=_ckan_reader(portal, facts, has_job=bool(resource.get("extract_job"))),
                title=facts.title,
                pipeline=pipeline,
                dataset=pipeline.dataset if pipeline else datasets.get(package["name"]),
            )


def _of_package(told: Mapping[str, Any], now: datetime) -> Facts:
    resources = told.get("resources") or ()
    newest = (str(resource.get("last_modified") or resource.get("created") or "") for resource in resources)
    moment = _moment(told.get("last_refreshed")) or max(filter(None, map(_moment, newest)), default=None)
    formats = told["formats"] if "formats" in told else [resource.get("format") or "" for resource in resources]
    organization = told.get("organization") or {}
    return Facts(
        package=told["name"],
        resource="",
        fields={name: told[name] for name in ASKED if name in told},
        refresh_rate=str(told.get("refresh_rate") or ""),
        days=days_since(moment, now),
        has_tags="tags" in told and int(told.get("num_tags", len(told["tags"] or ())) or 0) > 0,
        formats=formats or (),
        title=str(told.get("title") or told["name"]),
        division=str(told.get("owner_division") or organization.get("title") or ""),
    )


def _ckan_reader(portal: Connector, facts: Facts, *, has_job: bool) -> Read:
    def read(model: Model, beat: Callable[[], None]) -> Facts:
        # 0.1.0 asks the resource who feeds it
        known = replace(facts, has_pipeline=facts.has_pipeline or has_job) if model.asks_for_jobs else facts
        if facts.store_type == FILESTORE:
            return known
        columns = portal.describe(facts.resource_id).columns
        return _measured(portal, known, facts.resource_id, columns, model, beat)

    return read


def _measured(portal: Connector, known: Facts, resource: str, columns: Sequence[Column], model: Model, beat: Callable[[], None]) -> Facts:
    columns = [column for column in columns if column.name != "_id"]
    measured = measure.on_portal(portal, resource, columns, with_shapes=model.asks_for_shapes, beat=beat)
    found = tuple(
        ColumnFacts(column.name, column.description, cell.missing, cell.is_constant, column.portal_type or column.type, cell.sample)
        for column, cell in zip(columns, measured.cells.columns, strict=True)
    )
    return replace(known, rows=measured.cells.rows, columns=found, invalid_shapes=measured.invalid_shapes)


def _is_true(value: Any) -> bool:
    """CKAN's truths may be texts."""
    return str(value).strip().lower() == "true"


def _feeding(provider: Provider) -> dict[str, Pipeline]:
    """What a portal calls a table, in small letters, to the pipeline that publishes it there."""
    feeding = Pipeline.objects.filter(portal=provider, twin_of=None).select_related("dataset")
    return {pipeline.portal_resource.casefold(): pipeline for pipeline in feeding if Stage.PUBLISH in pipeline.stages}


# other portals


def of_resources(portal: Connector, provider: Provider, names: Sequence[str], now: datetime) -> Iterator[Subject]:
    """The tables of a portal that describes its resources one by one, as Socrata: those named, else those that our pipelines know there.

    Each is described before its rate is known; one that can't be is a subject as well, whose facts say why.
    """
    if not portal.can_fetch:
        raise SetupError(f"Nothing can be read from {provider.slug}.", code="cannot-fetch", next_step="Name a portal that gives its rows.")
    ours = _feeding(provider)
    read_from = Pipeline.objects.filter(provider=provider, twin_of=None).order_by("slug").values_list("resource", flat=True)
    for resource in dict.fromkeys(names or [*(one.portal_resource for one in ours.values()), *read_from]):
        pipeline = ours.get(resource.casefold())
        try:
            state = portal.describe(resource)
        except PipelineError as error:
            yield Subject(resource, resource, "", DATASTORE, _unreadable(error), pipeline=pipeline, dataset=pipeline and pipeline.dataset)
            continue
        rate = metadata.rate_of(state.refresh_rate)
        told = metadata.told_by(state)
        more = state.metadata
        fields = {
            "notes": state.description,
            "topics": more.get("category"),
            "owner_email": told.get("contact"),
            "information_url": more.get("attribution_link") or more.get("information_url"),
        }
        known = Facts(
            package=resource,
            resource=(state.title or resource)[:200],
            fields={name: value for name, value in fields.items() if value},
            refresh_rate=RATES[RefreshRate(rate)] if rate else state.refresh_rate,
            days=days_since(state.changed_at, now),
            has_tags=bool(told.get("tags")),
            has_pipeline=pipeline is not None,
            title=state.title or resource,
            division=str(more.get("department") or more.get("attribution") or ""),
            resource_id=resource,
        )
        yield Subject(
            package=known.package,
            resource=known.resource,
            refresh_rate=known.refresh_rate,
            store_type=DATASTORE,
            read=lambda model, beat, known=known, columns=state.columns: _measured(portal, known, known.package, columns, model, beat),
            title=known.title,
            pipeline=pipeline,
            dataset=pipeline and pipeline.dataset,
        )


def _unreadable(error: PipelineError) -> Read:
    def read(model: Model, beat: Callable[[], None]) -> Facts:
        raise error

    return read
