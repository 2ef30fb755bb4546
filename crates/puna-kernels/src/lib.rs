//! Slices in, slices out: instruction-set dispatch, block quantised products, attention, the thread pool.
