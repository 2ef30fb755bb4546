//! The Llama 2 network: weights by name, KV cache, prefill and decode.
