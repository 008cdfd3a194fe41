"""Where what costs a table its points is mended: by dimension, a page of this console with the word for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse


@dataclass(frozen=True)
class Mend:
    """A page and what to do there; `href` is "" where this console can't mend it. `is_edit`: only for who may edit datasets."""

    href: str
    words: str
    is_edit: bool = False


def mend(dimension: str, dataset: tuple[int, str] | None, pipeline: str) -> Mend:
    """`dataset` is (number, slug) or None, `pipeline` a slug or ""."""
    if dataset is None:
        return Mend("", "on the portal")
    pk, slug = dataset
    page = reverse("dataset", args=[slug])
    if dimension == "metadata":
        return Mend(reverse("admin:catalog_dataset_change", args=[pk]), "Edit the description", is_edit=True)
    if dimension == "freshness" and pipeline:
        return Mend(reverse("pipeline", args=[pipeline]), "See its blocks")
    if dimension in ("completeness", "usability"):
        return Mend(f"{page}#columns", "See its columns")
    if dimension == "accessibility":
        return Mend(reverse("admin:catalog_dataset_change", args=[pk]), "Edit tags and pipelines", is_edit=True)
    return Mend(page, "See the dataset")
