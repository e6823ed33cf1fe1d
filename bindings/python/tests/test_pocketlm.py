"""The laws of the engine, through Python: ``python -m unittest discover bindings/python/tests``.

Most run on the repository's small model; the real one is named by ``POCKETLM_TEST_MODEL``.
"""

import asyncio
import gc
import json
import os
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pocketlm

SMALL = Path(__file__).parents[3] / "tests/fixtures/stories260k/stories260K-f32.gguf"
STORY = "Once upon a time"


def workers() -> int:
    """Threads of the library's that are at work."""
    names = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return names.count("pocketlm")


def settled(seconds: float = 5.0) -> bool:
    """Whether all answers come to rest."""
    gc.collect()
    end = time.monotonic() + seconds
    while workers() and time.monotonic() < end:
        time.sleep(0.01)
    return workers() == 0


class Laws(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.engine = pocketlm.Engine("cpu", exact=True)
        cls.model = cls.engine.load(SMALL)
        cls.whole = cls.told(60)

    @classmethod
    def told(cls, count: int, **options) -> pocketlm.Finish:
        answer = cls.model.session().generate(STORY, max_tokens=count, **options)
        answer.text()
        return answer.finish

    def test_an_answer_streams_in_pieces_and_has_timings(self) -> None:
        answer = self.model.session().generate(STORY, max_tokens=60)
        pieces = list(answer)
        self.assertGreater(len(pieces), 1)
        self.assertEqual("".join(pieces), self.whole.text)
        self.assertEqual(answer.finish.tokens, self.whole.tokens)
        self.assertEqual(answer.finish.reason, pocketlm.FinishReason.LENGTH)
        self.assertEqual(answer.finish.timings.generated_tokens, 60)
        self.assertEqual(list(answer), [])

    def test_async_for_has_the_same_and_others_go_on_meanwhile(self) -> None:
        async def tell() -> str:
            return "".join([text async for text in self.model.session().generate(STORY, max_tokens=60)])

        async def both() -> list[str]:
            return await asyncio.gather(tell(), tell(), tell())

        self.assertEqual(asyncio.run(both()), [self.whole.text] * 3)

    def test_leaving_early_stops_the_thread(self) -> None:
        session = self.model.session()
        for _ in session.generate(STORY):
            break
        self.assertTrue(settled())
        with session.generate(STORY) as answer:
            next(iter(answer))
        self.assertTrue(settled())
        answer = session.generate(STORY)
        del answer, session
        self.assertTrue(settled())

    def test_a_cancelled_task_stops_the_thread(self) -> None:
        self.engine.sustain(20.0)

        async def run() -> None:
            heard = asyncio.Event()

            async def listen() -> None:
                async for _ in self.model.session().generate(STORY):
                    heard.set()

            task = asyncio.create_task(listen())
            await heard.wait()
            self.assertGreater(workers(), 0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        try:
            asyncio.run(run())
            self.assertTrue(settled(1.0))
        finally:
            self.engine.sustain(None)

    def test_cancel_from_another_thread_keeps_the_text_so_far(self) -> None:
        self.engine.sustain(50.0)
        answer = self.model.session().generate(STORY)
        threading.Timer(0.3, answer.cancel).start()
        text = answer.text()
        self.engine.sustain(None)
        self.assertEqual(answer.finish.reason, pocketlm.FinishReason.CANCELLED)
        self.assertTrue(text and answer.finish.text == text)

    def test_a_seed_is_a_story_and_a_stop_ends_it(self) -> None:
        drawn = [self.told(40, temperature=1.0, top_k=40, seed=seed).tokens for seed in (1, 1, 2)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])
        stop = self.whole.text.split()[8]
        stopped = self.told(60, stop=[stop])
        self.assertEqual(stopped.reason, pocketlm.FinishReason.STOP)
        self.assertEqual(stopped.text, self.whole.text[: self.whole.text.index(stop)])

    def test_what_is_saved_goes_on(self) -> None:
        session = self.model.session()
        answer = session.generate(STORY, max_tokens=60)
        texts = iter(answer)
        next(texts)
        saved = session.to_bytes(kv=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "story.session")
            session.save(path)
            restored = [self.model.restore(saved), self.model.restore(path)]
        for session in restored:
            # The answer may have been over when it was saved.
            if session.is_unfinished:
                self.assertEqual(session.proceed(max_tokens=60).text(), self.whole.text)
        with self.assertRaises(pocketlm.BadFile):
            self.model.restore(saved[:-1])

    def test_sessions_are_computed_ahead_branch_and_slide(self) -> None:
        model = self.engine.load(SMALL, context=64)
        session = model.session()
        self.assertEqual(session.prewarm(STORY).text(), "")
        branch = session.branch()
        self.assertEqual(branch.generate(STORY, max_tokens=30).text(), self.told(30).text)
        self.assertLess(len(session.generate(STORY, max_tokens=200).text()), len(self.told(200).text))
        branch.set_overflow(pocketlm.Overflow.SLIDE(sinks=4))
        answer = branch.generate(STORY, max_tokens=200)
        answer.text()
        self.assertEqual(len(answer.finish.tokens), 200)
        with self.assertRaises(pocketlm.InvalidArgument):
            branch.set_overflow(pocketlm.Overflow.SLIDE(sinks=1000))

    def test_suspended_is_silent_and_resumed_the_same(self) -> None:
        answer = self.model.session().generate(STORY, max_tokens=60)
        self.assertTrue(self.engine.suspend(1000))
        self.engine.resume()
        self.assertEqual(answer.text(), self.whole.text)

    def test_errors_have_kinds_that_python_knows(self) -> None:
        with self.assertRaises(FileNotFoundError) as raised:
            self.engine.load("/nowhere/model.gguf")
        self.assertIsInstance(raised.exception, pocketlm.NotFound)
        self.assertIn("/nowhere/model.gguf", str(raised.exception))
        with self.assertRaises(pocketlm.BadFile):
            self.engine.load(__file__)
        with self.assertRaises(MemoryError) as raised:
            self.engine.load(SMALL, memory=4096)
        self.assertIsInstance(raised.exception, pocketlm.OutOfMemory)
        self.assertIn("allowed", str(raised.exception))
        session = self.model.session()
        for prompt, options in [
            (STORY, {"max_tokens": 0}),
            (STORY, {"temperature": float("nan")}),
            (STORY, {"max_tokens": -1}),
            (STORY, {"max_tokens": 1 << 40}),
            (STORY, {"stop": [""]}),
            (STORY, {"constraint": []}),
            (STORY, {"constraint": pocketlm.Constraint.REGEX("(")}),
            (STORY, {"constraint": pocketlm.Constraint.JSON_SCHEMA("{")}),
            ([1, 512], {}),
            ([1, -1], {}),
            ([{"role": "user"}, 3], {}),
            ("\ud800", {}),
        ]:
            with self.subTest(prompt=prompt, options=options), self.assertRaises(pocketlm.InvalidArgument):
                session.generate(prompt, **options)
        with self.assertRaises(TypeError):
            session.generate(STORY, no_such_option=1)
        with self.assertRaises(pocketlm.TemplateError):
            session.say("Hello")
        with self.assertRaises(pocketlm.ContextOverflow):
            session.generate([50] * 5000)
        with self.assertRaises(pocketlm.InvalidArgument):
            pocketlm.Engine("abacus")
        with self.assertRaises(pocketlm.InvalidArgument):
            self.engine.sustain(-1.0)
        busy = session.generate(STORY, max_tokens=500)
        with self.assertRaises(pocketlm.SessionBusy):
            session.generate(STORY)
        busy.cancel()
        session.close()
        with self.assertRaises(pocketlm.InvalidArgument):
            session.generate(STORY)

    def test_a_load_tells_and_can_be_stopped(self) -> None:
        stages = []
        self.engine.load(SMALL, progress=lambda stage, fraction: stages.append(stage))
        self.assertEqual(stages[0], pocketlm.LoadStage.READING)
        with self.assertRaises(pocketlm.Cancelled):
            self.engine.load(SMALL, progress=lambda stage, fraction: False)

        def fail(stage: pocketlm.LoadStage, fraction: float) -> None:
            raise KeyError("the app's own")

        with self.assertRaises(KeyError):
            self.engine.load(SMALL, progress=fail)
        with self.assertRaises(KeyError):
            asyncio.run(self.engine.load_async(SMALL, progress=fail))
        self.assertEqual(asyncio.run(self.engine.load_async(SMALL)).info.vocab, 512)

    def test_what_is_known_is_told(self) -> None:
        estimate = self.engine.estimate(SMALL, context=128)
        self.assertTrue(estimate.fits and estimate.total > 0 and estimate.why is None)
        refused = self.engine.estimate(SMALL, memory=4096)
        self.assertFalse(refused.fits)
        self.assertIn("allowed", refused.why)
        self.assertEqual(self.model.health.backend, "cpu")
        self.assertEqual(self.model.tokens(STORY)[0], 1)
        self.assertGreater(self.model.trim(pocketlm.Trim.CRITICAL), 0)
        self.engine.set_pace(pocketlm.Pace.FRAME(4.0))
        self.assertEqual(self.told(60).tokens, self.whole.tokens)
        self.engine.set_pace(pocketlm.Pace.FULL())

    def test_guesses_embeddings_scores_and_small_caches(self) -> None:
        self.assertEqual(self.told(60, lookup=True).tokens, self.whole.tokens)
        draft = self.engine.load(SMALL)
        self.assertEqual(self.told(60, draft=draft).tokens, self.whole.tokens)
        with self.assertRaises(pocketlm.InvalidArgument):
            self.told(60, draft=self.model)
        numbers = self.model.embed(STORY)
        self.assertAlmostEqual(sum(number * number for number in numbers), 1.0, places=4)
        score = self.model.score(STORY, ", there was")
        self.assertAlmostEqual(score.total, sum(score.log_probabilities))
        # An engine that is to be exact keeps keys and values whole.
        with self.assertRaises(pocketlm.InvalidArgument):
            self.engine.load(SMALL, kv_type=pocketlm.KvType.Q8)
        model = os.environ["POCKETLM_TEST_MODEL"]
        whole, small = (pocketlm.Engine("cpu").estimate(model, kv_type=kv_type) for kv_type in (None, pocketlm.KvType.Q8))
        self.assertLess(small.kv, whole.kv)
        places = [pocketlm.Places(kv_type=pocketlm.KvType.Q8, sessions=1)]
        session = pocketlm.Engine("cpu").load(SMALL, more_sessions=places).session()
        session.set_kv_type(pocketlm.KvType.Q8)
        answer = session.generate(STORY, max_tokens=5)
        answer.text()
        self.assertEqual(answer.finish.tokens, self.whole.tokens[:5])
        with self.assertRaises(pocketlm.InvalidArgument):
            session.set_kv_type(pocketlm.KvType.Q4)

    def test_many_threads_share_a_model(self) -> None:
        texts = []
        tell = lambda: texts.append(self.told(60).text)  # noqa: E731
        threads = [threading.Thread(target=tell) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(texts, [self.whole.text] * 6)


WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 30}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
QUESTION = "What is the weather like in Paris?"


class Tools(unittest.TestCase):
    """With the real model, on the CPU."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.model = pocketlm.Engine("cpu").load(os.environ["POCKETLM_TEST_MODEL"], context=512, prefill=64)

    def weather(self, call=None) -> pocketlm.Tool:
        return pocketlm.Tool("get_weather", "Says what the weather is like in a city.", WEATHER, call)

    def test_a_call_is_handed_out_and_its_result_back(self) -> None:
        session = self.model.session()
        options = {"tools": [self.weather()], "temperature": 0.0, "max_tokens": 60}
        answer = session.say(QUESTION, tool_choice="required", **options)
        streamed, calls = "", []
        for event in answer.events():
            self.assertFalse(event.is_TEXT())
            if event.is_TOOL_ARGUMENTS():
                self.assertEqual(event.name, "get_weather")
                streamed += event.text
            elif event.is_TOOL_CALL():
                calls.append(event.call)
        self.assertEqual(answer.finish.reason, pocketlm.FinishReason.TOOL_CALLS)
        self.assertEqual(answer.finish.calls, calls)
        arguments = json.loads(calls[0].arguments)
        print(f"{calls[0].name}({arguments})")
        self.assertEqual(json.loads(streamed), arguments)
        self.assertIn(arguments["unit"], ["C", "F"])
        session.returned(calls[0], {"degrees": 22})
        self.assertTrue(session.go_on(**options).text())
        roles = [message["role"] for message in session.transcript]
        self.assertEqual(roles, ["user", "assistant", "tool", "assistant"])
        self.assertEqual(session.transcript[1]["tool_calls"][0]["id"], calls[0].id)
        # What is taken up elsewhere is the same conversation.
        other = self.model.session()
        other.take_up(session.transcript[:3])
        self.assertEqual(other.go_on(**options).text(), session.transcript[3]["content"])

    def test_a_loop_calls_and_goes_on(self) -> None:
        def fail(city: str, unit: str) -> None:
            raise LookupError(f"no such city: {city}")

        cases = [(lambda city, unit: {"degrees": 22}, {"degrees": 22}), (lambda: 1, "error"), (fail, "error"), (None, "error")]
        for call, due in cases:
            session, heard = self.model.session(), []
            finish = session.run_tools(
                QUESTION, [self.weather(call)], rounds=1, listen=heard.append, tool_choice="get_weather", max_tokens=60,
                temperature=0.0,
            )  # fmt: skip
            self.assertTrue(any(event.is_TOOL_CALL() for event in heard))
            self.assertIn(finish.reason, [pocketlm.FinishReason.STOP, pocketlm.FinishReason.LENGTH, pocketlm.FinishReason.TOOL_CALLS])
            said = json.loads(session.transcript[2]["content"])
            self.assertIn("error", said) if due == "error" else self.assertEqual(said, due)
        # No round is left: the call is handed out. And what is no error of the tool's ends the loop.
        finish = self.model.session().run_tools(QUESTION, [self.weather()], rounds=0, tool_choice="required", max_tokens=60)
        self.assertEqual((finish.reason, len(finish.calls)), (pocketlm.FinishReason.TOOL_CALLS, 1))

        def interrupt(**_: str) -> None:
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.model.session().run_tools(QUESTION, [self.weather(interrupt)], tool_choice="required", max_tokens=60)

    def test_tools_that_make_no_sense_are_refused(self) -> None:
        session = self.model.session()
        sound = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
        for options in [
            {"tools": [pocketlm.Tool("get weather")]},
            {"tools": [pocketlm.Tool("\ud800")]},
            {"tools": [{"type": "function", "function": {}}]},
            {"tools": [{**sound, "function": 3}]},
            {"tools": [pocketlm.Tool("x", parameters={"type": {1, 2}})]},
            {"tools": [sound], "tool_choice": "other"},
            {"tools": [], "tool_choice": "required"},
            {"tools": [sound], "tool_choice": "required", "constraint": ["yes"]},
        ]:
            with self.subTest(options=options), self.assertRaises(pocketlm.InvalidArgument):
                session.say(QUESTION, **options)
        with self.assertRaises(pocketlm.Unsupported):
            session.say(QUESTION, tools=[pocketlm.Tool("x", parameters={"not": {}})], tool_choice="required")
        self.assertEqual(session.transcript, [])
        for arguments in ["3", '{"city": ']:
            with self.assertRaises(pocketlm.InvalidArgument):
                session.returned(pocketlm.ToolCall(id="c0", name="get_weather", arguments=arguments), "22")
        with self.assertRaises(pocketlm.InvalidArgument):
            session.returned(pocketlm.ToolCall(id="c0", name="get_weather", arguments="{}"), {1, 2})
        with self.assertRaises(pocketlm.InvalidArgument):
            session.take_up(["hello"])
        self.assertTrue(session.say("Hi", tools=[sound], tool_choice="none", max_tokens=3).text())

    def test_a_conversation_is_made_shorter_by_the_apps_rule(self) -> None:
        long = [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "word " * 520},
            {"role": "assistant", "content": "Yes.", "mood": ["calm"]},
        ]
        options = {"max_tokens": 16, "temperature": 0.0}
        question = "What is the capital of France?"
        session = self.model.session()
        session.take_up(long)
        with self.assertRaises(pocketlm.ContextOverflow):
            session.say(question, **options)
        asked = []

        def shorter(messages: list) -> list:
            asked.append(messages)
            if len(asked) == 1:
                # This session is busy, and nobody waits for it; another may be asked.
                with self.assertRaises(pocketlm.SessionBusy):
                    session.transcript
                with self.assertRaises(pocketlm.SessionBusy), ThreadPoolExecutor() as pool:
                    pool.submit(session.reset).result()
            self.assertTrue(self.model.session().say("Say hello.", max_tokens=4).text())
            return [messages[0], messages[-1]]

        def fail(messages: list) -> list:
            raise ValueError("the app's own")

        for rule, error in [
            (fail, ValueError),
            (lambda messages: messages, pocketlm.ContextOverflow),
            (lambda messages: [{"role": "user", "content": "\ud800"}], pocketlm.InvalidArgument),
            (lambda messages: [{"role": "user", "content": {1, 2}}], pocketlm.InvalidArgument),
            (lambda messages: ["hello"], pocketlm.InvalidArgument),
            (lambda messages: None, TypeError),
        ]:
            session.condense_with(rule)
            with self.subTest(error=error), self.assertRaises(error) as raised:
                session.say(question, **options)
            self.assertEqual(session.transcript, long)
            self.assertTrue(error is not ValueError or type(raised.exception) is ValueError)
        session.condense_with(shorter)
        branch = session.branch()
        for one in (session, branch):
            self.assertIn("Paris", one.say(question, **options).text())
            self.assertEqual([message["role"] for message in one.transcript], ["system", "user", "assistant"])
        self.assertEqual(len(asked), 2)
        self.assertEqual(asked[0][:3], long)
        session.take_up(long)
        session.forget_oldest()
        self.assertIn("Paris", session.say(question, **options).text())
        self.assertEqual(len(asked), 2)


class RealModel(unittest.TestCase):
    def test_a_conversation(self) -> None:
        path = os.environ["POCKETLM_TEST_MODEL"]
        for device in ["cpu"] if os.environ.get("POCKETLM_NO_GPU") else ["cpu", "gpu"]:
            with self.subTest(device=device):
                model = pocketlm.Engine(device).load(path, context=512, prefill=32)
                with model.session(instructions="Answer in one word.") as session:
                    answer = session.say("What is the capital of France?", max_tokens=16, temperature=0.0)
                    print(f"{model.health.device}: ", end="")
                    for text in answer:
                        print(text, end="", flush=True)
                    print(f" [{answer.finish.timings.decode_rate:.1f} tokens/s]")
                    self.assertIn("Paris", answer.finish.text)
                    again = session.say("And of Italy?", max_tokens=16, temperature=0.0)
                    self.assertIn("Rome", again.text())
                    self.assertGreater(again.finish.timings.cached_tokens, 20)
                    roles = [message["role"] for message in session.transcript]
                    self.assertEqual(roles, ["system", "user", "assistant", "user", "assistant"])
                with model.session() as session:
                    capital = session.say(
                        "What is the capital of France?", constraint=["Berlin", "Paris"], temperature=0.0
                    )
                    self.assertIn(capital.text(), ["Berlin", "Paris"])
                    schema = {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string", "maxLength": 12},
                            "age": {"type": "integer", "minimum": 0, "maximum": 120},
                        },
                        "required": ["name", "age"],
                        "additionalProperties": False,
                    }
                    person = session.say("Invent a person.", constraint=schema, temperature=0.0, max_tokens=100)
                    value = person.json()
                    print(f"  {value}")
                    self.assertIsInstance(value["age"], int)
                    self.assertIsInstance(value["name"], str)


if __name__ == "__main__":
    unittest.main()
