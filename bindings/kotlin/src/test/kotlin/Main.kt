/* The laws of the engine, through Kotlin: the arguments are the small model, the real one, and the devices to ask it on.
 * `bindings/test` runs it; Gradle is not needed. */
import dev.pocketlm.Constraint
import dev.pocketlm.Device
import dev.pocketlm.Engine
import dev.pocketlm.EngineOptions
import dev.pocketlm.Event
import dev.pocketlm.FinishReason
import dev.pocketlm.GenerateOptions
import dev.pocketlm.IncompleteAnswer
import dev.pocketlm.KvType
import dev.pocketlm.LoadOptions
import dev.pocketlm.LoadStage
import dev.pocketlm.Message
import dev.pocketlm.Model
import dev.pocketlm.Pace
import dev.pocketlm.Places
import dev.pocketlm.PocketlmException
import dev.pocketlm.Prompt
import dev.pocketlm.Tool
import dev.pocketlm.ToolCall
import dev.pocketlm.ToolChoice
import dev.pocketlm.ToolFunction
import dev.pocketlm.Trim
import dev.pocketlm.finish
import dev.pocketlm.guessedBy
import dev.pocketlm.respond
import dev.pocketlm.runTools
import dev.pocketlm.text
import java.io.File
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull

val story = Prompt.Raw("Once upon a time")

fun check(condition: Boolean, what: () -> String) {
    if (!condition) throw AssertionError(what())
}

/** Runs [work], which has to throw a [T]. */
inline fun <reified T : Throwable> refused(work: () -> Unit): T {
    try {
        work()
    } catch (error: Throwable) {
        if (error is T) return error
        throw AssertionError("${T::class} was due", error)
    }
    throw AssertionError("${T::class} was due, and nothing was thrown")
}

/** Threads of the library's that are at work. */
fun workers(): Int =
    File("/proc/self/task").listFiles().orEmpty().count { runCatching { File(it, "comm").readText().trim() }.getOrNull() == "pocketlm" }

suspend fun settled(): Boolean {
    repeat(500) {
        if (workers() == 0) return true
        delay(10)
    }
    return false
}

fun tokens(count: Int) = GenerateOptions(maxTokens = count.toUInt())

suspend fun tell(model: Model, options: GenerateOptions) =
    model.session().use { it.generate(story, options).finish() }

suspend fun laws(path: String) = Engine(EngineOptions(device = Device.Cpu, exact = true)).use { engine ->
    val stages = mutableListOf<LoadStage>()
    engine.load(path) { stage, _ -> stages.add(stage) }.use { model ->
        check(stages.first() == LoadStage.READING) { "$stages" }
        val whole = tell(model, tokens(60))
        check(whole.reason == FinishReason.LENGTH && whole.timings.generatedTokens == 60u) { "$whole" }

        // A cold flow of pieces, asked twice, answers twice; three at a time are as one.
        model.session().use { session ->
            val asked = session.generate(story, tokens(60))
            repeat(2) { check(asked.text().toList().joinToString("") == whole.text) { "another story" } }
        }
        val three = runBlocking(Dispatchers.Default) { List(3) { async { tell(model, tokens(60)) } }.awaitAll() }
        check(three.all { it.tokens == whole.tokens }) { "three are not as one" }

        // Each way to leave stops the thread.
        engine.sustain(50.0)
        val session = model.session()
        check(session.generate(story).text().take(3).toList().size == 3) { "three pieces" }
        check(settled()) { "take goes on" }
        val left = withTimeoutOrNull(300) { session.generate(story).collect() }
        check(left == null && settled()) { "a timeout goes on" }
        runBlocking {
            val heard = CompletableDeferred<Unit>()
            val job = launch(Dispatchers.Default) { session.generate(story).collect { heard.complete(Unit) } }
            heard.await()
            check(workers() > 0) { "nobody is at work, so the other checks mean nothing" }
            job.cancelAndJoin()
        }
        check(settled()) { "a cancelled job goes on" }
        refused<IllegalStateException> { session.generate(story).collect { throw IllegalStateException("the app's own") } }
        check(settled()) { "an app's exception goes on" }
        engine.sustain(null)

        // Saved, restored, gone on with.
        val saved = session.toBytes(kv = true)
        model.restore(saved).use { check(!it.isUnfinished || it.proceed(tokens(60)).finish().tokens.isNotEmpty()) { "restored" } }
        refused<PocketlmException.BadFile> { model.restore(saved.copyOf(saved.size - 1)) }

        val drawn = listOf(1UL, 1UL, 2UL).map { tell(model, tokens(40).copy(temperature = 1.0f, topK = 40u, seed = it)).tokens }
        check(drawn[0] == drawn[1] && drawn[0] != drawn[2]) { "seeds" }
        val word = whole.text.split(" ")[8]
        val stopped = tell(model, tokens(60).copy(stop = listOf(word)))
        check(stopped.reason == FinishReason.STOP && whole.text.startsWith(stopped.text)) { "$stopped" }

        engine.load(path).use { draft ->
            check(tell(model, tokens(60).guessedBy(draft)).tokens == whole.tokens) { "guesses change nothing" }
        }
        refused<PocketlmException.InvalidArgument> { tell(model, tokens(60).guessedBy(model)) }
        check(model.embed(story).size == 64 && model.score(story, ", there was").total < 0) { "embeddings and scores" }

        // Errors are typed.
        val lost = refused<PocketlmException.NotFound> { engine.load("/nowhere/model.gguf") }
        check("/nowhere/model.gguf" in lost.message.orEmpty()) { "${lost.message}" }
        refused<PocketlmException.OutOfMemory> { engine.load(path, LoadOptions(memory = 4096UL)) }
        refused<PocketlmException.Cancelled> { engine.load(path) { _, _ -> false } }
        refused<NoSuchElementException> { engine.load(path) { _, _ -> throw NoSuchElementException("the app's own") } }
        refused<PocketlmException.InvalidArgument> { tell(model, tokens(0)) }
        refused<PocketlmException.InvalidArgument> { tell(model, tokens(5).copy(temperature = Float.NaN)) }
        refused<PocketlmException.InvalidArgument> { model.tokens(Prompt.Tokens(listOf(512u))) }
        refused<PocketlmException.InvalidArgument> { model.tokens(Prompt.Json("{")) }
        refused<PocketlmException.InvalidArgument> { session.setKvType(KvType.Q4) }
        val places = listOf(Places(KvType.F32, 1u))
        engine.load(path, LoadOptions(moreSessions = places)).use { it.session().use { roomy -> roomy.setKvType(KvType.F32) } }
        refused<PocketlmException.Template> { session.say("Hello").collect() }
        refused<PocketlmException.ContextOverflow> { session.generate(Prompt.Tokens(List(5000) { 50u })).collect() }
        refused<PocketlmException.InvalidArgument> { engine.setPace(Pace.Frame(-1.0)) }
        runBlocking {
            val begun = CompletableDeferred<Unit>()
            engine.sustain(20.0)
            val job = launch(Dispatchers.Default) { session.generate(story).collect { begun.complete(Unit) } }
            begun.await()
            refused<PocketlmException.SessionBusy> { session.generate(story).collect() }
            engine.sustain(null)
            job.cancelAndJoin()
        }
        session.close()
        refused<IllegalStateException> { session.generate(story).collect() }

        check(engine.estimate(path, LoadOptions(context = 128u)).fits) { "it fits" }
        check(model.trim(Trim.CRITICAL) > 0) { "trimmed" }
        check(engine.suspend(1000)) { "stands still" }
        engine.resume()
        check(tell(model, tokens(60)).tokens == whole.tokens) { "the same after a rest" }
        check(model.health().backend == "cpu" && model.info.vocab == 512u) { "health" }
    }
}

const val QUESTION = "What is the weather like in Paris?"

val weather = Tool(
    "get_weather", "Says what the weather is like in a city.",
    """{"type": "object", "properties": {"city": {"type": "string", "maxLength": 30}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"], "additionalProperties": false}""",
)

fun calling(choice: ToolChoice?, tool: Tool = weather) =
    tokens(60).copy(temperature = 0.0f, tools = listOf(tool), toolChoice = choice)

/** Calls of tools: handed out, in a loop, and refused. */
suspend fun tools(model: Model) {
    model.session().use { session ->
        val events = session.say(QUESTION, calling(ToolChoice.Required)).toList()
        val finish = (events.last() as Event.Finished).finish
        val call = finish.calls.single()
        println("${call.name} ${call.arguments}")
        check(finish.reason == FinishReason.TOOL_CALLS && finish.text.isEmpty()) { "$finish" }
        check(events.filterIsInstance<Event.ToolCall>().map { it.call } == finish.calls) { "the call is an event" }
        val streamed = events.filterIsInstance<Event.ToolArguments>()
        check(streamed.all { it.id == call.id && it.name == "get_weather" }) { "$streamed" }
        val bare = { text: String -> text.filterNot(Char::isWhitespace) }
        check(bare(streamed.joinToString("") { it.text }) == bare(call.arguments)) { "$streamed" }
        session.returned(call, "22 degrees, sunny")
        val answer = session.goOn(calling(null)).finish()
        check(session.transcript.map { it.role } == listOf("user", "assistant", "tool", "assistant")) { "roles" }
        check(call.id in session.transcript[1].more.orEmpty()) { "the calls are kept" }
        model.session().use { other ->
            other.takeUp(session.transcript.take(3))
            check(other.goOn(calling(null)).finish().tokens == answer.tokens) { "taken up, the same" }
        }
    }
    val outcomes = listOf<Pair<suspend (String) -> String, String>>(
        Pair({ "22 degrees" }, "22 degrees"),
        Pair({ throw NoSuchElementException("no \"city\"") }, "{\"error\": \"no \\\"city\\\"\"}"),
    )
    for ((call, due) in outcomes) model.session().use { session ->
        var heard = 0
        val tools = listOf(ToolFunction(weather, call))
        session.runTools(QUESTION, tools, calling(ToolChoice.Named("get_weather")), rounds = 1) { if (it is Event.ToolCall) heard += 1 }
        check(heard >= 1 && session.transcript[2].content == due) { "${session.transcript}" }
    }
    model.session().use { session ->
        val finish = session.runTools(QUESTION, listOf(ToolFunction(weather) { "" }), calling(ToolChoice.Required), rounds = 0)
        check(finish.reason == FinishReason.TOOL_CALLS && finish.calls.size == 1) { "handed out" }
        session.reset()
        for (options in listOf(
            calling(ToolChoice.Named("other")), calling(ToolChoice.Required).copy(tools = emptyList()),
            calling(null, weather.copy(name = "get weather")), calling(null, weather.copy(parameters = "{\"type\": ")),
            calling(null, weather.copy(parameters = "[]")), calling(ToolChoice.Required).copy(constraint = Constraint.JsonObject),
        )) refused<PocketlmException.InvalidArgument> { session.say(QUESTION, options).collect() }
        refused<PocketlmException.Unsupported> {
            session.say(QUESTION, calling(ToolChoice.Required, weather.copy(parameters = "{\"not\": {}}"))).collect()
        }
        refused<PocketlmException.InvalidArgument> { session.returned(ToolCall("c0", "get_weather", "3"), "22") }
        refused<PocketlmException.InvalidArgument> { session.takeUp(listOf(Message("user", "Hello", "["))) }
        check(session.transcript.isEmpty()) { "nothing of that was said" }
    }
}

/** Conversations that outgrow the context, by the app's own rule. */
suspend fun condensed(model: Model) {
    val options = tokens(16).copy(temperature = 0.0f)
    val question = "What is the capital of France?"
    val long = listOf(
        Message("system", "Answer in one word."), Message("user", "word ".repeat(520)),
        Message("assistant", "Yes.", """{"mood":["calm"]}"""),
    )
    model.session().use { session ->
        session.takeUp(long)
        refused<PocketlmException.ContextOverflow> { session.say(question, options).collect() }
        session.condenseWith { throw NoSuchElementException("the app's own") }
        refused<NoSuchElementException> { session.say(question, options).collect() }
        session.condenseWith { it }
        refused<PocketlmException.ContextOverflow> { session.say(question, options).collect() }
        session.condenseWith { listOf(Message("user", "Hello", "[")) }
        refused<PocketlmException.InvalidArgument> { session.say(question, options).collect() }
        check(session.transcript == long) { "the conversation stays" }
        // A rule that never comes to an end goes with who waits for it.
        session.condenseWith { delay(60_000); it }
        check(withTimeoutOrNull(300) { session.say(question, options).collect() } == null) { "a rule goes on" }
        var asked = 0
        session.condenseWith { messages ->
            check(messages.take(3) == long) { "$messages" }
            asked += 1
            if (asked == 1) refused<PocketlmException.SessionBusy> { session.transcript }
            model.session().use { check(it.say("Say hello.", tokens(4)).finish().text.isNotEmpty()) { "another is asked" } }
            listOf(messages.first(), messages.last())
        }
        session.branch().use { branch ->
            for (one in listOf(session, branch)) {
                check("Paris" in one.say(question, options).finish().text) { "an answer" }
                check(one.transcript.map { it.role } == listOf("system", "user", "assistant")) { "roles" }
            }
        }
        session.takeUp(long)
        session.forgetOldest()
        check("Paris" in session.say(question, options).finish().text && asked == 2) { "the engine's own rule" }
    }
}

suspend fun conversation(path: String, device: Device) = Engine(EngineOptions(device = device)).use { engine ->
    engine.load(path, LoadOptions(context = 512u, prefill = 32u)).use { model ->
        model.session(instructions = "Answer in one word.").use { session ->
            print("${model.health().device}: ")
            val options = tokens(16).copy(temperature = 0.0f)
            var last: Event.Finished? = null
            session.say("What is the capital of France?", options).collect { event ->
                if (event is Event.Text) print(event.text)
                if (event is Event.Finished) last = event
            }
            val finish = checkNotNull(last).finish
            println(" [%.1f tokens/s]".format(finish.timings.decodeRate))
            check("Paris" in finish.text) { finish.text }
            val again = session.say("And of Italy?", options).finish()
            check("Rome" in again.text && again.timings.cachedTokens > 20u) { "$again" }
            val schema = """{"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}},
                "required": ["age"], "additionalProperties": false}"""
            model.session().use { other ->
                val age = other.respond("Invent a person.", schema, tokens(60)) { Regex("[0-9]+").find(it)!!.value.toInt() }
                check(age in 0..120) { "$age" }
                refused<IncompleteAnswer> { other.respond("Invent a person.", schema, tokens(2)) { it } }
                val either = tokens(9).copy(constraint = Constraint.Choice(listOf("yes", "no")))
                check(other.say("Is water wet?", either).finish().text in listOf("yes", "no")) { "a choice" }
            }
            check(session.transcript.map { it.role } == listOf("system", "user", "assistant", "user", "assistant")) { "roles" }
        }
    }
}

fun main(args: Array<String>) = runBlocking(Dispatchers.Default) {
    laws(args[0])
    println("laws: ok")
    Engine(EngineOptions(device = Device.Cpu)).use { engine ->
        engine.load(args[1], LoadOptions(context = 512u, prefill = 64u)).use { model ->
            tools(model)
            condensed(model)
        }
    }
    println("tools: ok")
    for (device in args.drop(2)) {
        conversation(args[1], if (device == "gpu") Device.Gpu else Device.Cpu)
    }
    check(settled()) { "threads are left" }
    println("conversation: ok")
}
