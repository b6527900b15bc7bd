"""Which pages a browser may be on."""

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server.origin import check_origin

PAGE = "https://app.example.com"


def request(**headers: str) -> HTTPServerRequest:
    given = HTTPHeaders({"Host": "models.example.com:8000"})
    for name, value in headers.items():
        given[name.replace("_", "-")] = value
    return HTTPServerRequest(start_line=RequestStartLine("GET", "/ws/stream", "HTTP/1.1"), headers=given)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, ()),  # a program
        ({"Origin": "http://models.example.com:8000"}, ()),
        ({"Origin": "http://MODELS.example.com:8000"}, ()),
        ({"Sec_Fetch_Site": "same-origin", "Origin": "http://behind.a.proxy"}, ()),
        ({"Sec_Fetch_Site": "none"}, ()),
    ],
)
def test_the_servers_own_pages_and_programs(headers: dict[str, str], allowed: tuple[str, ...]) -> None:
    assert check_origin(request(**headers), allowed) is None


@pytest.mark.parametrize("allowed", [(PAGE,), (PAGE + "/",), (PAGE.upper(),), ("https://x.org", PAGE), ("*",)])
@pytest.mark.parametrize("site", [None, "cross-site", "same-site"])
def test_pages_that_are_allowed(allowed: tuple[str, ...], site: str | None) -> None:
    headers = {"Origin": PAGE} | ({"Sec_Fetch_Site": site} if site else {})
    assert check_origin(request(**headers), allowed) == PAGE


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://models.example.com"},  # another port
        {"Origin": "https://app.example.com.evil.org"},
        {"Origin": "http://[broken"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},  # such as an image
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://models.example.com:8000"},
    ],
)
def test_any_other_page(headers: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        check_origin(request(**headers), (PAGE,))
    assert (caught.value.status, caught.value.type) == (403, "permission_error")
    assert caught.value.code == "origin_not_allowed"
    assert "allowedOrigins" in caught.value.message
