"""Templates to text: Markdown, and HTML pages whose scripts and charts stand within them."""

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ser_batch.errors import printable
from ser_batch.report.emotion_colors import emotion_styles

CALLS_TEMPLATE = "predictions.html.j2"


def render(template: str, **values: Any) -> str:
    """Return a template with its values; in HTML, names of files and labels are text, whatever they hold."""
    text: str = _environment(is_html=template.endswith(".html.j2")).get_template(template).render(**values)
    return text


@functools.cache  # with it the templates are compiled once
def _environment(*, is_html: bool) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_batch", "templates"),
        # names of files and labels are data; Markdown has escapes of its own, `_markdown`
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=None if is_html else _markdown,
    )
    environment.filters["clock"] = clock
    return environment


def render_page(template: str, charts: Mapping[str, Any], data: Mapping[str, Any] | None = None, **values: Any) -> str:
    """Return an HTML page that needs no network."""
    from markupsafe import Markup

    is_of_calls = template == CALLS_TEMPLATE
    names = ("calls.js",) if is_of_calls else (*(("vega.js",) if charts else ()), "page.js")
    *libraries, own = map(_source, names)
    scripts = [*libraries, _source("print.js") + own]
    style = emotion_styles() + _source("page.css") + (_source("calls.css") if is_of_calls else "")
    # the page may run these scripts and no other, and load nothing but recordings; Vega interprets its expressions, so
    # no eval, and sets styles in place
    style_source, media = (_hash(style), "media-src 'self' file:; ") if is_of_calls else ("'unsafe-inline'", "")
    policy = (
        f"default-src 'none'; style-src {style_source}; script-src {' '.join(map(_hash, scripts))}; {media}"
        "base-uri 'none'; form-action 'none'"
    )
    return render(
        template,
        policy=Markup(policy),  # noqa: S704  # words and hashes
        style=Markup(style),  # noqa: S704  # files of this package
        scripts=[Markup(script) for script in scripts],  # noqa: S704  # files of this package
        page_data=Markup(_json({"charts": charts, **(data or {})})),  # noqa: S704  # has no <
        charts=charts,
        **values,
    )


def clock(seconds: float | None) -> str:
    """Return a place in a recording, or a duration, as 0:00 or 0:00:00; nothing where it is not known."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)  # down: a player that starts there misses nothing
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _markdown(value: Any) -> Any:
    """Return what stands in a Markdown page for a value: one line, and no tag of HTML, which Markdown lets through."""
    return printable(value).replace("&", "&amp;").replace("<", "&lt;") if isinstance(value, str) else value


def _source(name: str) -> str:
    from importlib.resources import files

    return (files("ser_batch") / "templates" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return what names a script in a Content Security Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(values: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the element it stands in."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
