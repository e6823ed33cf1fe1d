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
import dev.pocketlm.LoadOptions
import dev.pocketlm.LoadStage
import dev.pocketlm.Model
import dev.pocketlm.Pace
import dev.pocketlm.PocketlmException
import dev.pocketlm.Prompt
import dev.pocketlm.Trim
import dev.pocketlm.finish
import dev.pocketlm.guessedBy
import dev.pocketlm.respond
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
    for (device in args.drop(2)) {
        conversation(args[1], if (device == "gpu") Device.Gpu else Device.Cpu)
    }
    check(settled()) { "threads are left" }
    println("conversation: ok")
}
