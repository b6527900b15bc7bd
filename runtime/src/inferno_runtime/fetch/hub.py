"""``hf://``: files of a repository of the Hugging Face hub, or of a mirror that speaks its protocol.

A single file is asked for with HEAD, as the hub's own client does; globs and folders need the repository's list. Files in
large storage come with their SHA-256 digest, which is held against what arrives.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from inferno_runtime.fetch.download import RemoteFile
from inferno_runtime.fetch.errors import BadSource, NotFound, Unauthorized
from inferno_runtime.fetch.http import Auth, Bearer, Client, no_credentials
from inferno_runtime.fetch.names import chosen
from inferno_runtime.sources import HubSource, is_folder, split_parts

ENDPOINT: Final = "https://huggingface.co"
_DIGEST: Final = re.compile("^[0-9a-f]{64}$")
_LIST_LIMIT: Final = 64 * 1024 * 1024  # bytes of a list of files
_REDIRECTED: Final = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Hub:
    """Where the hub is, and who asks."""

    client: Client
    endpoint: str = ENDPOINT
    auth: Auth = no_credentials

    @classmethod
    def of(cls, client: Client, endpoint: str | None, environment: Mapping[str, str] = os.environ) -> "Hub":
        """The hub that ``endpoint`` or HF_ENDPOINT names, with HF_TOKEN."""
        token = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")
        where = (endpoint or environment.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        return cls(client, where, Bearer(token.strip()) if token else no_credentials)

    def resolve(self, source: HubSource, names: Sequence[str]) -> list[RemoteFile]:
        """The files to fetch. Raises `FetchError`."""
        try:
            if "*" in source.path or is_folder(source):
                return self._listed(source, names)
            folder, _, name = source.path.rpartition("/")
            parts = [f"{folder}/{part}" if folder else part for part in split_parts(name) or [name]]
            return [self._single(source, path) for path in parts]
        except Unauthorized as error:
            # The hub says 401 of what is not there, too, so as not to tell what is.
            raise Unauthorized(
                f"{error}; a gated or private repository needs HF_TOKEN of an account that may read it, "
                f"and {source.repository} must be spelled right"
            ) from None

    def _single(self, source: HubSource, path: str) -> RemoteFile:
        url = self._url(source.repository, source.revision, path)
        with self.client.head(url, self.auth, allowed=_REDIRECTED, follow=False) as answer:
            headers = answer.headers
        # A file in large storage is redirected there, and described in headers of the hub's own.
        etag = headers.get("X-Linked-Etag") or headers.get("ETag")
        size = headers.get("X-Linked-Size") or (headers.get("Content-Length") if answer.status == 200 else None)
        commit = headers.get("X-Repo-Commit")
        bare = (etag or "").removeprefix("W/").strip('"')
        return RemoteFile(
            path.rpartition("/")[2],
            self._url(source.repository, commit or source.revision, path),
            size=int(size) if size and size.isdecimal() else None,
            sha256=bare if _DIGEST.match(bare) else None,
            auth=self.auth,
        )

    def _listed(self, source: HubSource, names: Sequence[str]) -> list[RemoteFile]:
        url = f"{self.endpoint}/api/models/{source.repository}/revision/{quote(source.revision, safe='')}?blobs=true"
        listing = self._json(url)
        siblings = listing.get("siblings")
        if not isinstance(siblings, list):
            raise BadSource(f"{self.endpoint} gave no list of the files of {source.repository}")
        files = {str(each.get("rfilename")): each for each in siblings if isinstance(each, dict)}
        picked = chosen(files, source.path, names)
        if not picked:
            raise NotFound(f"{source.repository} at {source.revision} has no file that matches {source.path or '/'}")
        commit = str(listing.get("sha") or source.revision)
        return [self._sibling(source, commit, path, name, files[path]) for name, path in picked.items()]

    def _sibling(self, source: HubSource, commit: str, path: str, name: str, told: Mapping[str, Any]) -> RemoteFile:
        lfs = told.get("lfs")
        digest = str(lfs.get("sha256") or lfs.get("oid") or "") if isinstance(lfs, dict) else ""
        size = told.get("size")
        return RemoteFile(
            name,
            self._url(source.repository, commit, path),
            size=size if isinstance(size, int) else None,
            sha256=digest if _DIGEST.match(digest) else None,
            auth=self.auth,
        )

    def _json(self, url: str) -> dict[str, Any]:
        with self.client.get(url, self.auth) as answer:
            body = b""
            for data in answer.chunks():
                body += data
                if len(body) > _LIST_LIMIT:
                    raise BadSource(f"{self.endpoint} gave a list of files that is longer than any")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise BadSource(f"{self.endpoint} does not speak the hub's protocol") from None
        return content if isinstance(content, dict) else {}

    def _url(self, repository: str, revision: str, path: str) -> str:
        return f"{self.endpoint}/{repository}/resolve/{quote(revision, safe='')}/{quote(path)}"
