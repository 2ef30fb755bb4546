//! Open any MODEL with its tokenizer and template; write models.
