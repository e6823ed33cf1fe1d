//! What the server has done, for Prometheus: llama.cpp's names with another prefix, so that its dashboards can be had with a
//! search and a replacement.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pocketlm::{Finish, FinishReason, Model};

/// Counters, each only ever growing.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    connections: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    tokens: AtomicU64,
    prompt_micros: AtomicU64,
    token_micros: AtomicU64,
}

/// How things are at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    pub(crate) answering: usize,
    pub(crate) waiting: usize,
    pub(crate) slots: usize,
    pub(crate) connections: usize,
}

impl Metrics {
    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
    }

    /// A response with this status is on its way.
    pub(crate) fn responded(&self, status: u16) {
        add(&self.requests, 1);
        match status {
            500.. => add(&self.failed, 1),
            400.. => add(&self.refused, 1),
            _ => {}
        }
    }

    /// An answer that had begun went wrong.
    pub(crate) fn failed(&self) {
        add(&self.failed, 1);
    }

    pub(crate) fn finished(&self, finish: &Finish) {
        let timings = &finish.timings;
        add(
            &self.prompt_tokens,
            (timings.prompt_tokens - timings.cached_tokens.min(timings.prompt_tokens)).into(),
        );
        add(&self.cached_tokens, timings.cached_tokens.into());
        add(&self.tokens, timings.generated_tokens.into());
        add(&self.prompt_micros, micros(timings.first_token));
        add(&self.token_micros, micros(timings.total.saturating_sub(timings.first_token)));
        add(&self.cancelled, u64::from(finish.reason == FinishReason::Cancelled));
    }

    pub(crate) fn read(&self, tokens: usize, took: Duration) {
        add(&self.prompt_tokens, tokens as u64);
        add(&self.prompt_micros, micros(took));
    }

    /// Prometheus's text format.
    pub(crate) fn text(&self, now: Now, model: &Model) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = |counter: &AtomicU64| count(counter) as f64 / 1e6;
        let rate = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let (prompt, told) = (count(&self.prompt_tokens), count(&self.tokens));
        let (prompt_seconds, token_seconds) = (seconds(&self.prompt_micros), seconds(&self.token_micros));
        let health = model.health();
        let mut text = String::new();
        let mut counter = |name, help, value: &dyn Display| line(&mut text, "counter", name, help, value);
        counter("prompt_tokens_total", "Tokens of prompts that were computed", &prompt);
        counter(
            "prompt_tokens_cached_total",
            "Tokens of prompts that were there already",
            &count(&self.cached_tokens),
        );
        counter("prompt_seconds_total", "Seconds from requests to their first tokens", &prompt_seconds);
        counter("tokens_predicted_total", "Tokens of answers", &told);
        counter(
            "tokens_predicted_seconds_total",
            "Seconds from first tokens to the ends of answers",
            &token_seconds,
        );
        counter("requests_total", "Responses", &count(&self.requests));
        counter("requests_refused_total", "Responses with a status from 400 to 499", &count(&self.refused));
        counter(
            "requests_failed_total",
            "Responses with a status of 500 or more, and answers that broke off",
            &count(&self.failed),
        );
        counter(
            "answers_cancelled_total",
            "Answers that were stopped because nobody wanted them any more",
            &count(&self.cancelled),
        );
        counter("connections_total", "Connections that were accepted", &count(&self.connections));
        counter("device_recoveries_total", "Lost devices that another took the place of", &health.recoveries);
        let mut gauge = |name, help, value: &dyn Display| line(&mut text, "gauge", name, help, value);
        gauge(
            "prompt_tokens_seconds",
            "Tokens of prompts computed per second",
            &rate(prompt, prompt_seconds),
        );
        gauge("predicted_tokens_seconds", "Tokens of an answer per second", &rate(told, token_seconds));
        gauge("requests_processing", "Requests that are answered now", &now.answering);
        gauge("requests_deferred", "Requests that wait for a slot", &now.waiting);
        gauge("slots", "Requests that can be answered at the same time", &now.slots);
        gauge("connections", "Connections that are open", &now.connections);
        text
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn line(text: &mut String, kind: &str, name: &str, help: &str, value: &dyn Display) {
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# HELP pocketlm:{name} {help}.\n# TYPE pocketlm:{name} {kind}\npocketlm:{name} {value}"
    );
}
