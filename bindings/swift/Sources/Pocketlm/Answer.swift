import Foundation
import PocketlmFFI

/// An answer: iterating it asks and gives all news. Once its task is cancelled, or nobody iterates it any more, it stops, and so
/// does the device.
public struct Answer: AsyncSequence, Sendable {
    public typealias Element = Event

    let start: @Sendable () throws -> PocketlmFFI.Stream
    var ended: @Sendable (Finish) throws -> Void = { _ in }

    public func makeAsyncIterator() -> Iterator { Iterator(start: start, ended: ended) }

    public struct Iterator: AsyncIteratorProtocol {
        let start: @Sendable () throws -> PocketlmFFI.Stream
        let ended: @Sendable (Finish) throws -> Void
        /// When it goes, the library's stream goes, and that stops the answer.
        var stream: PocketlmFFI.Stream?

        public mutating func next() async throws -> Event? {
            if stream == nil { stream = try await off(start) }
            guard let stream else { return nil }
            // UniFFI's Swift does not pass a task's cancellation on.
            let event = try await withTaskCancellationHandler {
                try await stream.next()
            } onCancel: {
                stream.cancel()
            }
            if case .finished(let finish) = event { try ended(finish) }
            return event
        }
    }

    /// The text, piece by piece.
    public var texts: AsyncThrowingCompactMapSequence<Answer, String> {
        compactMap { event throws -> String? in
            if case .text(let text) = event { return text }
            return nil
        }
    }

    /// The text so far, again and again: what a view shows.
    public var snapshots: AsyncThrowingStream<String, Error> {
        AsyncThrowingStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
            let task = Task {
                var text = ""
                do {
                    for try await piece in texts {
                        text += piece
                        continuation.yield(text)
                    }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    /// Awaits the end.
    public func finish() async throws -> Finish { try await finish { _ in } }

    /// As above; `listen` hears all events.
    func finish(_ listen: (Event) -> Void) async throws -> Finish {
        for try await event in self {
            listen(event)
            if case .finished(let finish) = event { return finish }
        }
        throw PocketlmError.Internal(message: "an answer ended without its last event")
    }
}

/// An answer that had to be a value, and was cut: by `maxTokens`, the context, or a cancel.
public struct IncompleteAnswer: Error {
    public let finish: Finish
}

extension Session {
    /// Says something, to be answered with JSON that is valid by `schema`, and decodes it.
    public func respond<T: Decodable>(
        to text: String, schema: String, as type: T.Type = T.self, options: GenerateOptions = GenerateOptions()
    ) async throws -> T {
        var options = options
        options.constraint = .jsonSchema(schema: schema)
        let finish = try await say(text, options: options).finish()
        guard finish.reason == .stop else { throw IncompleteAnswer(finish: finish) }
        return try JSONDecoder().decode(type, from: Data(finish.text.utf8))
    }
}
