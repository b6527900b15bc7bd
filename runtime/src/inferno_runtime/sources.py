"""Where a model comes from: the forms that ``spec.model.source`` may take.

The patterns are written in what Python's regular expressions and RE2's have in common: the API server judges by the
same ones, as CEL.
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_LENGTH: Final = 1024

# No white space, no control characters, and nothing that has a meaning in a URL or a glob: nobody has to guess whether
# it is decoded.
_NAME: Final = r"[^/\x00-\x20\x7f?#%*\\]+"
_GLOB: Final = r"[^/\x00-\x20\x7f?#%\\]+"
_FILE: Final = f"(/{_NAME})+"
_IN_STORE: Final = f"/({_GLOB}/)*({_GLOB})?"
_CLAIM: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_HOST: Final = r"([-.A-Za-z0-9]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
_URL_NAME: Final = r"[^/\x00-\x20\x7f?#*\\]+"
_DIGEST: Final = "@sha256:[0-9a-f]{64}"
_TAG: Final = "[A-Za-z0-9_][-.A-Za-z0-9_]{0,127}"
_IMAGE: Final = f"[-.A-Za-z0-9]+(:[0-9]{{1,5}})?(/[-._a-z0-9]+)*(:{_TAG}({_DIGEST})?|{_DIGEST})"
_REPOSITORY: Final = "[A-Za-z0-9][-.A-Za-z0-9_]*/[A-Za-z0-9][-.A-Za-z0-9_]*"

SHAPES: Final = {
    "pvc": (f"^pvc://{_CLAIM}{_FILE}$", "pvc://CLAIM/PATH"),
    "file": (f"^file://{_FILE}$", "file:///PATH"),
    "https": (
        rf"^https://{_HOST}/({_URL_NAME}/)*({_URL_NAME}([?][^\x00-\x20\x7f#\\]*)?)?$",
        "https://HOST/PATH without a user's name, and with a / at its end for a folder",
    ),
    "hf": (
        f"^hf://{_REPOSITORY}(@[-.A-Za-z0-9_]+)?{_IN_STORE}$",
        "hf://OWNER/REPOSITORY[@REVISION]/FILE, where FILE may have * in it or end with / for a folder",
    ),
    "s3": (
        f"^s3://[a-z0-9][-.a-z0-9]{{1,61}}[a-z0-9]{_IN_STORE}$",
        "s3://BUCKET/KEY, where KEY may have * in it or end with / for a folder",
    ),
    "oci": (f"^oci://{_IMAGE}({_FILE})?$", "oci://IMAGE:TAG[/PATH] or oci://IMAGE@sha256:DIGEST[/PATH]"),
}
"""By scheme: the pattern that a source must match, and what it looks like in words."""
SCHEME_MESSAGE: Final = "source must begin with pvc://, file://, https://, hf://, s3:// or oci://"
# In a URL a path may end where the query begins.
DOTS: Final = r"/[.][.]?(/|[?]|$)"
DOTS_MESSAGE: Final = "the path in source must not have . or .. as a component"
FILE_PATTERN: Final = f"^({_GLOB}/)*{_GLOB}$"
"""What names files of a folder."""

_SPLIT_GGUF: Final = re.compile(r"^(.*)-([0-9]{5})-of-([0-9]{5})[.]gguf$")


def shape_message(scheme: str) -> str:
    """What is said of a source that does not match its scheme's pattern."""
    return (
        f"source must be {SHAPES[scheme][1]}, with neither white space nor any of ? # % \\ in the path"
        if scheme != "https"
        else f"source must be {SHAPES[scheme][1]}"
    )


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """``pvc://CLAIM/PATH``: a file or folder in a PersistentVolumeClaim of the model's namespace; ``path`` is relative
    to its root.
    """

    claim: str
    path: str


@dataclass(frozen=True, slots=True)
class FileSource:
    """``file:///PATH``: a file or folder that is there already; ``path`` is absolute."""

    path: str


@dataclass(frozen=True, slots=True)
class ImageSource:
    """``oci://IMAGE[/PATH]``: a file or folder in an OCI image; an empty ``path`` is the image's root."""

    image: str
    path: str


@dataclass(frozen=True, slots=True)
class WebSource:
    """``https://HOST/PATH``: a file, or the folder that the names of files are appended to."""

    url: str

    @property
    def path(self) -> str:
        """The path in the URL, without its query."""
        return self.url.partition("://")[2].partition("/")[2].partition("?")[0]


@dataclass(frozen=True, slots=True)
class HubSource:
    """``hf://OWNER/REPOSITORY[@REVISION]/PATH``: files of a repository of the Hugging Face hub, or of a mirror."""

    repository: str
    revision: str
    path: str


@dataclass(frozen=True, slots=True)
class BucketSource:
    """``s3://BUCKET/KEY``: objects of a bucket; ``path`` is the key."""

    bucket: str
    path: str


LocalSource = ClaimSource | FileSource | ImageSource
RemoteSource = WebSource | HubSource | BucketSource
Source = LocalSource | RemoteSource


def parse_source(text: str) -> Source:
    """What ``text`` names. Raises ValueError, in the words of the CEL rules, if it names nothing."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"source must be at most {MAX_LENGTH} characters long")
    scheme, _, rest = text.partition("://")
    if scheme not in SHAPES or "://" not in text:
        raise ValueError(SCHEME_MESSAGE)
    if re.search(SHAPES[scheme][0], text) is None or text.endswith("\n"):
        raise ValueError(shape_message(scheme))
    if re.search(DOTS, text):
        raise ValueError(DOTS_MESSAGE)
    if scheme == "file":
        return FileSource(rest)
    if scheme == "https":
        return WebSource(text)
    if scheme == "hf":
        owner, name, path = rest.split("/", 2)
        name, _, revision = name.partition("@")
        return HubSource(f"{owner}/{name}", revision or "main", path)
    if scheme == "oci":
        image = re.match(_IMAGE, rest)
        assert image is not None
        return ImageSource(image[0], rest[image.end() :].removeprefix("/"))
    head, _, path = rest.partition("/")
    return BucketSource(head, path) if scheme == "s3" else ClaimSource(head, path)


def is_folder(source: RemoteSource) -> bool:
    """Whether the source is a folder; what a source that is there already turns out to be shows when it is looked at."""
    return source.path == "" or source.path.endswith("/")


def is_hidden(name: str) -> bool:
    """Whether a file, by its name or its path in a folder, is hidden, and so no part of a model."""
    return any(part.startswith(".") for part in name.split("/"))


def split_parts(name: str) -> list[str] | None:
    """The names of all parts of a split GGUF file, the first of them first, if ``name`` is that of one of them."""
    match = _SPLIT_GGUF.match(name)
    if match is None:
        return None
    stem, number, count = match[1], int(match[2]), int(match[3])
    if not 1 <= number <= count:
        return None
    return [f"{stem}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]
