"""``s3://``: objects of a bucket, on AWS or on anything that speaks S3, with requests signed by signature version 4."""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from requests_aws4auth import AWS4Auth

from inferno_runtime.fetch.download import RemoteFile
from inferno_runtime.fetch.errors import BadSource, NotFound, Rejected
from inferno_runtime.fetch.http import Answer, Auth, Client, no_credentials
from inferno_runtime.fetch.names import chosen
from inferno_runtime.sources import BucketSource, is_folder, split_parts

_LIST_LIMIT: Final = 16 * 1024 * 1024  # bytes of a page of a list
_PAGES_LIMIT: Final = 100
_ELSEWHERE: Final = (301, 307, 400)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket: where it is, and who asks. Without keys requests are not signed, as public buckets take them."""

    client: Client
    name: str
    region: str
    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, client: Client, name: str, endpoint: str | None, environment: Mapping[str, str] = os.environ
    ) -> "Bucket":
        """The bucket as the usual variables of AWS describe it: AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID, …"""
        where = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        return cls(
            client,
            name,
            environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
            where.rstrip("/") if where else None,
            environment.get("AWS_ACCESS_KEY_ID"),
            environment.get("AWS_SECRET_ACCESS_KEY"),
            environment.get("AWS_SESSION_TOKEN"),
        )

    def resolve(self, source: BucketSource, names: Sequence[str]) -> list[RemoteFile]:
        """The objects to fetch. Raises `FetchError`."""
        if "*" in source.path or is_folder(source):
            bucket, listed = self._listed(source.path.split("*")[0])
            picked = chosen(listed, source.path, names)
            if not picked:
                raise NotFound(f"s3://{self.name} has no object that matches {source.path or '/'}")
            return [bucket._single(path, name) for name, path in picked.items()]
        folder, _, name = source.path.rpartition("/")
        parts = split_parts(name) or [name]
        return [self._single(f"{folder}/{part}" if folder else part, part) for part in parts]

    def _single(self, key: str, name: str) -> RemoteFile:
        with self.client.head(self._url(key), self._auth(), allowed=_ELSEWHERE) as answer:
            if moved := self._moved(answer):
                return moved._single(key, name)
            headers = answer.headers
        return RemoteFile(
            name,
            self._url(key),
            size=answer.length,
            sha256=_digest(headers),
            etag=headers.get("ETag"),
            auth=self._auth(),
            precondition="If-Match",  # S3 knows no If-Range
        )

    def _listed(self, prefix: str) -> tuple["Bucket", list[str]]:
        """The keys that begin with ``prefix``, and the bucket in the region where it turned out to be."""
        keys: list[str] = []
        token = None
        for _ in range(_PAGES_LIMIT):
            query = {"list-type": "2", "prefix": prefix} | ({"continuation-token": token} if token else {})
            url = f"{self._url('')}?{urlencode(query, quote_via=quote, safe='')}"
            with self.client.get(url, self._auth(), allowed=_ELSEWHERE) as answer:
                if moved := self._moved(answer):
                    return moved._listed(prefix)
                page = _page(answer)
            keys += [found.text or "" for found in page.findall(".//{*}Contents/{*}Key")]
            token = page.findtext("{*}NextContinuationToken")
            if not token:
                return self, [key for key in keys if not key.endswith("/")]
        raise BadSource(f"s3://{self.name}/{prefix} has more objects than a model can have")

    def _moved(self, answer: Answer) -> "Bucket | None":
        """The bucket in the region that the answer names, if it is another than was asked."""
        if answer.status == 200:
            return None
        region = answer.headers.get("x-amz-bucket-region")
        if region and region != self.region:
            return replace(self, region=region)
        raise Rejected(
            f"s3://{self.name}: the server answered {answer.status}; AWS_REGION is taken to be {self.region}"
        )

    def _url(self, key: str) -> str:
        if self.endpoint:
            return f"{self.endpoint}/{self.name}/{quote(key)}"
        if "." in self.name:  # no certificate has a name for it
            return f"https://s3.{self.region}.amazonaws.com/{self.name}/{quote(key)}"
        return f"https://{self.name}.s3.{self.region}.amazonaws.com/{quote(key)}"

    def _auth(self) -> Auth:
        if not self.access_key or not self.secret_key:
            return no_credentials
        signer = AWS4Auth(self.access_key, self.secret_key, self.region, "s3", session_token=self.session_token)

        def sign(request: object) -> object:
            request.headers["x-amz-checksum-mode"] = "ENABLED"  # type: ignore[attr-defined]
            return signer(request)

        return sign  # type: ignore[return-value]


def _digest(headers: Mapping[str, str]) -> str | None:
    """The SHA-256 digest of the whole object, where it was uploaded with one."""
    value = headers.get("x-amz-checksum-sha256", "")
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT" or "-" in value:
        return None  # a digest of the parts' digests
    try:
        digest = base64.b64decode(value, validate=True)
    except ValueError:
        return None
    return digest.hex() if len(digest) == 32 else None


def _page(answer: Answer) -> ElementTree.Element:
    body = b""
    for data in answer.chunks():
        body += data
        if len(body) > _LIST_LIMIT:
            raise BadSource("the bucket's list of objects is longer than any")
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise BadSource("the bucket's list of objects is no such list")
    try:
        return ElementTree.fromstring(body)  # noqa: S314  # without a document type there are no entities to expand
    except ElementTree.ParseError:
        raise BadSource("the bucket's list of objects is not XML") from None
