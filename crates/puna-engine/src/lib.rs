//! Continuous batching over token ids: scheduler, blocks, prefix cache, samplers.
