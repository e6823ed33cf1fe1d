// Runs small, heavily compressed language models on the device in someone's hand.
//
//     let engine = Engine()
//     let model = try await engine.load(url)
//     let session = try await model.session(instructions: "Answer in one sentence.")
//     for try await text in session.say("Why is the sky blue?").texts { print(text, terminator: "") }
//
// Nothing here computes on the calling thread or actor. A cancelled task stops the thread of the library that computes for it,
// and the device.

import Foundation
import PocketlmFFI

public typealias Adapter = PocketlmFFI.Adapter
public typealias Constraint = PocketlmFFI.Constraint
public typealias Device = PocketlmFFI.Device
public typealias EngineOptions = PocketlmFFI.EngineOptions
public typealias Estimate = PocketlmFFI.Estimate
public typealias Event = PocketlmFFI.Event
public typealias Finish = PocketlmFFI.Finish
public typealias FinishReason = PocketlmFFI.FinishReason
public typealias GenerateOptions = PocketlmFFI.GenerateOptions
public typealias Health = PocketlmFFI.Health
public typealias KvType = PocketlmFFI.KvType
public typealias LoadOptions = PocketlmFFI.LoadOptions
public typealias LoadStage = PocketlmFFI.LoadStage
public typealias Message = PocketlmFFI.Message
public typealias ModelInfo = PocketlmFFI.ModelInfo
public typealias Overflow = PocketlmFFI.Overflow
public typealias Pace = PocketlmFFI.Pace
public typealias PocketlmError = PocketlmFFI.PocketlmError
public typealias Places = PocketlmFFI.Places
public typealias Pooling = PocketlmFFI.Pooling
public typealias Score = PocketlmFFI.Score
public typealias Prompt = PocketlmFFI.Prompt
public typealias Timings = PocketlmFFI.Timings
public typealias Tool = PocketlmFFI.Tool
public typealias ToolCall = PocketlmFFI.ToolCall
public typealias ToolChoice = PocketlmFFI.ToolChoice
public typealias Trim = PocketlmFFI.Trim

/// A choice of device, and the models loaded on it. Touches no device before a model is loaded.
public final class Engine: @unchecked Sendable {
    let engine: PocketlmFFI.Engine

    public init(_ options: EngineOptions = EngineOptions()) {
        engine = PocketlmFFI.Engine(options: options)
    }

    /// Loads a model from a file or a folder. `progress` hears how much of a stage is done, in a thread of the library's;
    /// `false` stops the load, and so does the task's cancellation.
    public func load(
        _ url: URL, options: LoadOptions = LoadOptions(),
        progress: (@Sendable (LoadStage, Float) -> Bool)? = nil
    ) async throws -> Model {
        // UniFFI's Swift does not pass a task's cancellation on.
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            let listener = progress.map(Listener.init)
            let model = try await engine.load(
                path: url.path, options: options, listener: listener, cancellation: cancellation)
            return Model(model)
        } onCancel: {
            cancellation.cancel()
        }
    }

    /// What a model would take of memory, before it is loaded. Compare it with `os_proc_available_memory()`.
    public func estimate(_ url: URL, options: LoadOptions = LoadOptions()) async throws -> Estimate {
        try await off { [engine] in try engine.estimate(path: url.path, options: options) }
    }

    /// Shares the device from now on as `pace` says.
    public func setPace(_ pace: Pace) throws { try engine.setPace(pace: pace) }

    /// Generates no more than so many tokens a second for each answer; `nil` as many as it can.
    public func sustain(_ tokensPerSecond: Double?) throws {
        try engine.sustain(tokensPerSecond: tokensPerSecond)
    }

    /// Stops submitting, for at most `milliseconds`; answers wait. Whether all stands still by then. iOS takes the GPU from apps
    /// in the background: `Lifecycle` calls this.
    @discardableResult
    public func suspend(within milliseconds: UInt32 = 50, release: Bool = false) -> Bool {
        engine.suspend(withinMs: milliseconds, release: release)
    }

    /// Goes on after `suspend`.
    public func resume() { engine.resume() }
}

/// A model on a device, for as many sessions as one likes.
public final class Model: @unchecked Sendable {
    let model: PocketlmFFI.Model

    init(_ model: PocketlmFFI.Model) { self.model = model }

    /// What is known of it.
    public var info: ModelInfo { model.info() }

    /// How it has fared on its device.
    public func health() async -> Health { await off { [model] in model.health() } }

    /// A new session, with an instruction to the model or without.
    public func session(instructions: String? = nil) async throws -> Session {
        try await off { [model] in
            let session = Session(model.session())
            if let instructions { try session.instruct(instructions) }
            return session
        }
    }

    /// The session that `Session.save` wrote.
    public func restore(_ url: URL) async throws -> Session {
        try await off { [model] in Session(try model.restore(path: url.path)) }
    }

    /// The session that `Session.data` gave.
    public func restore(_ data: Data) async throws -> Session {
        try await off { [model] in Session(try model.restoreBytes(bytes: data)) }
    }

    /// The tokens of a prompt as a session would compute them.
    public func tokens(_ prompt: Prompt) async throws -> [UInt32] {
        try await off { [model] in try model.tokens(prompt: prompt) }
    }

    /// The embedding of a prompt, of length 1.
    public func embed(_ prompt: Prompt, pooling: Pooling = .mean) async throws -> [Float] {
        try await off { [model] in try model.embed(prompt: prompt, pooling: pooling) }
    }

    /// How likely `continuation` is after a prompt.
    public func score(_ prompt: Prompt, _ continuation: String) async throws -> Score {
        try await off { [model] in try model.score(prompt: prompt, continuation: continuation) }
    }

    /// Gives memory back while the model stays loaded; how many bytes.
    @discardableResult
    public func trim(_ level: Trim) async throws -> UInt64 {
        try await off { [model] in try model.trim(level: level) }
    }

    /// Gives each adapter its weight; 0 takes one out.
    public func weighAdapters(_ weights: [Float]) async throws {
        try await off { [model] in try model.weighAdapters(weights: weights) }
    }
}

extension GenerateOptions {
    /// With the next tokens guessed by a smaller model with the same vocabulary: the same answer, perhaps sooner.
    public func guessed(by model: Model) -> GenerateOptions {
        var options = self
        options.draft = model.model
        return options
    }
}

/// A conversation with a model, or any other sequence of tokens. One answer at a time.
public final class Session: @unchecked Sendable {
    let session: PocketlmFFI.Session
    /// By which it is made shorter.
    private let rule = Rule()

    init(_ session: PocketlmFFI.Session) { self.session = session }

    /// Says something in the conversation. Iterating the answer asks, and it is kept in the conversation when it is whole. Who
    /// stops iterating stops it.
    public func say(_ text: String, options: GenerateOptions = GenerateOptions()) -> Answer {
        let (session, rule) = (session, rule)
        return Answer(
            start: { try rule.asking { try session.say(text: text, options: options) } },
            ended: { try session.answered(text: $0.text, calls: $0.calls) })
    }

    /// Answers to the conversation as it is, such as to the results of calls.
    public func goOn(options: GenerateOptions = GenerateOptions()) -> Answer {
        let (session, rule) = (session, rule)
        return Answer(
            start: { try rule.asking { try session.goOn(options: options) } },
            ended: { try session.answered(text: $0.text, calls: $0.calls) })
    }

    /// Adds to the conversation what a call came to. When all have come to something, `goOn`.
    public func returned(_ call: ToolCall, _ result: String) throws {
        try session.returned(call: call, result: result)
    }

    /// Continues `prompt`.
    public func generate(_ prompt: Prompt, options: GenerateOptions = GenerateOptions()) -> Answer {
        let session = session
        return Answer(start: { try session.generate(prompt: prompt, options: options) })
    }

    /// Goes on with the answer that was under way when the session was saved.
    public func proceed(options: GenerateOptions = GenerateOptions()) -> Answer {
        let session = session
        return Answer(start: { try session.proceed(options: options) })
    }

    /// Computes the beginning of what will be asked, ahead of time.
    public func prewarm(_ prompt: Prompt) async throws {
        let session = session
        _ = try await Answer(start: { try session.prewarm(prompt: prompt) }).finish()
    }

    /// Another session that goes on from here; what is computed is shared.
    public func branch() async throws -> Session {
        try await off { [session, rule] in
            let branch = Session(try session.branch())
            if let condense = rule.condense { try branch.condense(with: condense) }
            return branch
        }
    }

    /// What becomes of the session when it outgrows the context.
    public func setOverflow(_ overflow: Overflow) throws { try session.setOverflow(overflow: overflow) }

    /// Has keys and values of this session kept in another type, where the model was loaded with places for that (`moreSessions`).
    public func setKvType(_ kvType: KvType) throws { try session.setKvType(kvType: kvType) }

    /// Has a conversation that no longer fits forget its oldest exchange before the next answer.
    public func forgetOldest() throws {
        try session.forgetOldest()
        rule.condense = nil
    }

    /// Has a conversation that no longer fits made shorter before the next answer: `condense` is given all of its messages, what the
    /// user said last included, and returns those that are to stand for it. What it throws comes out of the answer that asked. It
    /// may ask the model, in another session; this one is busy meanwhile.
    public func condense(with condense: @escaping @Sendable ([Message]) async throws -> [Message]) throws {
        try session.condenseWith(condenser: rule)
        rule.condense = condense
    }

    /// Begins the conversation with an instruction to the model, in place of all that was said.
    public func instruct(_ instructions: String) throws { try session.instruct(instructions: instructions) }

    /// Puts a conversation in place of this one; what both begin with is not computed again.
    public func takeUp(_ conversation: [Message]) throws { try session.takeUp(conversation: conversation) }

    /// Forgets what was said, but for the instructions.
    public func reset() throws { try session.reset() }

    /// The conversation so far.
    public var transcript: [Message] { get throws { try session.transcript() } }

    /// Whether an answer was under way when the session was saved, and has not gone on since.
    public var isUnfinished: Bool { get throws { try session.isUnfinished() } }

    /// Saves the session to a file; with `kv` keys and values too.
    public func save(_ url: URL, kv: Bool = false) async throws {
        try await off { [session] in try session.save(path: url.path, kv: kv) }
    }

    /// The session in bytes.
    public func data(kv: Bool = false) async throws -> Data {
        try await off { [session] in try session.toBytes(kv: kv) }
    }
}

/// Tells a progress function.
private final class Listener: LoadListener, @unchecked Sendable {
    let progress: @Sendable (LoadStage, Float) -> Bool

    init(_ progress: @escaping @Sendable (LoadStage, Float) -> Bool) { self.progress = progress }

    func onProgress(stage: LoadStage, fraction: Float) throws -> Bool { progress(stage, fraction) }
}

/// Does `work` where it may wait for a file or a device: on no actor, and on none of the few threads of async code.
func off<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .userInitiated).async { continuation.resume(with: Result(catching: work)) }
    }
}

/// As above, of what cannot fail.
func off<T: Sendable>(_ work: @escaping @Sendable () -> T) async -> T {
    await withCheckedContinuation { continuation in
        DispatchQueue.global(qos: .userInitiated).async { continuation.resume(returning: work()) }
    }
}
