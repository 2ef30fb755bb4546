//! Bytes to named tensors and back: safetensors, GGUF, Meta .pth, llama2.c .bin, Hugging Face configs.
