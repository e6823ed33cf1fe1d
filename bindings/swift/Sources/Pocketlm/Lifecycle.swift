#if canImport(UIKit) && !os(watchOS)
import UIKit

/// Keeps an engine by iOS's rules, as long as it lives: in the background no app may submit to the GPU, and one that is short of
/// memory gives back what can be made again.
@MainActor
public final class Lifecycle {
    private var observers: [NSObjectProtocol] = []

    public init(_ engine: Engine, models: [Model] = []) {
        let center = NotificationCenter.default
        let on = { (name: Notification.Name, act: @escaping @Sendable () -> Void) in
            center.addObserver(forName: name, object: nil, queue: nil) { _ in act() }
        }
        observers = [
            on(UIApplication.didEnterBackgroundNotification) { engine.suspend() },
            on(UIApplication.willEnterForegroundNotification) { engine.resume() },
            on(UIApplication.didReceiveMemoryWarningNotification) {
                for model in models { Task { try? await model.trim(.critical) } }
            },
        ]
    }

    deinit { observers.forEach(NotificationCenter.default.removeObserver) }
}
#endif
