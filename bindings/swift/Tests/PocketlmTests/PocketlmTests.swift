// The laws of the engine, through Swift; `build-linux MODEL` and Xcode run them. `POCKETLM_TEST_MODEL` names a real model.
import Foundation
import XCTest

import Pocketlm

final class PocketlmTests: XCTestCase {
    let story = Prompt.raw(text: "Once upon a time")
    let path = ProcessInfo.processInfo.environment["POCKETLM_TEST_MODEL"] ?? ""

    func tokens(_ count: UInt32) -> GenerateOptions { GenerateOptions(maxTokens: count, temperature: 0) }

    func load() async throws -> (Engine, Model) {
        let engine = Engine(EngineOptions(device: .cpu))
        let options = LoadOptions(context: 512, prefill: 32)
        return (engine, try await engine.load(URL(fileURLWithPath: path), options: options))
    }

    func testAConversationStreams() async throws {
        let (_, model) = try await load()
        let session = await model.session(instructions: "Answer in one word.")
        var text = ""
        for try await piece in session.say("What is the capital of France?", options: tokens(16)).texts { text += piece }
        XCTAssert(text.contains("Paris"), text)
        let finish = try await session.say("And of Italy?", options: tokens(16)).finish()
        XCTAssert(finish.text.contains("Rome"), finish.text)
        XCTAssertGreaterThan(finish.timings.cachedTokens, 20)
        XCTAssertEqual(session.transcript.map(\.role), ["system", "user", "assistant", "user", "assistant"])
    }

    func testSnapshotsGrow() async throws {
        let (_, model) = try await load()
        var last = ""
        for try await text in (await model.session()).generate(story, options: tokens(20)).snapshots {
            XCTAssert(text.hasPrefix(last))
            last = text
        }
        XCTAssertFalse(last.isEmpty)
    }

    func testACancelledTaskStopsTheAnswer() async throws {
        let (engine, model) = try await load()
        try engine.sustain(20)
        let session = await model.session()
        let answer = session.generate(story)
        let task = Task {
            var reason: FinishReason?
            for try await event in answer {
                if case .finished(let finish) = event { reason = finish.reason }
            }
            return reason
        }
        try await Task.sleep(nanoseconds: 500_000_000)
        task.cancel()
        let reason = try await task.value
        XCTAssertEqual(reason, .cancelled)
        // The session is free again.
        try engine.sustain(nil)
        let finish = try await session.generate(story, options: tokens(5)).finish()
        XCTAssertEqual(finish.tokens.count, 5)
    }

    func testLeavingEarlyFreesTheSession() async throws {
        let (_, model) = try await load()
        let session = await model.session()
        for try await _ in session.generate(story).texts { break }
        let finish = try await session.generate(story, options: tokens(5)).finish()
        XCTAssertEqual(finish.tokens.count, 5)
    }

    func testALoadCanBeStopped() async throws {
        do {
            _ = try await Engine(EngineOptions(device: .cpu)).load(URL(fileURLWithPath: path)) { _, _ in false }
            XCTFail("the load went on")
        } catch PocketlmError.Cancelled {
        }
    }

    func testErrorsAreTyped() async throws {
        let engine = Engine(EngineOptions(device: .cpu))
        do {
            _ = try await engine.load(URL(fileURLWithPath: "/nowhere/model.gguf"))
            XCTFail("there is no such model")
        } catch PocketlmError.NotFound(let message) {
            XCTAssert(message.contains("/nowhere/model.gguf"), message)
        }
    }

    func testAnAnswerIsAValue() async throws {
        struct Person: Decodable { let age: Int }
        let (_, model) = try await load()
        let schema = #"{"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}}, "#
            + #""required": ["age"], "additionalProperties": false}"#
        let session = await model.session()
        let person: Person = try await session.respond(to: "Invent a person.", schema: schema, options: tokens(60))
        XCTAssert((0...120).contains(person.age))
    }

    func testSuspendedAndResumedIsTheSame() async throws {
        let (engine, model) = try await load()
        let whole = try await (await model.session()).generate(story, options: tokens(20)).finish()
        let session = await model.session()
        async let answer = session.generate(story, options: tokens(20)).finish()
        XCTAssert(engine.suspend(within: 1000))
        engine.resume()
        let tokens = try await answer.tokens
        XCTAssertEqual(tokens, whole.tokens)
    }
}
