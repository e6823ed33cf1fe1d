import Foundation
import PocketlmFFI

/// A tool, and what it does: `call` is given the arguments, a JSON object, and returns what the model is to read.
public struct ToolFunction: Sendable {
    public let tool: Tool
    public let call: @Sendable (String) async throws -> String

    public init(_ tool: Tool, call: @escaping @Sendable (String) async throws -> String) {
        self.tool = tool
        self.call = call
    }
}

extension Session {
    /// Says something, calls the tools that the model asks for, hands their results back, and so on until it answers without a call,
    /// `rounds` times at most: how that answer ended. What a tool throws is told to the model, and so is that there is none of a
    /// name. `listen` hears all events.
    public func runTools(
        _ text: String, tools: [ToolFunction], options: GenerateOptions = GenerateOptions(), rounds: Int = 4,
        listen: @Sendable (Event) -> Void = { _ in }
    ) async throws -> Finish {
        var options = options
        options.tools = tools.map(\.tool)
        var finish = try await say(text, options: options).finish(listen)
        options.toolChoice = nil
        for _ in 0..<rounds where finish.reason == .toolCalls {
            for call in finish.calls { try returned(call, try await result(of: call, tools)) }
            finish = try await goOn(options: options).finish(listen)
        }
        return finish
    }
}

/// What a call came to; what went wrong, where it did.
private func result(of call: ToolCall, _ tools: [ToolFunction]) async throws -> String {
    guard let function = tools.first(where: { $0.tool.name == call.name }) else {
        return failed("there is no tool \(call.name)")
    }
    do {
        return try await function.call(call.arguments)
    } catch is CancellationError {
        throw CancellationError()
    } catch {
        return failed(String(describing: error))
    }
}

private func failed(_ reason: String) -> String {
    let said = try? JSONEncoder().encode(["error": reason])
    return said.map { String(decoding: $0, as: UTF8.self) } ?? "{}"
}

/// The app's rule for conversations that outgrow the context, asked by the library where it may wait.
final class Rule: Condenser, @unchecked Sendable {
    private let lock = NSLock()
    private var given: (@Sendable ([Message]) async throws -> [Message])?
    private var thrown: Error?

    var condense: (@Sendable ([Message]) async throws -> [Message])? {
        get { lock.withLock { given } }
        set { lock.withLock { given = newValue } }
    }

    /// What `start` gives; what the rule threw on the way, as it was thrown.
    func asking<T>(_ start: () throws -> T) throws -> T {
        do {
            return try start()
        } catch {
            throw lock.withLock {
                defer { thrown = nil }
                return thrown ?? error
            }
        }
    }

    func condense(messages: [Message]) throws -> [Message] {
        guard let condense else { throw ListenerError.Failed(reason: "there is no rule") }
        // On a thread of its own: the rule's tasks run on others.
        let done = DispatchSemaphore(value: 0)
        let result = Result<[Message], Error>.Box()
        Task.detached {
            do { result.value = .success(try await condense(messages)) } catch { result.value = .failure(error) }
            done.signal()
        }
        done.wait()
        switch result.value {
        case .success(let shorter): return shorter
        case .failure(let error):
            lock.withLock { thrown = error }
            throw ListenerError.Failed(reason: String(describing: error))
        case nil: throw ListenerError.Failed(reason: "the rule gave nothing")
        }
    }
}

extension Result {
    /// Where one task leaves it for another, who waits.
    final class Box: @unchecked Sendable {
        var value: Result?
    }
}
