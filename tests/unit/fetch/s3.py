"""An S3 server that checks signatures, written from the specification of signature version 4."""

import hashlib
import hmac
import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.unit.fetch.web import Handler, Web

ACCESS, SECRET, TOKEN, REGION = "AKIDEXAMPLE", "s3cr3t/Key+", "session-token", "eu-central-1"
_FORM = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=(\w+)"
)


class S3:
    """Answers for ``bucket`` of a `Web`. ``sums``: SHA-256 checksums in base64 by key."""

    def __init__(self, web: Web, bucket: str = "models", page: int = 1000) -> None:
        self._web = web
        self._bucket = bucket
        self._page = page
        self.sums: dict[str, str] = {}
        web.hook = self._answer

    def _answer(self, handler: Handler) -> bool:
        if trouble := refused(handler):
            code, headers = trouble
            handler.answer(code, headers, b"<Error/>")
            return True
        parts = urlsplit(handler.path)
        if parts.path == f"/{self._bucket}/" and handler.command == "GET":
            handler.answer(200, {"Content-Type": "application/xml"}, self._list(dict(parse_qsl(parts.query))))
            return True
        handler.path = unquote(parts.path)
        key = handler.path.removeprefix(f"/{self._bucket}/")
        if handler.command == "HEAD" and key in self.sums:
            body = self._web.files[handler.path]
            headers = {"ETag": self._web.etag(handler.path), "x-amz-checksum-sha256": self.sums[key]}
            handler.answer(200, headers | {"Content-Length": str(len(body))}, b"")
            return True
        return False

    def _list(self, query: dict[str, str]) -> bytes:
        keys = sorted(path.removeprefix(f"/{self._bucket}/") for path in self._web.files)
        keys = [key for key in keys if key.startswith(query.get("prefix", ""))]
        start = int(query.get("continuation-token", "0"))
        shown, more = keys[start : start + self._page], start + self._page < len(keys)
        token = f"<NextContinuationToken>{start + self._page}</NextContinuationToken>" if more else ""
        contents = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in shown)
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        return f'<?xml version="1.0"?><ListBucketResult xmlns="{space}">{contents}{token}</ListBucketResult>'.encode()


def refused(handler: Handler) -> tuple[int, dict[str, str]] | None:
    """Why S3 would not serve the request."""
    match = _FORM.fullmatch(handler.headers.get("Authorization", ""))
    if match is None:
        return 403, {}
    access, day, region, signed, signature = match.groups()
    if region != REGION:
        return 400, {"x-amz-bucket-region": REGION}
    parts = urlsplit(handler.path)
    names = signed.split(";")
    if access != ACCESS or not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
        return 403, {}
    query = "&".join(
        sorted(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in parse_qsl(parts.query, keep_blank_values=True))
    )
    canonical = "\n".join(
        [
            handler.command,
            quote(unquote(parts.path), safe="/~"),
            query,
            *(f"{name}:{' '.join(handler.headers[name].split())}" for name in names),
            "",
            signed,
            handler.headers["x-amz-content-sha256"],
        ]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", handler.headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return None if hmac.compare_digest(expected, signature) else (403, {})
