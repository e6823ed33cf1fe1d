#!/usr/bin/env python3
"""Many clients at a time, some of which leave in the middle: load.py URL PID [--clients 64] [--seconds 300] [--leave 0.2].

Each client asks, reads the stream to its end or hangs up after a few pieces, and asks again. What is counted: answers that were
whole, answers that were left, and anything else, which is a failure: a stream without its end, a status that is neither 200
nor 429, an answer under another id. The memory of the process is looked at all along.
"""

import argparse
import asyncio
import json
import random
import time
from urllib.parse import urlsplit

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("pid", type=int)
parser.add_argument("--clients", type=int, default=64)
parser.add_argument("--seconds", type=float, default=300)
parser.add_argument("--leave", type=float, default=0.2)
parser.add_argument("--tokens", type=int, default=48)
args = parser.parse_args()
place = urlsplit(args.url)

TOPICS = ["the sea", "a dog", "bread", "the moon", "trains", "rain", "a violin", "mountains", "bees", "chess"]
whole, left, later, failures = 0, 0, 0, []
tokens, firsts, memory = 0, [], []


def resident():
    for line in open(f"/proc/{args.pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def ask(chance):
    """One request: how it ended."""
    global tokens
    body = json.dumps({
        "messages": [{"role": "user", "content": f"Tell me of {chance.choice(TOPICS)}, number {chance.randrange(10**6)}."}],
        "stream": True, "max_tokens": chance.randint(8, args.tokens), "seed": chance.randrange(10**9),
        "stream_options": {"include_usage": True},
    }).encode()
    leaves = chance.randint(1, 12) if chance.random() < args.leave else None
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        status = int((await reader.readline()).split()[1])
        while (line := await reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"retry-after:"):
                wait = float(line.split(b":")[1])
        if status == 429:
            return "later", wait
        if status != 200:
            return "failed", f"status {status}: {(await reader.read(500))!r}"
        seen, finish, usage, ids = 0, None, None, set()
        while True:
            line = await reader.readline()
            if not line:
                return "failed", f"a stream ended after {seen} pieces without its end"
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                break
            chunk = json.loads(line[6:])
            if "error" in chunk:
                return "failed", str(chunk)
            ids.add(chunk["id"])
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                finish = choice["finish_reason"] or finish
                if choice["delta"].get("content"):
                    if not seen:
                        firsts.append(time.monotonic() - begun)
                    seen += 1
            if leaves is not None and seen >= leaves:
                return "left", None
        if finish not in ("stop", "length") or len(ids) != 1 or usage is None:
            return "failed", f"{finish}, {ids}, {usage}"
        tokens += usage["completion_tokens"]
        return "whole", None
    finally:
        writer.close()


async def client(number, end):
    global whole, left, later
    chance = random.Random(number)
    while time.monotonic() < end:
        try:
            how, what = await asyncio.wait_for(ask(chance), 600)
        except (OSError, asyncio.TimeoutError, IndexError, ValueError) as error:
            how, what = "failed", repr(error)
        if how == "whole":
            whole += 1
        elif how == "left":
            left += 1
        elif how == "later":
            later += 1
            await asyncio.sleep(what * chance.uniform(0.5, 1.5))
        else:
            failures.append(what)
            await asyncio.sleep(1)


async def watch(begun, end):
    while time.monotonic() < end:
        memory.append((time.monotonic() - begun, resident()))
        await asyncio.sleep(5)


async def main():
    begun = time.monotonic()
    end = begun + args.seconds
    watcher = asyncio.create_task(watch(begun, end))
    await asyncio.gather(*(client(number, end) for number in range(args.clients)))
    took = time.monotonic() - begun
    await watcher
    firsts.sort()
    at = lambda share: firsts[min(len(firsts) - 1, int(share * len(firsts)))]
    warm = [mib for when, mib in memory if when > args.seconds / 5]
    print(f"{args.clients} clients for {took:.0f} s: {whole} answers whole, {left} left in the middle, {later} told to come later, {len(failures)} failed")
    print(f"{tokens} tokens in whole answers, {tokens / took:.1f} a second; the first after {at(.5):.2f} s (median), {at(.95):.2f} s (95 of 100), {firsts[-1]:.2f} s (longest)")
    print(f"resident memory, MiB: {memory[0][1]:.0f} at the beginning, from {min(warm):.0f} to {max(warm):.0f} after the first fifth, {warm[-1]:.0f} at the end")
    for failure in failures[:10]:
        print("failed:", failure)
    raise SystemExit(bool(failures))


asyncio.run(main())
