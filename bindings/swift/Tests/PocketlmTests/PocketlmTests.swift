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
        let session = try await model.session(instructions: "Answer in one word.")
        var text = ""
        for try await piece in session.say("What is the capital of France?", options: tokens(16)).texts { text += piece }
        XCTAssert(text.contains("Paris"), text)
        let finish = try await session.say("And of Italy?", options: tokens(16)).finish()
        XCTAssert(finish.text.contains("Rome"), finish.text)
        XCTAssertGreaterThan(finish.timings.cachedTokens, 20)
        XCTAssertEqual(try session.transcript.map(\.role), ["system", "user", "assistant", "user", "assistant"])
    }

    func testSnapshotsGrow() async throws {
        let (_, model) = try await load()
        var last = ""
        for try await text in (try await model.session()).generate(story, options: tokens(20)).snapshots {
            XCTAssert(text.hasPrefix(last))
            last = text
        }
        XCTAssertFalse(last.isEmpty)
    }

    func testACancelledTaskStopsTheAnswer() async throws {
        let (engine, model) = try await load()
        try engine.sustain(20)
        let session = try await model.session()
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
        let session = try await model.session()
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
        let session = try await model.session()
        let person: Person = try await session.respond(to: "Invent a person.", schema: schema, options: tokens(60))
        XCTAssert((0...120).contains(person.age))
    }

    let weather = Tool(
        name: "get_weather", description: "Says what the weather is like in a city.",
        parameters: #"{"type": "object", "properties": {"city": {"type": "string", "maxLength": 30}, "#
            + #""unit": {"enum": ["C", "F"]}}, "required": ["city", "unit"], "additionalProperties": false}"#)

    func calling(_ choice: ToolChoice?, _ tools: [Tool]? = nil) -> GenerateOptions {
        var options = tokens(60)
        options.tools = tools ?? [weather]
        options.toolChoice = choice
        return options
    }

    func testACallIsHandedOutAndItsResultBack() async throws {
        let (_, model) = try await load()
        let session = try await model.session()
        var (streamed, calls, finish) = ("", [ToolCall](), Finish?.none)
        for try await event in session.say("What is the weather like in Paris?", options: calling(.required)) {
            switch event {
            case .toolArguments(_, let name, let text):
                XCTAssertEqual(name, "get_weather")
                streamed += text
            case .toolCall(let call): calls.append(call)
            case .finished(let last): finish = last
            default: break
            }
        }
        XCTAssertEqual(finish?.reason, .toolCalls)
        XCTAssertEqual(finish?.calls, calls)
        let call = try XCTUnwrap(calls.first)
        struct Arguments: Decodable, Equatable { let city: String, unit: String }
        let arguments = try JSONDecoder().decode(Arguments.self, from: Data(call.arguments.utf8))
        XCTAssertEqual(try JSONDecoder().decode(Arguments.self, from: Data(streamed.utf8)), arguments)
        try session.returned(call, "22 degrees, sunny")
        let answer = try await session.goOn(options: calling(nil)).finish()
        XCTAssertEqual(try session.transcript.map(\.role), ["user", "assistant", "tool", "assistant"])
        // What is taken up elsewhere is the same conversation.
        let other = try await model.session()
        try other.takeUp(Array(try session.transcript.prefix(3)))
        let again = try await other.goOn(options: calling(nil)).finish()
        XCTAssertEqual(again.tokens, answer.tokens)
    }

    func testALoopCallsAndGoesOn() async throws {
        struct Lost: Error {}
        let (_, model) = try await load()
        let functions: [(ToolFunction, (String) -> Bool)] = [
            (ToolFunction(weather) { _ in "22 degrees" }, { $0 == "22 degrees" }),
            (ToolFunction(weather) { _ in throw Lost() }, { $0.contains("error") && $0.contains("Lost") }),
        ]
        for (function, isDue) in functions {
            let session = try await model.session()
            let question = "What is the weather like in Paris?"
            _ = try await session.runTools(
                question, tools: [function], options: calling(.named(name: "get_weather")), rounds: 1)
            let said = try session.transcript[2].content
            XCTAssert(isDue(said), said)
        }
    }

    func testToolsThatMakeNoSenseAreRefused() async throws {
        let (_, model) = try await load()
        let session = try await model.session()
        let wrong = [
            calling(.named(name: "other")), calling(.required, []),
            calling(nil, [Tool(name: "get weather", description: "")]),
            calling(nil, [Tool(name: "x", description: "", parameters: "{")]),
        ]
        for options in wrong {
            do {
                _ = try await session.say("Hello", options: options).finish()
                XCTFail("\(options) was taken")
            } catch PocketlmError.InvalidArgument {
            }
        }
        XCTAssert(try session.transcript.isEmpty)
    }

    func testAConversationIsMadeShorterByTheAppsRule() async throws {
        struct Own: Error {}
        let (_, model) = try await load()
        let long = [
            Message(role: "system", content: "Answer in one word."),
            Message(role: "user", content: String(repeating: "word ", count: 520)),
            Message(role: "assistant", content: "Yes.", more: #"{"mood":["calm"]}"#),
        ]
        let question = "What is the capital of France?"
        let session = try await model.session()
        try session.takeUp(long)
        try session.condense { _ in throw Own() }
        do {
            _ = try await session.say(question, options: tokens(16)).finish()
            XCTFail("a rule that throws was passed over")
        } catch is Own {
        }
        XCTAssertEqual(try session.transcript, long)
        try session.condense { [tokens] messages in
            // This session is busy, and nobody waits for it; another may be asked.
            XCTAssertThrowsError(try session.transcript)
            let other = try await model.session()
            let summary = try await other.say("Say hello.", options: tokens(4)).finish()
            XCTAssertFalse(summary.text.isEmpty)
            return [messages[0], messages[messages.count - 1]]
        }
        let finish = try await session.say(question, options: tokens(16)).finish()
        XCTAssert(finish.text.contains("Paris"), finish.text)
        XCTAssertEqual(try session.transcript.map(\.role), ["system", "user", "assistant"])
    }

    func testSuspendedAndResumedIsTheSame() async throws {
        let (engine, model) = try await load()
        let whole = try await (try await model.session()).generate(story, options: tokens(20)).finish()
        let session = try await model.session()
        async let answer = session.generate(story, options: tokens(20)).finish()
        XCTAssert(engine.suspend(within: 1000))
        engine.resume()
        let tokens = try await answer.tokens
        XCTAssertEqual(tokens, whole.tokens)
    }
}
