//! A client that knows HTTP/1.1 and nothing of the server's own code, and the server's process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::data::{Scratch, stories_with};
use crate::program::pocketlm;

/// A server's process, killed when dropped.
pub(super) struct Served {
    pub(super) child: Child,
    pub(super) address: String,
    _folder: Scratch,
}

/// What a server said, its body still on its way.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    body: Box<dyn BufRead>,
}

/// A chat template for the model that tells stories.
const TEMPLATE: &str = "{% for tool in tools or [] %}<tool_call> {{ tool.function.name }}\n{% endfor %}{% for message in messages %}{{ message.role }}: {{ message.content or '' }}{% for call in message.tool_calls or [] %}{{ call.function.arguments | tojson }}{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

impl Served {
    /// On the CPU, with the small model and these flags.
    pub(super) fn start(flags: &[&str]) -> Self {
        let folder = Scratch::new();
        let model = stories_with(&folder, TEMPLATE);
        let words = [
            "serve",
            "--port",
            "0",
            "--device",
            "cpu",
            "-t",
            "1",
            "-c",
            "512",
            "-m",
            model.to_str().unwrap(),
        ];
        let mut command = pocketlm(&folder, &[&words[..], flags].concat());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().rsplit_once("http://").expect("an address").1.to_owned();
        assert!(line.contains(" listens on "), "{line}");
        Self { child, address, _folder: folder }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a request over a connection of its own and waits for the headers of the response.
    pub(super) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let has = |name: &str| headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !has("host") {
            head += &format!("host: {}\r\n", self.address);
        }
        if !has("content-length") && !has("transfer-encoding") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // Who is refused early may be hung up on while it writes; what was said stands.
        let _refused = stream.write_all(body);
        Reply::read(stream)
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// What is answered with success.
    pub(super) fn ask(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        let status = reply.status;
        let body = reply.json();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The events of a stream: their names, and their data.
    pub(super) fn stream(&self, path: &str, body: &Value) -> Vec<(Option<String>, String)> {
        let reply = self.post(path, body);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
        reply.events().collect()
    }

    pub(super) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("pocketlm:{name} ")));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until a metric is `due`.
    pub(super) fn until(&self, name: &str, due: impl Fn(f64) -> bool) {
        until(|| due(self.metric(name)));
    }

    #[cfg(unix)]
    pub(super) fn signal(&self, signal: &str) {
        let status = std::process::Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _code = self.child.wait();
    }
}

/// Waits until something is so.
pub(super) fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Reply {
    pub(super) fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line of the head");
            line.trim_end().to_owned()
        };
        let first = line();
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{first:?} is no status line"));
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let is_chunked =
            headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body: Box<dyn BufRead> = match is_chunked {
            true => Box::new(BufReader::new(Chunks { reader, left: 0, ended: false })),
            false => Box::new(reader),
        };
        Self { status, headers, body }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).expect("a body");
        text
    }

    pub(super) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// Events as they come. Comments are passed over.
    pub(super) fn events(self) -> impl Iterator<Item = (Option<String>, String)> {
        let mut lines = self.body.lines();
        std::iter::from_fn(move || {
            let mut name = None;
            loop {
                let line = lines.next()?.expect("a line");
                if let Some(said) = line.strip_prefix("event: ") {
                    name = Some(said.to_owned());
                } else if let Some(data) = line.strip_prefix("data: ") {
                    assert_eq!(lines.next()?.expect("a line"), "", "an event ends with an empty line");
                    return Some((name, data.to_owned()));
                } else {
                    assert!(line.is_empty() || line.starts_with(':'), "{line:?}");
                }
            }
        })
    }
}

/// A chunked body.
struct Chunks {
    reader: BufReader<TcpStream>,
    left: usize,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            self.left =
                usize::from_str_radix(line.trim_end(), 16).map_err(|_| std::io::ErrorKind::UnexpectedEof)?;
            self.ended = self.left == 0;
        }
        let most = out.len().min(self.left);
        let count = self.reader.read(&mut out[..most])?;
        self.left -= count;
        if self.left == 0 && !self.ended {
            self.reader.read_exact(&mut [0; 2])?;
        }
        Ok(count)
    }
}

/// A chat of one question.
pub(super) fn chat(text: &str, more: Value) -> Value {
    let mut body = json!({"model": "stories", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24});
    body.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
    body
}
