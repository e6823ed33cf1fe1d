/**
 * Runs small, heavily compressed language models on the device in someone's hand.
 *
 *     Engine().use { engine ->
 *         engine.load(path).use { model ->
 *             model.session(instructions = "Answer in one sentence.").use { session ->
 *                 session.say("Why is the sky blue?").text().collect { print(it) }
 *             }
 *         }
 *     }
 *
 * Nothing here computes on the calling thread. A cancelled coroutine stops the thread of the library that computes for it, and
 * the device. Close what you open: memory of a GPU must not wait for a garbage collector.
 */
package dev.pocketlm

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.filterIsInstance
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.fold
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlin.coroutines.CoroutineContext
import kotlin.coroutines.EmptyCoroutineContext

/** Where calls wait that read files or a device for a moment. */
private val waiting: CoroutineDispatcher = Dispatchers.IO

/** A choice of device, and the models loaded on it. Touches no device before a model is loaded. */
class Engine(options: EngineOptions = EngineOptions()) : AutoCloseable {
    private val engine = FfiEngine(options)

    /**
     * Loads a model from a file or a folder. [progress] hears how much of a stage is done, in a thread of the library's; `false`
     * stops the load, and so does what it throws, which comes out of here, and the coroutine's end.
     */
    suspend fun load(
        path: String,
        options: LoadOptions = LoadOptions(),
        progress: ((LoadStage, Float) -> Boolean)? = null,
    ): Model {
        var thrown: Throwable? = null
        val listener = progress?.let {
            object : LoadListener {
                override fun onProgress(stage: LoadStage, fraction: Float): Boolean = try {
                    it(stage, fraction)
                } catch (error: Throwable) {
                    thrown = error
                    throw ListenerException.Failed(error.toString())
                }
            }
        }
        val cancellation = Cancellation()
        try {
            return Model(engine.load(path, options, listener, cancellation))
        } catch (error: PocketlmException) {
            throw thrown ?: error
        } finally {
            cancellation.cancel()
            cancellation.close()
        }
    }

    /** What a model would take of memory, before it is loaded. */
    suspend fun estimate(path: String, options: LoadOptions = LoadOptions()): Estimate =
        withContext(waiting) { engine.estimate(path, options) }

    /** Shares the device from now on as [pace] says. */
    fun setPace(pace: Pace) = engine.setPace(pace)

    /** Generates no more than so many tokens a second for each answer; `null` as many as it can. */
    fun sustain(tokensPerSecond: Double?) = engine.sustain(tokensPerSecond)

    /** Stops submitting, for at most [withinMs]: call it in `onStop`. Answers wait. Whether all stands still by then. */
    fun suspend(withinMs: Int = 50, release: Boolean = false): Boolean = engine.suspend(withinMs.toUInt(), release)

    /** Goes on after [suspend]: call it in `onStart`. */
    fun resume() = engine.resume()

    override fun close() = engine.close()
}

/** A model on a device, for as many sessions as one likes. */
class Model internal constructor(internal val model: FfiModel) : AutoCloseable {
    /** What is known of it. */
    val info: ModelInfo get() = model.info()

    /** How it has fared on its device. */
    suspend fun health(): Health = withContext(waiting) { model.health() }

    /** A new session, with an instruction to the model or without. */
    suspend fun session(instructions: String? = null): Session = withContext(waiting) {
        Session(model.session()).also { session -> instructions?.let { session.instruct(it) } }
    }

    /** The session that [Session.save] wrote. */
    suspend fun restore(path: String): Session = withContext(waiting) { Session(model.restore(path)) }

    /** The session that [Session.toBytes] gave. */
    suspend fun restore(bytes: ByteArray): Session = withContext(waiting) { Session(model.restoreBytes(bytes)) }

    /** The tokens of a prompt as a session would compute them. */
    suspend fun tokens(prompt: Prompt): List<UInt> = withContext(waiting) { model.tokens(prompt) }

    /** The embedding of a prompt, of length 1. */
    suspend fun embed(prompt: Prompt, pooling: Pooling = Pooling.MEAN): List<Float> =
        withContext(waiting) { model.embed(prompt, pooling) }

    /** How likely [continuation] is after a prompt. */
    suspend fun score(prompt: Prompt, continuation: String): Score =
        withContext(waiting) { model.score(prompt, continuation) }

    /** Gives memory back while the model stays loaded; how many bytes. See `onTrimMemory`. */
    suspend fun trim(level: Trim): Long = withContext(waiting) { model.trim(level).toLong() }

    /** Gives each adapter its weight; 0 takes one out. */
    suspend fun weighAdapters(weights: List<Float>) = withContext(waiting) { model.weighAdapters(weights) }

    override fun close() = model.close()
}

/** A conversation with a model, or any other sequence of tokens. One answer at a time. */
class Session internal constructor(private val session: FfiSession) : AutoCloseable {
    /** By which it is made shorter, for its branches. */
    @Volatile private var rule: (suspend (List<Message>) -> List<Message>)? = null

    /** Whose coroutine asks it, and what it threw. */
    @Volatile private var asker: CoroutineContext = EmptyCoroutineContext
    @Volatile private var thrown: Throwable? = null

    /**
     * Says something in the conversation. The flow is cold: collecting it asks, and the answer is kept in the conversation when
     * it is whole. Who stops collecting stops the answer.
     */
    fun say(text: String, options: GenerateOptions = GenerateOptions()): Flow<Event> =
        answer({ asking { session.say(text, options) } }) { session.answered(it.text, it.calls) }

    /** Answers to the conversation as it is, such as to the results of calls; a cold flow, as [say]. */
    fun goOn(options: GenerateOptions = GenerateOptions()): Flow<Event> =
        answer({ asking { session.goOn(options) } }) { session.answered(it.text, it.calls) }

    /** Adds to the conversation what a call came to. When all have come to something, [goOn]. */
    fun returned(call: ToolCall, result: String) = session.returned(call, result)

    /** Continues [prompt]; a cold flow, as [say]. */
    fun generate(prompt: Prompt, options: GenerateOptions = GenerateOptions()): Flow<Event> =
        answer({ session.generate(prompt, options) })

    /** Goes on with the answer that was under way when the session was saved; a cold flow, as [say]. */
    fun proceed(options: GenerateOptions = GenerateOptions()): Flow<Event> = answer({ session.proceed(options) })

    /** Computes the beginning of what will be asked, ahead of time. */
    suspend fun prewarm(prompt: Prompt) {
        answer({ session.prewarm(prompt) }).finish()
    }

    /** Another session that goes on from here; what is computed is shared. */
    suspend fun branch(): Session = withContext(waiting) {
        Session(session.branch()).also { branch -> rule?.let(branch::condenseWith) }
    }

    /** What becomes of the session when it outgrows the context. */
    fun setOverflow(overflow: Overflow) = session.setOverflow(overflow)

    /** Has keys and values of this session kept in another type, where the model was loaded with [LoadOptions.moreSessions]. */
    fun setKvType(kvType: KvType) = session.setKvType(kvType)

    /** Has a conversation that no longer fits forget its oldest exchange before the next answer. */
    fun forgetOldest() {
        session.forgetOldest()
        rule = null
    }

    /**
     * Has a conversation that no longer fits made shorter before the next answer: [rule] is given all of its messages, what the
     * user said last included, and returns those that are to stand for it. What it throws comes out of the flow that asked. It may
     * ask the model, in another session; this one is busy meanwhile.
     */
    fun condenseWith(rule: suspend (List<Message>) -> List<Message>) {
        session.condenseWith(object : Condenser {
            override fun condense(messages: List<Message>): List<Message> = try {
                runBlocking(asker) { rule(messages) }
            } catch (error: Throwable) {
                thrown = error
                throw ListenerException.Failed(error.toString())
            }
        })
        this.rule = rule
    }

    /** Begins the conversation with an instruction to the model, in place of all that was said. */
    fun instruct(instructions: String) = session.instruct(instructions)

    /** Forgets what was said, but for the instructions. */
    fun reset() = session.reset()

    /** Puts a conversation in place of this one; what both begin with is not computed again. */
    fun takeUp(conversation: List<Message>) = session.takeUp(conversation)

    /** The conversation so far. */
    val transcript: List<Message> get() = session.transcript()

    /** Whether an answer was under way when the session was saved, and has not gone on since. */
    val isUnfinished: Boolean get() = session.isUnfinished()

    /** Saves the session to a file; with [kv] keys and values too. */
    suspend fun save(path: String, kv: Boolean = false) = withContext(waiting) { session.save(path, kv) }

    /** The session in bytes. */
    suspend fun toBytes(kv: Boolean = false): ByteArray = withContext(waiting) { session.toBytes(kv) }

    override fun close() = session.close()

    /** What [start] gives; what the app's rule threw on the way, as it was thrown. */
    private suspend fun asking(start: () -> FfiStream): FfiStream = try {
        asker = currentCoroutineContext()[Job] ?: EmptyCoroutineContext
        start()
    } catch (error: PocketlmException.Callback) {
        throw thrown ?: error
    } finally {
        thrown = null
    }

    private fun answer(start: suspend () -> FfiStream, ended: (Finish) -> Unit = {}): Flow<Event> = flow {
        val stream = start()
        try {
            while (true) {
                val event = stream.next() ?: break
                if (event is Event.Finished) ended(event.finish)
                emit(event)
                currentCoroutineContext().ensureActive()
            }
        } finally {
            stream.cancel()
            stream.close()
        }
    }.flowOn(waiting)
}

/** With the next tokens guessed by a smaller model with the same vocabulary: the same answer, perhaps sooner. */
fun GenerateOptions.guessedBy(model: Model): GenerateOptions = copy(draft = model.model)

/** The text of an answer, piece by piece. */
fun Flow<Event>.text(): Flow<String> = filterIsInstance<Event.Text>().map { it.text }

/** The whole answer; what is collected to its end has one. */
suspend fun Flow<Event>.finish(): Finish {
    val last = fold(null as Finish?) { last, event -> (event as? Event.Finished)?.finish ?: last }
    return checkNotNull(last) { "an answer ended without its last event" }
}

/** A tool, and what it does: [call] is given the arguments, a JSON object, and returns what the model is to read. */
class ToolFunction(val tool: Tool, val call: suspend (String) -> String)

/**
 * Says something, calls the tools that the model asks for, hands their results back, and so on until it answers without a call,
 * [rounds] times at most: how that answer ended. What a tool throws is told to the model, and so is that there is none of a name.
 * [listen] hears all events.
 */
suspend fun Session.runTools(
    text: String,
    tools: List<ToolFunction>,
    options: GenerateOptions = GenerateOptions(),
    rounds: Int = 4,
    listen: (Event) -> Unit = {},
): Finish {
    var asked = options.copy(tools = tools.map { it.tool })
    var finish = say(text, asked).onEach(listen).finish()
    asked = asked.copy(toolChoice = null)
    repeat(rounds) {
        if (finish.reason != FinishReason.TOOL_CALLS) return finish
        for (call in finish.calls) returned(call, tools.call(call))
        finish = goOn(asked).onEach(listen).finish()
    }
    return finish
}

/** What a call came to; what went wrong, where it did. */
private suspend fun List<ToolFunction>.call(call: ToolCall): String = try {
    val function = find { it.tool.name == call.name } ?: throw NoSuchElementException("there is no tool ${call.name}")
    function.call(call.arguments)
} catch (error: CancellationException) {
    throw error
} catch (error: Exception) {
    val reason = (error.message ?: error.toString()).filter { it >= ' ' }.replace("\\", "\\\\").replace("\"", "\\\"")
    "{\"error\": \"$reason\"}"
}

/** An answer that had to be a value, and was cut: by `maxTokens`, the context, or a cancel. */
class IncompleteAnswer(val finish: Finish) : Exception("the answer was cut: ${finish.reason}")

/**
 * Says something, to be answered with JSON that is valid by [schema], and decodes it. With kotlinx-serialization:
 *
 *     val person = session.respond("Invent a person.", schema) { Json.decodeFromString<Person>(it) }
 */
suspend fun <T> Session.respond(
    text: String,
    schema: String,
    options: GenerateOptions = GenerateOptions(),
    decode: (String) -> T,
): T {
    val finish = say(text, options.copy(constraint = Constraint.JsonSchema(schema))).finish()
    if (finish.reason != FinishReason.STOP) throw IncompleteAnswer(finish)
    return decode(finish.text)
}
