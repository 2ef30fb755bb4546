//! SentencePiece BPE as Llama 2 uses it: model files, encode, decode, chat templates.
