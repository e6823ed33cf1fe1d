"""Tools that a model may ask its app to call, and conversations, as Python has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from . import pocketlm_ffi as _ffi
from ._errors import InvalidArgument

Message = Mapping[str, Any]
"""Who says something, ``role``, and what, ``content``; and whatever else the model's template knows."""

Condense = Callable[[list[dict[str, Any]]], Iterable[Message]]
"""Makes a conversation shorter that no longer fits."""


@dataclass(frozen=True)
class Tool:
    """Something that a model may ask its app to do. ``parameters`` is the JSON schema of its arguments. Where there is a ``call``,
    :meth:`Session.run_tools` calls it, with the arguments by name."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    call: Callable[..., Any] | None = None


ToolLike = Union[Tool, Mapping[str, Any]]
"""A tool, or an object as clients of OpenAI's interface send it."""


def tools(given: Sequence[ToolLike]) -> list[Any]:
    return [_tool(tool) for tool in given]


def _tool(tool: ToolLike) -> Any:
    if isinstance(tool, Mapping):
        tool = tool.get("function", tool)
        if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
            raise InvalidArgument("a tool has no name")
        tool = Tool(tool["name"], tool.get("description", ""), tool.get("parameters", {"type": "object"}))
    return _ffi.Tool(name=tool.name, description=tool.description, parameters=as_json(dict(tool.parameters)))


def choice(given: str | Any) -> Any:
    """``auto``, ``none``, ``required`` or the name of a tool."""
    if not isinstance(given, str):
        return given
    names = {"auto": _ffi.ToolChoice.AUTO, "none": _ffi.ToolChoice.NEVER, "required": _ffi.ToolChoice.REQUIRED}
    return names[given]() if given in names else _ffi.ToolChoice.NAMED(given)


def result(given: Any) -> str:
    """What a call came to, for the model to read."""
    return given if isinstance(given, str) else as_json(given)


def as_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"this cannot be said in JSON: {error}") from error


def message(given: Message) -> Any:
    """As the library has it."""
    if not isinstance(given, Mapping):
        raise InvalidArgument("a message is such as {'role': 'user', 'content': 'Hello'}")
    try:
        str(given.get("content")).encode()
    except UnicodeError as error:
        raise InvalidArgument(f"a message is no text: {error}") from error
    texts = {key: given[key] for key in ("role", "content") if isinstance(given.get(key), str)}
    more = {key: value for key, value in given.items() if key not in texts}
    return _ffi.Message(
        role=texts.get("role", ""), content=texts.get("content", ""), more=as_json(more) if more else None
    )


def told(given: Any) -> dict[str, Any]:
    """As Python has it."""
    return {"role": given.role, "content": given.content, **json.loads(given.more or "{}")}


class Condenser(_ffi.Condenser):
    """Asks a function; what that raises comes out of the call that asked, in its place."""

    def __init__(self, condense: Condense) -> None:
        self.rule = condense
        self.raised: BaseException | None = None

    def condense(self, messages: list[Any]) -> list[Any]:
        try:
            return [message(shorter) for shorter in self.rule([told(given) for given in messages])]
        except BaseException as error:
            self.raised = error
            raise _ffi.ListenerError.Failed(str(error)) from None
