"""``https://``: a file by its URL, or the files of a folder by their names."""

import os
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from inferno_runtime.fetch.download import RemoteFile
from inferno_runtime.fetch.errors import BadSource
from inferno_runtime.fetch.http import web_credentials
from inferno_runtime.sources import WebSource, is_folder, split_parts


def resolve(source: WebSource, names: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[RemoteFile]:
    """The files to fetch. Raises `BadSource`."""
    auth = web_credentials(environment)
    if is_folder(source):
        if not names or any("*" in name for name in names):
            raise BadSource("a web server has no list of a folder's files: name them in spec.model.files, without *")
        return [RemoteFile(name, source.url + name, auth=auth) for name in sorted(set(names))]
    base, slash, rest = source.url.rpartition("/") if "?" not in source.url else _before_query(source.url)
    name, question, query = rest.partition("?")
    return [
        RemoteFile(unquote(part), f"{base}{slash}{part}{question}{query}", auth=auth)
        for part in split_parts(name) or [name]
    ]


def _before_query(url: str) -> tuple[str, str, str]:
    path, _, query = url.partition("?")
    base, slash, name = path.rpartition("/")
    return base, slash, f"{name}?{query}"
