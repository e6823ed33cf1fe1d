"""Runs small, heavily compressed language models on the device in someone's hand.

>>> model = pocketlm.Engine().load("model.gguf")
>>> with model.session() as session:
...     for text in session.say("Why is the sky blue?", max_tokens=200):
...         print(text, end="", flush=True)

An answer is computed in a thread of its own. Iterating waits for it with the interpreter's lock let go; ``async for`` waits
without holding the event loop. Leaving either early, or the ``with`` around it, stops the thread and the device.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Union

from . import pocketlm_ffi as _ffi
from ._errors import (
    BadFile,
    CallbackFailed,
    Cancelled,
    ContextOverflow,
    DeviceLost,
    DeviceUnavailable,
    Error,
    InternalError,
    InvalidArgument,
    IoError,
    NotFound,
    OutOfMemory,
    SessionBusy,
    Suspended,
    TemplateError,
    Unsupported,
    WrongNumbers,
    translated,
)
from . import _tools
from ._tools import Condense, Message, Tool, ToolLike
from .pocketlm_ffi import (
    Adapter,
    Constraint,
    Device,
    Estimate,
    Event,
    Finish,
    FinishReason,
    Health,
    KvType,
    LoadStage,
    ModelInfo,
    Overflow,
    Pace,
    Places,
    Pooling,
    Score,
    Timings,
    ToolCall,
    ToolChoice,
    Trim,
)

__all__ = [
    "Adapter", "Answer", "BadFile", "CallbackFailed", "Cancelled", "Constraint", "ContextOverflow", "Device", "DeviceLost",
    "DeviceUnavailable", "Engine", "Error", "Estimate", "Event", "Finish", "FinishReason", "Health", "InternalError",
    "InvalidArgument", "IoError", "KvType", "LoadStage", "Model", "ModelInfo", "NotFound", "OutOfMemory", "Overflow", "Pace", "Places", "Pooling", "Prompt", "Score",
    "Session", "SessionBusy", "Suspended", "TemplateError", "Timings", "Tool", "ToolCall", "ToolChoice", "Trim", "Unsupported", "WrongNumbers",
    "version",
]  # fmt: skip

Prompt = Union[str, Sequence[Message], Sequence[int]]
"""Text as it is, a conversation, or tokens."""

Progress = Callable[[LoadStage, float], Any]
"""Hears how much of a stage is done, 0 to 1. ``False`` stops the load, and so does an exception, which comes out of it."""


def version() -> str:
    """The version of the library."""
    return _ffi.version()


class Engine:
    """A choice of device, and the models loaded on it. Options: see ``EngineOptions`` of the library."""

    def __init__(
        self,
        device: Device | str | None = None,
        *,
        threads: int | None = None,
        exact: bool = False,
        pinned: bool = False,
        max_buffer_bytes: int | None = None,
        patience_ms: int | None = None,
        tuning: str | os.PathLike[str] | None = None,
    ) -> None:
        with translated():
            options = _ffi.EngineOptions(
                device=_device(device),
                threads=threads,
                exact=exact,
                pinned=pinned,
                max_buffer_bytes=max_buffer_bytes,
                patience_ms=patience_ms,
                tuning=None if tuning is None else os.fspath(tuning),
            )
            self._engine = _ffi.Engine(options)

    def load(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
    ) -> Model:
        """Loads a model from a file or a folder. ``options``: context, sessions, prefill, memory, adapters, manifest,
        manifest_key, kv_type, more_sessions."""
        with _Listener(progress) as listener, translated():
            return Model(self._engine.load_and_wait(os.fspath(path), _ffi.LoadOptions(**options), listener, None))

    async def load_async(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
    ) -> Model:
        """As :meth:`load`, awaited. Cancelling the task stops the load."""
        cancellation = _ffi.Cancellation()
        with _Listener(progress) as listener, translated():
            try:
                loading = self._engine.load(os.fspath(path), _ffi.LoadOptions(**options), listener, cancellation)
                return Model(await loading)
            finally:
                cancellation.cancel()

    def estimate(self, path: str | os.PathLike[str], **options: Any) -> Estimate:
        """What a model would take of memory, before it is loaded."""
        with translated():
            return self._engine.estimate(os.fspath(path), _ffi.LoadOptions(**options))

    def set_pace(self, pace: Pace) -> None:
        """Shares the device from now on as ``pace`` says."""
        with translated():
            self._engine.set_pace(pace)

    def sustain(self, tokens_per_second: float | None) -> None:
        """Generates no more than so many tokens a second for each answer."""
        with translated():
            self._engine.sustain(tokens_per_second)

    def suspend(self, within_ms: int = 50, *, release: bool = False) -> bool:
        """Stops submitting until :meth:`resume`; whether all stands still by ``within_ms``."""
        return self._engine.suspend(within_ms, release)

    def resume(self) -> None:
        """Goes on after :meth:`suspend`."""
        self._engine.resume()


class Model:
    """A model on a device, for as many sessions as one likes. :meth:`Engine.load` makes it."""

    def __init__(self, model: _ffi.Model) -> None:
        self._model = model

    @property
    def info(self) -> ModelInfo:
        """What is known of it."""
        return self._model.info()

    @property
    def health(self) -> Health:
        """How it has fared on its device."""
        return self._model.health()

    def session(self, instructions: str | None = None) -> Session:
        """A new session, with an instruction to the model or without."""
        session = Session(self._model.session())
        if instructions is not None:
            session.instruct(instructions)
        return session

    def restore(self, saved: str | os.PathLike[str] | bytes) -> Session:
        """The session that :meth:`Session.save` wrote or :meth:`Session.to_bytes` gave."""
        with translated():
            if isinstance(saved, (bytes, bytearray, memoryview)):
                return Session(self._model.restore_bytes(bytes(saved)))
            return Session(self._model.restore(os.fspath(saved)))

    def tokens(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt as a session would compute them."""
        with translated():
            return self._model.tokens(_prompt(prompt))

    def embed(self, prompt: Prompt, pooling: Pooling = Pooling.MEAN) -> list[float]:
        """The embedding of a prompt, of length 1."""
        with translated():
            return self._model.embed(_prompt(prompt), pooling)

    def score(self, prompt: Prompt, continuation: str) -> Score:
        """How likely ``continuation`` is after a prompt."""
        with translated():
            return self._model.score(_prompt(prompt), continuation)

    def trim(self, level: Trim) -> int:
        """Gives memory back while the model stays loaded; how many bytes."""
        with translated():
            return self._model.trim(level)

    def weigh_adapters(self, weights: Sequence[float]) -> None:
        """Gives each adapter its weight; 0 takes one out."""
        with translated():
            self._model.weigh_adapters(list(weights))


class Session:
    """A conversation with a model, or any other sequence of tokens. One answer at a time."""

    def __init__(self, session: _ffi.Session) -> None:
        self._session: _ffi.Session | None = session
        self._answer: Answer | None = None
        self._condenser: _tools.Condenser | None = None

    def say(self, text: str, **options: Any) -> Answer:
        """Says something in the conversation; the answer is kept in it. ``options``: max_tokens, temperature, top_k, top_p,
        min_p, typical_p, repeat_penalty, repeat_last, frequency_penalty, presence_penalty, dry_multiplier, xtc_probability,
        mirostat, logit_bias (a dict), seed, stop, ignore_end, lookup, draft (a :class:`Model`). ``constraint`` says what the text must be: a
        :class:`Constraint`, a JSON schema as a dict, or a list of choices. It is, or the reason is ``LENGTH``. ``tools`` is what the
        model may ask for, a list of :class:`Tool` (or of dicts as OpenAI's clients send them), ``tool_choice`` whether: ``auto``,
        ``none``, ``required`` or the name of one. The reason is then ``TOOL_CALLS``; hand the results of ``finish.calls`` to
        :meth:`returned` and :meth:`go_on`, or have :meth:`run_tools` do it."""
        return self._talk(lambda session: session.say(text, _options(options)))

    def go_on(self, **options: Any) -> Answer:
        """Answers to the conversation as it is, such as to the results of calls; options as for :meth:`say`."""
        return self._talk(lambda session: session.go_on(_options(options)))

    def returned(self, call: ToolCall, result: Any) -> None:
        """Adds to the conversation what a call came to: a text, or what can be said in JSON."""
        with translated():
            self._open().returned(call, _tools.result(result))

    def run_tools(
        self,
        text: str,
        tools: Sequence[Tool],
        *,
        rounds: int = 4,
        listen: Callable[[Event], Any] | None = None,
        **options: Any,
    ) -> Finish:
        """Says something, calls the tools that the model asks for, hands their results back, and so on until it answers without a
        call, ``rounds`` times at most: how that answer ended. What a tool raises is told to the model, and so is that there is
        none of a name. ``listen`` hears all events."""
        options["tools"] = tools
        answer = self.say(text, **options)
        for left in range(rounds, -1, -1):
            for event in answer.events():
                if listen is not None:
                    listen(event)
            finish = answer.finish
            if finish is None:
                raise InternalError("an answer ended without its last event")
            if finish.reason != FinishReason.TOOL_CALLS or left == 0:
                break
            for call in finish.calls:
                self.returned(call, _called(tools, call))
            options["tool_choice"] = "auto"
            answer = self.go_on(**options)
        return finish

    def generate(self, prompt: Prompt, **options: Any) -> Answer:
        """Continues ``prompt``; options as for :meth:`say`."""
        with translated():
            self._answer = Answer(self._open().generate(_prompt(prompt), _options(options)))
            return self._answer

    def proceed(self, **options: Any) -> Answer:
        """Goes on with the answer that was under way when the session was saved."""
        with translated():
            self._answer = Answer(self._open().proceed(_options(options)))
            return self._answer

    def prewarm(self, prompt: Prompt) -> Answer:
        """Computes the beginning of what will be asked, ahead of time; the answer has no text."""
        with translated():
            self._answer = Answer(self._open().prewarm(_prompt(prompt)))
            return self._answer

    def branch(self) -> Session:
        """Another session that goes on from here; what is computed is shared."""
        with translated():
            branch = Session(self._open().branch())
            if self._condenser is not None:
                branch.condense_with(self._condenser.rule)
            return branch

    def set_overflow(self, overflow: Overflow) -> None:
        """What becomes of the session when it outgrows the context: ``Overflow.STOP()`` or ``Overflow.SLIDE(sinks=4)``."""
        with translated():
            self._open().set_overflow(overflow)

    def set_kv_type(self, kv_type: KvType) -> None:
        """Has keys and values of this session kept in another type than those of others, where the model was loaded with
        places for that: ``more_sessions=[Places(kv_type=KvType.Q4, sessions=1)]``."""
        with translated():
            self._open().set_kv_type(kv_type)

    def forget_oldest(self) -> None:
        """Has a conversation that no longer fits forget its oldest exchange before the next answer."""
        with translated():
            self._open().forget_oldest()
            self._condenser = None

    def condense_with(self, condense: Condense) -> None:
        """Has a conversation that no longer fits made shorter before the next answer: ``condense`` is given all of its messages,
        what the user said last included, and returns those that are to stand for it. What it raises comes out of the call that
        asked. It may ask the model, in another session; this one is busy meanwhile."""
        with translated():
            condenser = _tools.Condenser(condense)
            self._open().condense_with(condenser)
            self._condenser = condenser

    def instruct(self, instructions: str) -> None:
        """Begins the conversation with an instruction to the model, in place of all that was said."""
        with translated():
            self._open().instruct(instructions)

    def take_up(self, conversation: Sequence[Message]) -> None:
        """Puts a conversation in place of this one; what both begin with is not computed again."""
        with translated():
            self._open().take_up([_tools.message(message) for message in conversation])

    def reset(self) -> None:
        """Forgets what was said, but for the instructions."""
        with translated():
            self._open().reset()

    @property
    def transcript(self) -> list[dict[str, Any]]:
        """The conversation so far."""
        with translated():
            return [_tools.told(message) for message in self._open().transcript()]

    @property
    def is_unfinished(self) -> bool:
        """Whether an answer was under way when the session was saved, and has not gone on since."""
        with translated():
            return self._open().is_unfinished()

    def save(self, path: str | os.PathLike[str], *, kv: bool = False) -> None:
        """Saves the session to a file; with ``kv`` keys and values too."""
        with translated():
            self._open().save(os.fspath(path), kv)

    def to_bytes(self, *, kv: bool = False) -> bytes:
        """The session in bytes."""
        with translated():
            return self._open().to_bytes(kv)

    def close(self) -> None:
        """Ends the session and stops its answer."""
        if self._answer is not None:
            self._answer.cancel()
        self._session = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _talk(self, start: Callable[[_ffi.Session], _ffi.Stream]) -> Answer:
        with self._condensed(), translated():
            session = self._open()
            self._answer = Answer(start(session), lambda finish: session.answered(finish.text, finish.calls))
            return self._answer

    @contextmanager
    def _condensed(self) -> Iterator[None]:
        """What the app's rule raised, in place of what came of it."""
        try:
            yield
        except CallbackFailed:
            raised = self._condenser and self._condenser.raised
            if raised is None:
                raise
            self._condenser.raised = None
            raise raised from None

    def _open(self) -> _ffi.Session:
        if self._session is None:
            raise InvalidArgument("the session is closed")
        return self._session


class Answer:
    """An answer under way. Iterating gives its text, piece by piece, and so does ``async for``; :meth:`events` gives all news.
    Once it is over, :attr:`finish` says how."""

    def __init__(self, stream: _ffi.Stream, ended: Callable[[Finish], None] | None = None) -> None:
        self._stream = stream
        self._ended = ended
        self._finish: Finish | None = None

    def __iter__(self) -> Iterator[str]:
        for event in self.events():
            if event.is_TEXT():
                yield event.text

    def __aiter__(self) -> AsyncIterator[str]:
        return self._texts()

    def events(self) -> Iterator[Event]:
        """All events, one by one."""
        try:
            while (event := self._wait()) is not None:
                yield event
        finally:
            self.cancel()

    async def events_async(self) -> AsyncIterator[Event]:
        """All events, awaited."""
        try:
            while True:
                with translated():
                    event = await self._stream.next()
                if event is None:
                    return
                self._hear(event)
                yield event
        finally:
            self.cancel()

    @property
    def finish(self) -> Finish | None:
        """How it ended; None before that."""
        return self._finish

    def text(self) -> str:
        """Waits for the end; all of the text."""
        for _ in self.events():
            pass
        return self._finish.text if self._finish else ""

    async def text_async(self) -> str:
        """Awaits the end; all of the text."""
        async for _ in self.events_async():
            pass
        return self._finish.text if self._finish else ""

    def json(self) -> Any:
        """Waits for the end; the value of a text that had to be JSON.

        Raises ``ValueError`` where the answer was cut, which its reason says too."""
        return json.loads(self.text())

    def cancel(self) -> None:
        """Stops it, from any thread: it ends with the text so far."""
        self._stream.cancel()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def _texts(self) -> AsyncIterator[str]:
        events = self.events_async()
        try:
            async for event in events:
                if event.is_TEXT():
                    yield event.text
        finally:
            await events.aclose()

    def _wait(self) -> Event | None:
        with translated():
            event = self._stream.wait()
        if event is not None:
            self._hear(event)
        return event

    def _hear(self, event: Event) -> None:
        if event.is_FINISHED():
            self._finish = event.finish
            if self._ended is not None:
                self._ended(event.finish)


class _Listener(_ffi.LoadListener):
    """Tells a progress function; what that raises comes out of the load in its place."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._raised: BaseException | None = None

    def on_progress(self, stage: LoadStage, fraction: float) -> bool:
        if self._progress is None:
            return True
        try:
            return self._progress(stage, fraction) is not False
        except BaseException as error:
            self._raised = error
            return False

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is Cancelled and self._raised is not None:
            raise self._raised from None


def _options(options: dict[str, Any]) -> Any:
    if "tools" in options:
        options = {**options, "tools": _tools.tools(options["tools"])}
    if isinstance(options.get("tool_choice"), str):
        options = {**options, "tool_choice": _tools.choice(options["tool_choice"])}
    constraint = options.get("constraint")
    if isinstance(constraint, Mapping):
        options = {**options, "constraint": _ffi.Constraint.JSON_SCHEMA(json.dumps(constraint))}
    elif isinstance(constraint, (list, tuple)) and not isinstance(constraint, _ffi.Constraint):
        options = {**options, "constraint": _ffi.Constraint.CHOICE(list(constraint))}
    if isinstance(options.get("draft"), Model):
        options = {**options, "draft": options["draft"]._model}
    biases = options.get("logit_bias")
    if isinstance(biases, Mapping):
        pairs = [_ffi.LogitBias(token=token, bias=bias) for token, bias in biases.items()]
        options = {**options, "logit_bias": pairs}
    return _ffi.GenerateOptions(**options)


def _called(tools: Sequence[Tool], call: ToolCall) -> Any:
    """What a call came to; what went wrong, where it did."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None or tool.call is None:
        return {"error": f"there is no tool {call.name!r}"}
    try:
        return _tools.result(tool.call(**json.loads(call.arguments)))
    except Exception as error:
        return {"error": str(error) or type(error).__name__}


def _device(device: Device | str | None) -> Any:
    if not isinstance(device, str):
        return device
    names = {"auto": _ffi.Device.AUTO, "gpu": _ffi.Device.GPU, "cpu": _ffi.Device.CPU}
    if device not in names:
        raise InvalidArgument(f"there is no device {device!r}; auto, gpu, cpu or Device.INDEX(0) would work")
    return names[device]()


def _prompt(prompt: Prompt) -> Any:
    if isinstance(prompt, str):
        return _ffi.Prompt.RAW(prompt)
    items = list(prompt)
    if items and all(isinstance(item, Mapping) for item in items):
        return _ffi.Prompt.JSON(json.dumps([dict(item) for item in items]))
    if all(isinstance(item, int) for item in items):
        return _ffi.Prompt.TOKENS(items)
    raise InvalidArgument("a prompt is a text, tokens, or messages such as {'role': 'user', 'content': 'Hello'}")
