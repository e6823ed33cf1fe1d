// One question, one answer as it comes: paste it into an app that has the AAR of bindings/kotlin, Compose and
// lifecycle-runtime-compose, and put the model into the app's files. Not built by this project's tests.
package com.example.chat

import android.os.Bundle
import androidx.activity.ComponentActivity
import androidx.activity.compose.setContent
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.padding
import androidx.compose.material3.Button
import androidx.compose.material3.Text
import androidx.compose.material3.TextField
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.rememberCoroutineScope
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.unit.dp
import androidx.lifecycle.lifecycleScope
import dev.pocketlm.Engine
import dev.pocketlm.EngineOptions
import dev.pocketlm.Model
import dev.pocketlm.Pace
import dev.pocketlm.PocketlmException
import dev.pocketlm.Trim
import dev.pocketlm.text
import java.io.File
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.launch

class ChatActivity : ComponentActivity() {
    private val engine by lazy { Engine(EngineOptions(tuning = File(noBackupFilesDir, "pocketlm").path)) }
    private var loaded: Model? = null
    private val model by lazy {
        lifecycleScope.async { engine.load(File(filesDir, "model.gguf").path).also { loaded = it } }
    }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        engine.setPace(Pace.Frame(4.0))
        setContent {
            var question by remember { mutableStateOf("Why is the sky blue?") }
            var answer by remember { mutableStateOf("") }
            var asking by remember { mutableStateOf<Job?>(null) }
            val scope = rememberCoroutineScope()
            Column(Modifier.padding(16.dp)) {
                TextField(question, { question = it })
                Button({
                    asking?.cancel()
                    answer = ""
                    asking = scope.launch {
                        try {
                            model.await().session().use { it.say(question).text().collect { piece -> answer += piece } }
                        } catch (error: PocketlmException) {
                            answer = error.message.orEmpty()
                        }
                    }
                }) { Text("Ask") }
                Button({ asking?.cancel() }) { Text("Stop") }
                Text(answer)
            }
        }
    }

    override fun onStart() { super.onStart(); engine.resume() }

    override fun onStop() { engine.suspend(); super.onStop() }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= TRIM_MEMORY_BACKGROUND) lifecycleScope.launch { model.await().trim(Trim.CRITICAL) }
    }

    override fun onDestroy() {
        loaded?.close()
        engine.close()
        super.onDestroy()
    }
}
