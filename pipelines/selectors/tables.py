"""Which pipelines load one table: wanted where each brings its part, a trap where they disagree on what names a row."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, OuterRef, QuerySet
from django.db.models.functions import JSONObject
from django.urls import reverse

from pipelines.models import Pipeline


@dataclass(frozen=True)
class Mate:
    """Another pipeline that loads the same table. `dataset` is the title of its dataset where that is another one, else "".

    `key` is what names a row there, in words, where the two disagree on it, else "".
    """

    pk: int
    slug: str
    title: str
    dataset: str
    key: str

    @property
    def href(self) -> str:
        return reverse("pipeline", args=[self.slug])


def with_mates(pipelines: QuerySet[Pipeline]) -> QuerySet[Pipeline]:
    """The same pipelines, each with what `mates` needs; no query of its own."""
    same = Pipeline.objects.filter(warehouse=OuterRef("warehouse"), table=OuterRef("table")).exclude(pk=OuterRef("pk")).order_by("title", "pk")
    told = JSONObject(pk="pk", slug="slug", title="title", dataset_id="dataset_id", dataset=F("dataset__title"), key="key")
    return pipelines.annotate(table_mates=ArraySubquery(same.values(told=told)))


def mates(pipeline: Pipeline) -> list[Mate]:
    """The other pipelines that load the table of this one (out of `with_mates`), by title. Asks nothing."""
    return [
        Mate(
            pk=other["pk"],
            slug=other["slug"],
            title=other["title"],
            dataset=other["dataset"] if other["dataset_id"] != pipeline.dataset_id else "",
            key=key_words(other["key"]) if set(other["key"]) != set(pipeline.key) else "",
        )
        for other in pipeline.table_mates
    ]


def key_words(key: list[str]) -> str:
    return ", ".join(key) or "nothing (it has no key)"
