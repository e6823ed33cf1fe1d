// The Android library: `gradle assembleRelease` writes build/outputs/aar/pocketlm-android-release.aar. It needs the Android
// SDK and NDK (r28 or newer, which aligns segments to the 16 KB pages that Play demands), Rust with the targets below, and
// cargo-ndk (`cargo install cargo-ndk`).
plugins {
    id("com.android.library") version "8.13.0"
    id("org.jetbrains.kotlin.android") version "2.2.20"
    id("maven-publish")
}

group = "dev.pocketlm"
version = "0.1.0"

val generated = layout.buildDirectory.dir("generated/uniffi")
val libraries = layout.buildDirectory.dir("generated/jniLibs")
val root = layout.projectDirectory.dir("../..")

android {
    namespace = "dev.pocketlm"
    compileSdk = 36
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }
    sourceSets["main"].kotlin.srcDir(generated)
    sourceSets["main"].jniLibs.srcDir(libraries)
    publishing { singleVariant("release") { withSourcesJar() } }
}

kotlin { jvmToolchain(17) }

dependencies {
    api("org.jetbrains.kotlinx:kotlinx-coroutines-android:1.10.2")
    implementation("net.java.dev.jna:jna:5.18.1@aar")
}

// The library for phones and for emulators.
val cargo by tasks.registering(Exec::class) {
    workingDir(root)
    commandLine(
        "cargo", "ndk", "-t", "arm64-v8a", "-t", "x86_64", "--platform", "26", "-o", libraries.get().asFile.path,
        "build", "--locked", "--release", "-p", "pocketlm-ffi",
    )
}

// What UniFFI writes of it, from a build for this machine: the interface is the same.
val bindings by tasks.registering(Exec::class) {
    workingDir(root)
    commandLine("bindings/generate", "kotlin", generated.get().asFile.path)
}

tasks.named("preBuild") { dependsOn(cargo, bindings) }

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "pocketlm-android"
            afterEvaluate { from(components["release"]) }
        }
    }
}
