// One question, one answer as it comes: paste it into an app that has the package of bindings/swift, and put model.gguf into its
// bundle. Not built by this project's tests.
import Pocketlm
import SwiftUI

@MainActor
final class Chat: ObservableObject {
    @Published var answer = ""
    @Published var isAnswering = false
    private let engine = Engine()
    private var session: Session?
    private var lifecycle: Lifecycle?
    private var task: Task<Void, Never>?

    func ask(_ question: String) {
        task?.cancel()
        task = Task {
            isAnswering = true
            defer { isAnswering = false }
            do {
                let session = try await opened()
                for try await text in session.say(question).snapshots { answer = text }
            } catch {
                answer = "\(error)"
            }
        }
    }

    func stop() { task?.cancel() }

    private func opened() async throws -> Session {
        if let session { return session }
        guard let url = Bundle.main.url(forResource: "model", withExtension: "gguf") else {
            throw CocoaError(.fileNoSuchFile)
        }
        try engine.setPace(.frame(milliseconds: 4))
        let model = try await engine.load(url)
        lifecycle = Lifecycle(engine, models: [model])
        let session = try await model.session(instructions: "Answer in one sentence.")
        self.session = session
        return session
    }
}

struct ChatView: View {
    @StateObject private var chat = Chat()
    @State private var question = "Why is the sky blue?"

    var body: some View {
        VStack(alignment: .leading) {
            TextField("Question", text: $question)
            HStack {
                Button("Ask") { chat.ask(question) }
                Button("Stop") { chat.stop() }.disabled(!chat.isAnswering)
            }
            ScrollView { Text(chat.answer) }
        }
        .padding()
    }
}
