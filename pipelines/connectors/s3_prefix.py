"""A prefix of a bucket of S3, or of what speaks like it, into which somebody puts a file a day.

Every request goes through the outbound door, signed here: no client of its own finds another way out. Keys are the provider's, and
never those of this installation, which may read more; without keys the bucket is asked as anyone may ask it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from pipelines.connectors.base import Connector, Parameter
from pipelines.connectors.dated_files import PIECE, DatedFiles, Held, Pattern
from pipelines.errors import DataError, SetupError, TransientError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class S3Prefix(DatedFiles, Connector):
    """Files by day below `s3://bucket/prefix`. The resource is a pattern of names below it, which may hold folders:

    `%Y/%m/%d/bt/Austin_bt_%Y-%m-%d_unmatched.txt` reads a lake of atd-data-lake.
    """

    kind = "s3_prefix"
    label = "Files by day in S3"
    can_fetch = True
    can_count = False
    can_list = True
    address_hint = "s3://bucket/prefix"
    parameters = (
        Parameter("region", "Region", default="us-east-1"),
        Parameter("endpoint", "Endpoint", help="Of what is not Amazon's: https://minio.example:9000. Empty: Amazon."),
        Parameter("access_key", "Access key", secret=True, help="Without keys the bucket is asked as anyone may ask it."),
        Parameter("secret_key", "Secret key", secret=True),
    )

    # where it is

    @property
    def _bucket(self) -> tuple[str, str]:
        """(bucket, prefix), the prefix with a slash at its end or "". Raises SetupError."""
        parts = urlsplit(self.account.base_url.strip())
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
            raise SetupError(
                f"the address of provider {self.account.slug} is {self.account.base_url!r}, which is no bucket",
                code="bad-address",
                next_step=f"Write it like {self.address_hint}; keys go into their own fields.",
            )
        prefix = parts.path.strip("/")
        return parts.netloc, f"{prefix}/" if prefix else ""

    @property
    def _region(self) -> str:
        return (self.account.parameters.get("region") or "us-east-1").strip()

    def _base(self, bucket: str) -> str:
        """The address below which the bucket's keys stand."""
        if endpoint := (self.account.parameters.get("endpoint") or "").strip().rstrip("/"):
            return f"{endpoint}/{bucket}"
        # a certificate is good for one name before the point only
        host = f"s3.{self._region}.amazonaws.com"
        return f"https://{host}/{bucket}" if "." in bucket else f"https://{bucket}.{host}"

    def _where(self) -> str:
        bucket, prefix = self._bucket
        return f"s3://{bucket}/{prefix}".rstrip("/")

    def _origin(self, name: str) -> str:
        return f"{self._where()}/{name}"

    def _signed(self, url: str, **headers: str) -> dict[str, str]:
        """The headers with which to ask for `url` now. Raises SetupError for half a pair of keys."""
        access, secret = (self.account.secrets.get(name, "").strip() for name in ("access_key", "secret_key"))
        if not access and not secret:
            return headers
        if not access or not secret:
            raise SetupError(
                f"provider {self.account.slug} has only one of the two keys",
                code="credentials-missing",
                next_step=f"Enter the access key and the secret key of provider {self.account.slug}.",
            )
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest(method="GET", url=url, headers=headers)
        S3SigV4Auth(Credentials(access, secret), "s3", self._region).add_auth(request)
        return dict(request.headers.items())

    # what is there

    def test(self) -> str:
        bucket, prefix = self._bucket
        page = self._page(bucket, {"prefix": prefix})
        number = sum(1 for _ in _items(page))
        more = "more than " * (_text(page, "IsTruncated") == "true")
        return f"{self._where()} can be read; it holds {more}{number:,} file{'s' * (number != 1)}"

    def _held(self, patterns: Iterable[Pattern]) -> Iterator[Held]:
        bucket, prefix = self._bucket
        patterns = list(patterns)
        # only the folder that all have in common: a file that was named wrongly lies there, too
        common = os.path.commonprefix([one.head for one in patterns]).rpartition("/")
        folder = common[0] + common[1]
        asked = {"prefix": prefix + folder}
        if not any("/" in one.text.removeprefix(folder) for one in patterns):
            asked["delimiter"] = "/"
        while True:
            page = self._page(bucket, asked)
            for item in _items(page):
                name = item["Key"].removeprefix(prefix)
                # what ends with a slash is how some tools make a folder
                if name and not name.endswith("/"):
                    yield Held(name, int(item["Size"]), item["ETag"])
            if _text(page, "IsTruncated") != "true":
                return
            asked["continuation-token"] = _text(page, "NextContinuationToken")

    def _page(self, bucket: str, asked: Mapping[str, str]) -> ElementTree.Element:
        """One page of the bucket's list. Raises PipelineError."""
        url = f"{self._base(bucket)}/?{urlencode({'list-type': '2', **asked}, quote_via=quote, safe='~')}"
        text = self.door.get_text(url, headers=self._signed(url), expect="xml")
        try:
            if "<!DOCTYPE" in text:
                raise ValueError("it declares types of its own")
            # of a bounded size, and without a declaration in which entities could grow
            page = ElementTree.fromstring(text)  # noqa: S314
            if page.tag.rpartition("}")[2] != "ListBucketResult":
                raise ValueError("it is no list of a bucket")
        except (ElementTree.ParseError, ValueError) as error:
            raise DataError(
                f"{urlsplit(url).netloc} sent no list of {self._where()}: {error}",
                code="not-s3",
                next_step=f"Check the endpoint of provider {self.account.slug}.",
            ) from None
        return page

    def _pieces(self, held: Held, folder: Path) -> Iterator[bytes]:
        bucket, prefix = self._bucket
        url = f"{self._base(bucket)}/{quote(prefix + held.name, safe='/~')}"
        path = folder / f".{PurePosixPath(held.name).name}.s3"
        try:
            self.door.download(url, path, headers=self._signed(url, **{"If-Match": held.stamp}), expect="any")
        except SetupError as error:
            if error.code in ("http-412", "http-404"):
                raise TransientError(f"{self._origin(held.name)} was changed while it was to be read", code="source-moved") from None
            raise
        try:
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    yield piece
        finally:
            path.unlink()


def _items(page: ElementTree.Element) -> Iterator[dict[str, str]]:
    """The files of a page: Key, Size, ETag …"""
    for element in page:
        if element.tag.rpartition("}")[2] == "Contents":
            yield {child.tag.rpartition("}")[2]: child.text or "" for child in element}


def _text(page: ElementTree.Element, name: str) -> str:
    return next((element.text or "" for element in page if element.tag.rpartition("}")[2] == name), "")
