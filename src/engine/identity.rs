//! Which model this is, in 32 bytes, without reading all of it.
//!
//! SHA-256 over what decides what is computed and what tokens mean: the settings and the vocabulary, and of every tensor
//! its name, type, shape, and of its bytes three runs of 4 KiB: the first, the middle, the last. So two models that
//! differ in shape, quantization, vocabulary or training differ here, wherever they lie; names, licences and chat
//! templates do not count. It tells models apart; it does not prove that every weight is intact (a manifest does).

use sha2::{Digest, Sha256};

use crate::format::{Array, Checkpoint, Config, Dialect, Dtype, Metadata, Value};

/// 32 bytes that stand for a model.
pub(super) type Hash = [u8; 32];

/// Bytes of each run.
const RUN: usize = 4096;

/// The model of `checkpoint`.
pub(super) fn identity(checkpoint: &Checkpoint) -> Hash {
    let mut hash = Fields(Sha256::new());
    hash.field(b"pocketlm model 1");
    match &checkpoint.dialect {
        Dialect::Gguf(metadata) => hash.metadata(metadata),
        Dialect::HuggingFace(files) => {
            hash.field(b"hugging face");
            hash.config(files.config.as_ref());
            hash.config(files.hf_quant_config.as_ref());
            hash.field(files.tokenizer_json.as_deref().unwrap_or_default());
            hash.field(files.tokenizer_model.as_deref().unwrap_or_default());
        }
        Dialect::Meta(files) => {
            hash.field(b"meta");
            hash.config(files.params.as_ref());
            hash.field(files.tokenizer_model.as_deref().unwrap_or_default());
        }
    }
    for tensor in checkpoint.tensors.values() {
        hash.field(tensor.name.as_bytes());
        match tensor.dtype {
            Dtype::Format(format) => hash.field(format.name().as_bytes()),
            Dtype::Other(dtype) => hash.field(dtype.to_string().as_bytes()),
        }
        hash.numbers(&tensor.dims, u64::to_le_bytes);
        hash.number(tensor.bytes.len());
        for run in runs(&tensor.bytes) {
            hash.0.update(run);
        }
    }
    hash.0.finalize().into()
}

/// The hash of several, in order.
pub(super) fn joined(parts: &[&[u8]]) -> Hash {
    let mut hash = Fields(Sha256::new());
    parts.iter().for_each(|part| hash.field(part));
    hash.0.finalize().into()
}

/// The runs of a tensor that count: all of a small one.
fn runs(bytes: &[u8]) -> [&[u8]; 3] {
    let len = bytes.len();
    if len <= 3 * RUN {
        return [bytes, &[], &[]];
    }
    let middle = (len - RUN) / 2;
    [&bytes[..RUN], &bytes[middle..middle + RUN], &bytes[len - RUN..]]
}

/// A hash of fields, each with its length, so that no two lists of fields look alike.
struct Fields(Sha256);

impl Fields {
    fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }

    fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_le_bytes());
    }

    fn numbers<T: Copy, const N: usize>(&mut self, numbers: &[T], bytes: impl Fn(T) -> [u8; N]) {
        self.number(numbers.len());
        numbers.iter().for_each(|&number| self.0.update(bytes(number)));
    }

    fn config(&mut self, config: Option<&Config>) {
        for (key, value) in config.into_iter().flat_map(Config::iter) {
            self.field(key.as_bytes());
            self.field(value.to_string().as_bytes());
        }
        self.field(b"end");
    }

    fn metadata(&mut self, metadata: &Metadata) {
        self.field(b"gguf");
        let counts = |key: &str| {
            key == "general.architecture"
                || !key.starts_with("general.") && !key.starts_with("tokenizer.chat_template")
        };
        for (key, value) in metadata.iter().filter(|(key, _)| counts(key)) {
            self.field(key.as_bytes());
            self.field(value.type_name().as_bytes());
            match value {
                Value::Unsigned(value) => self.0.update(value.to_le_bytes()),
                Value::Signed(value) => self.0.update(value.to_le_bytes()),
                Value::Float(value) => self.0.update(value.to_le_bytes()),
                Value::Bool(value) => self.0.update([u8::from(*value)]),
                Value::Text(value) => self.field(value.as_bytes()),
                Value::Array(Array::Unsigned(values)) => self.numbers(values, u64::to_le_bytes),
                Value::Array(Array::Signed(values)) => self.numbers(values, i64::to_le_bytes),
                Value::Array(Array::Float(values)) => self.numbers(values, f64::to_le_bytes),
                Value::Array(Array::Bool(values)) => self.numbers(values, |value| [u8::from(value)]),
                Value::Array(Array::Text(values)) => {
                    self.number(values.len());
                    values.iter().for_each(|value| self.field(value.as_bytes()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Bytes;

    fn stories() -> Checkpoint {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");
        Checkpoint::open(path).unwrap()
    }

    fn changed(change: impl FnOnce(&mut Checkpoint)) -> Hash {
        let mut checkpoint = stories();
        change(&mut checkpoint);
        identity(&checkpoint)
    }

    fn set(checkpoint: &mut Checkpoint, key: &str, value: Value) {
        let Dialect::Gguf(metadata) = &mut checkpoint.dialect else { panic!("a GGUF") };
        let others = metadata.iter().filter(|(other, _)| *other != key);
        let mut changed = Metadata::default();
        for (key, value) in
            others.map(|(key, value)| (key.to_owned(), value.clone())).chain([(key.into(), value)])
        {
            changed.insert(key, value).unwrap();
        }
        *metadata = changed;
    }

    #[test]
    fn what_decides_the_numbers_counts_and_nothing_else() {
        let same = identity(&stories());
        assert_eq!(changed(|_| {}), same);
        assert_eq!(changed(|file| file.path = "elsewhere".into()), same);
        assert_eq!(changed(|file| set(file, "general.name", Value::Text("x".into()))), same);
        assert_eq!(changed(|file| set(file, "tokenizer.chat_template", Value::Text("x".into()))), same);
        assert_ne!(changed(|file| set(file, "general.architecture", Value::Text("x".into()))), same);
        assert_ne!(changed(|file| set(file, "llama.rope.freq_base", Value::Float(1.0))), same);
        assert_ne!(
            changed(|file| set(file, "tokenizer.ggml.tokens", Value::Array(Array::Text(vec![])))),
            same
        );
        assert_ne!(changed(|file| drop(file.tensors.pop_first())), same);
        for at in [0, RUN - 1, usize::MAX] {
            let hash = changed(|file| {
                let tensor = file.tensors.get_mut("token_embd.weight").unwrap();
                let mut bytes = tensor.bytes.to_vec();
                assert!(bytes.len() > 3 * RUN);
                let at = at.min(bytes.len() - 1);
                bytes[at] ^= 1;
                tensor.bytes = Bytes::from(bytes);
            });
            assert_ne!(hash, same, "byte {at}");
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(joined(&[b"ab", b"c"]), joined(&[b"a", b"bc"]));
        assert_ne!(joined(&[b"a"]), joined(&[b"a", b""]));
    }

    #[test]
    fn runs_lie_inside() {
        for len in [0, 1, RUN, 3 * RUN, 3 * RUN + 1, 10 * RUN] {
            let bytes = vec![0; len];
            assert_eq!(runs(&bytes).iter().map(|run| run.len()).sum::<usize>(), len.min(3 * RUN));
        }
    }
}
