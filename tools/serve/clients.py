"""OpenAI's own client for Python against `pocketlm serve` with the real model: clients.py URL."""

import json
import math
import struct
import sys
import threading

import openai
from pydantic import BaseModel

URL = sys.argv[1]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
MODEL = client.models.list().data[0].id
ASK = dict(model=MODEL, temperature=0, max_tokens=40)
SKY = [{"role": "user", "content": "Why is the sky blue?"}]


def fails(kind, **request):
    try:
        client.chat.completions.create(**{**ASK, "messages": SKY, **request})
    except kind as error:
        return error
    raise AssertionError(f"{request} was answered")


def models():
    assert client.models.retrieve(MODEL).id == MODEL
    error = fails(openai.NotFoundError, model="gpt-4o")
    assert error.code == "model_not_found" and error.param == "model", error


def chat():
    whole = client.chat.completions.create(**ASK, messages=SKY)
    text = whole.choices[0].message.content
    assert len(text) > 50 and whole.choices[0].finish_reason in ("stop", "length"), whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = client.chat.completions.create(**ASK, messages=SKY, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens - 1, chunks[-1].usage
    # The helper that puts events together finds them in order.
    with client.chat.completions.stream(**ASK, messages=SKY) as events:
        kinds = [event.type for event in events]
    assert kinds[-1] == "content.done" and "content.delta" in kinds, kinds
    two = client.chat.completions.create(**{**ASK, "temperature": 1.2}, messages=SKY, n=2, seed=3, stop=["\n"])
    assert len(two.choices) == 2 and all("\n" not in choice.message.content for choice in two.choices)


def odds():
    told = client.chat.completions.create(**ASK, messages=SKY, logprobs=True, top_logprobs=5)
    content = told.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in content).decode() == told.choices[0].message.content
    for token in content:
        assert token.top_logprobs[0].token == token.token and token.logprob <= 0
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) < 1.0001
    biased = client.chat.completions.create(**ASK, messages=SKY, logit_bias={token_of(" blue"): -100})
    assert " blue" not in biased.choices[0].message.content


def token_of(text):
    return str(client.post("../tokenize", body={"content": text}, cast_to=object)["tokens"][0])


class City(BaseModel):
    name: str
    population: int
    is_capital: bool


def forms():
    question = [{"role": "user", "content": "Tell me of Paris, in JSON."}]
    parsed = client.chat.completions.parse(**{**ASK, "max_tokens": 200}, messages=question, response_format=City)
    assert isinstance(parsed.choices[0].message.parsed, City), parsed
    free = client.chat.completions.create(
        **{**ASK, "max_tokens": 300}, messages=question, response_format={"type": "json_object"}
    )
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(free.choices[0].message.content), dict)
    held = client.chat.completions.create(**ASK, messages=SKY, extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert held.choices[0].message.content in ("yes", "no")


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is like in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def tools():
    said = [{"role": "user", "content": "What is the weather like in Paris?"}]
    request = dict(ASK, tools=[TOOL], tool_choice="required", max_tokens=80)
    first = client.chat.completions.create(**request, messages=said)
    (call,) = first.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments).keys() == {"city"}
    streamed, name = "", None
    for chunk in client.chat.completions.create(**request, messages=said, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            name = delta.function.name or name
            streamed += delta.function.arguments or ""
    assert (name, json.loads(streamed)) == ("get_weather", json.loads(call.function.arguments))
    said += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 31 °C."}]
    last = client.chat.completions.create(**dict(request, tool_choice="none"), messages=said)
    assert last.choices[0].message.content, last


def completions():
    one = client.completions.create(**ASK, prompt="Once upon a time", logprobs=2)
    assert one.choices[0].text and len(one.choices[0].logprobs.tokens) >= 30
    streamed = client.completions.create(**ASK, prompt="Once upon a time", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == one.choices[0].text
    both = client.completions.create(**dict(ASK, max_tokens=3), prompt=["One", "Two"])
    assert [choice.index for choice in both.choices] == [0, 1]


def responses():
    ask = dict(model=MODEL, temperature=0, max_output_tokens=40)
    whole = client.responses.create(**ask, instructions="Be brief.", input="Why is the sky blue?")
    assert whole.output_text and whole.usage.output_tokens <= 40, whole
    hello = dict(ask, max_output_tokens=200, input="Say hello.")
    with client.responses.stream(**hello) as events:
        seen = [event.type for event in events]
        last = events.get_final_response()
    assert last.output_text == client.responses.create(**hello).output_text and "response.output_text.delta" in seen, seen
    tool = {"type": "function", **TOOL["function"], "strict": True}
    asked = [{"role": "user", "content": "What is the weather like in Paris?"}]
    called = client.responses.create(**dict(ask, max_output_tokens=80), input=asked, tools=[tool], tool_choice="required")
    (call,) = called.output
    assert call.type == "function_call" and json.loads(call.arguments).keys() == {"city"}
    asked += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}]
    assert client.responses.create(**ask, input=asked, tools=[tool], tool_choice="none").output_text
    parsed = client.responses.parse(**dict(ask, max_output_tokens=200), input="Tell me of Paris.", text_format=City)
    assert isinstance(parsed.output_parsed, City), parsed


def embeddings():
    texts = ["A cat sat on the mat.", "A kitten lay on the rug.", "Shares fell by 3 % on Monday."]
    # The client asks for base64 by itself, and for numbers where it is told to.
    coded = [row.embedding for row in client.embeddings.create(model=MODEL, input=texts).data]
    plain = [row.embedding for row in client.embeddings.create(model=MODEL, input=texts, encoding_format="float").data]
    single = lambda numbers: struct.pack(f"<{len(numbers)}f", *numbers)
    assert list(map(single, coded)) == list(map(single, plain))
    like = lambda a, b: sum(x * y for x, y in zip(coded[a], coded[b]))
    assert like(0, 1) > like(0, 2), (like(0, 1), like(0, 2))


def refusals():
    error = fails(openai.BadRequestError, temperature=-1)
    assert error.param == "temperature" and error.type == "invalid_request_error", error
    error = fails(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 20000}])
    assert error.code == "context_length_exceeded", error
    fails(openai.BadRequestError, extra_body={"grammar": "root ::= nothing"})


def together():
    alone = client.chat.completions.create(**ASK, messages=SKY).choices[0].message.content
    said = []
    ask = lambda: said.append(client.chat.completions.create(**ASK, messages=SKY).choices[0].message.content)
    threads = [threading.Thread(target=ask) for _ in range(6)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert len(said) == 6 and all(len(text) > 20 for text in said), (alone, said)
    # Who leaves in the middle leaves nothing behind.
    with client.chat.completions.create(**dict(ASK, max_tokens=2000), messages=SKY, stream=True) as stream:
        next(iter(stream))


for check in (models, chat, odds, forms, tools, completions, responses, embeddings, refusals, together):
    check()
    print(f"openai {openai.__version__} for Python: {check.__name__} is fine", flush=True)
