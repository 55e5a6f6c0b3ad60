"""The page under /docs: what may be asked, made from the schema that stands under /openapi.json; nothing is fetched."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; font-family: ui-monospace, monospace; }
pre, .wide { overflow-x: auto; }
pre { padding: .7rem; border: 1px solid light-dark(#d4d9e0, #343a44); border-radius: .5rem; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0;
  border-bottom: 1px solid light-dark(#d4d9e0, #343a44); }
"""


def docs_page(schema: dict[str, Any], model: str, address: str) -> str:
    """HTML of all routes in `schema`, with a request to copy; `address` is where the server was asked."""
    routes = "".join(_route(schema, path, method, said) for path, method, said in _routes(schema))
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    asked = f"curl {address}v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>foresay: interface</title><style>{STYLE}</style></head><body>"
        f"<h1>OpenAI's interface, served by foresay</h1><p>Any client of OpenAI's takes "
        f"<code>{escape(address)}v1</code> as its base URL and <code>{escape(model)}</code> as the model. "
        '<a href="/">Chat page</a>, <a href="/openapi.json">schema</a>.</p>'
        f"<pre>{escape(asked)}</pre>{routes}</body></html>"
    )


def _routes(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            yield path, method, said


def _route(schema: dict[str, Any], path: str, method: str, said: dict[str, Any]) -> str:
    """One route: what it does, and the fields of its body."""
    content = said.get("requestBody", {}).get("content", {}).get("application/json", {})
    named = _named(schema, content.get("schema", {}))
    head = f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(said.get('description', said.get('summary', '')))}</p>"
    if not named:
        return head
    needed = named.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(schema, entry))}</td>"
        f"<td>{'needed' if name in needed else escape(_default(entry))}</td>"
        f"<td>{_told(entry)}</td></tr>"
        for name, entry in named["properties"].items()
    )
    heads = "<tr><th>field</th><th>what</th><th>default</th><th></th></tr>"
    return f'{head}<div class="wide"><table>{heads}{rows}</table></div>'


def _told(entry: dict[str, Any]) -> str:
    """What is said of a field; names in it as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(entry.get("description", "")))


def _named(schema: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """The schema that `entry` refers to by name; empty where it does not."""
    name = entry.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schema.get("components", {}).get("schemas", {}).get(name, {})
    return found


def _kind(schema: dict[str, Any], entry: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in entry:
        kinds = [_kind(schema, one) for one in entry["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in entry:
        return f"object of {', '.join(_named(schema, entry)['properties'])}"
    if "enum" in entry or "const" in entry:
        return ", ".join(map(str, entry.get("enum", [entry.get("const")])))
    if entry.get("type") == "array":
        return f"list of {_kind(schema, entry.get('items', {}))}"
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    said = [f"{word} {entry[name]:g}" for name, word in limits.items() if abs(entry.get(name, 1e9)) < 1e9]
    return " ".join((entry.get("type", "anything"), *said))


def _default(entry: dict[str, Any]) -> str:
    value = entry.get("default")
    if value is None or value in ([], ""):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
